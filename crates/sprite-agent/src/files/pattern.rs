//! Patterns of names, as shells have them.

/// `*` and `?` match within a name, `[a-z]` and `[!a-z]` one character, `**` any number of whole names.
pub(super) struct Pattern {
    /// One for each part between slashes.
    parts: Vec<Vec<char>>,
    /// Whether it is about the path, and not the name alone.
    whole_path: bool,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        let parts = text.split('/').filter(|part| !part.is_empty());
        Self {
            parts: parts.map(|part| part.chars().collect()).collect(),
            whole_path: text.contains('/'),
        }
    }

    /// `path` is relative to the directory that is listed.
    pub(super) fn matches(&self, path: &str) -> bool {
        let names: Vec<Vec<char>> = if self.whole_path {
            path.split('/').map(|name| name.chars().collect()).collect()
        } else {
            vec![path.rsplit('/').next().unwrap_or(path).chars().collect()]
        };
        backtrack(
            &self.parts,
            &names,
            |part| part.iter().collect::<String>() == "**",
            |part, name| matches_name(part, name),
        )
    }
}

fn matches_name(part: &[char], name: &[char]) -> bool {
    let tokens = tokens(part);
    backtrack(
        &tokens,
        name,
        |token| matches!(token, Token::Any),
        |token, c| match token {
            Token::Any => false,
            Token::One => true,
            Token::Char(expected) => expected == c,
            Token::Class { ranges, not } => {
                ranges
                    .iter()
                    .any(|(first, last)| (first..=last).contains(&c))
                    != *not
            }
        },
    )
}

enum Token {
    Any,
    One,
    Char(char),
    Class {
        ranges: Vec<(char, char)>,
        not: bool,
    },
}

fn tokens(part: &[char]) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = part;
    while let Some((&c, behind)) = rest.split_first() {
        rest = behind;
        tokens.push(match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => match rest.split_first() {
                Some((&c, behind)) => {
                    rest = behind;
                    Token::Char(c)
                }
                None => Token::Char('\\'),
            },
            '[' => match class(rest) {
                Some((class, behind)) => {
                    rest = behind;
                    class
                }
                None => Token::Char('['),
            },
            c => Token::Char(c),
        });
    }
    tokens
}

/// What stands behind `[`, and what stands behind its `]`; `None` if there is no such.
fn class(text: &[char]) -> Option<(Token, &[char])> {
    let (not, mut rest) = match text.split_first()? {
        ('!' | '^', behind) => (true, behind),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        let (&first, behind) = rest.split_first()?;
        if first == ']' && !ranges.is_empty() {
            return Some((Token::Class { ranges, not }, behind));
        }
        rest = behind;
        match rest {
            ['-', last, behind @ ..] if *last != ']' => {
                ranges.push((first, *last));
                rest = behind;
            }
            _ => ranges.push((first, first)),
        }
    }
}

/// Whether all of `items` match, where some patterns stand for any number of them. Only the last such pattern is ever
/// tried again: no pattern takes longer than the product of both lengths.
fn backtrack<P, T>(
    patterns: &[P],
    items: &[T],
    any: impl Fn(&P) -> bool,
    one: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut again: Option<(usize, usize)> = None;
    while i < items.len() {
        match patterns.get(p) {
            Some(pattern) if any(pattern) => {
                again = Some((p + 1, i));
                p += 1;
            }
            Some(pattern) if one(pattern, &items[i]) => {
                p += 1;
                i += 1;
            }
            Some(_) | None => match again {
                Some((behind, from)) => {
                    again = Some((behind, from + 1));
                    (p, i) = (behind, from + 1);
                }
                None => return false,
            },
        }
    }
    patterns[p..].iter().all(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, path, expected) in [
            ("*.rs", "main.rs", true),
            ("*.rs", "src/main.rs", true),
            ("*.rs", "main.rsx", false),
            ("src/*.rs", "src/main.rs", true),
            ("src/*.rs", "src/a/main.rs", false),
            ("**/*.rs", "main.rs", true),
            ("**/*.rs", "a/b/main.rs", true),
            ("src/**", "src/a/b", true),
            ("src/**", "lib/a", false),
            ("?.txt", "ü.txt", true),
            ("?.txt", ".txt", false),
            ("[a-c]*", "b1", true),
            ("[!a-c]*", "b1", false),
            ("[]]", "]", true),
            ("[", "[", true),
            ("[a-]", "-", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(path),
                expected,
                "{pattern} {path}"
            );
        }
    }

    #[test]
    fn no_pattern_takes_long() {
        let pattern = Pattern::new(&"a*".repeat(100));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(4000))[..50]));
        assert!(!Pattern::new(&format!("{}c", "*a".repeat(100))).matches(&"a".repeat(4000)));
    }
}
