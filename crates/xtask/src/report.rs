//! How many passed and how many failed, read from what test programs print.

/// A count of tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Those that passed.
    pub passed: usize,
    /// Those that failed.
    pub failed: usize,
}

impl Tally {
    /// Adds another count.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// The sum of every `N passed` and `N failed` on the lines that summarise: `N passed, N failed`, nextest's
/// `Summary` and cargo's `test result:`. None if there is no such line.
pub fn tally_of(text: &str) -> Option<Tally> {
    let mut total = None;
    for line in text.lines().map(plain) {
        let line = line.trim();
        let counts = if line.starts_with("Summary [") || line.starts_with("test result:") {
            Some(Tally {
                passed: count(line, "passed"),
                failed: failures(line),
            })
        } else {
            exact(line)
        };
        if let Some(counts) = counts {
            total.get_or_insert_with(Tally::default).add(counts);
        }
    }
    total
}

/// `N passed, N failed` and nothing else on the line.
fn exact(line: &str) -> Option<Tally> {
    let (passed, failed) = line.split_once(" passed, ")?;
    let failed = failed.strip_suffix(" failed")?;
    Some(Tally {
        passed: passed.parse().ok()?,
        failed: failed.parse().ok()?,
    })
}

fn failures(line: &str) -> usize {
    count(line, "failed") + count(line, "timed out") + count(line, "exec failed")
}

/// The number before `word`, or 0.
fn count(line: &str, word: &str) -> usize {
    line.split([',', ':', '.', ';'])
        .filter_map(|part| part.trim().split_once(' '))
        .filter(|(_, rest)| {
            rest.split('(')
                .next()
                .is_some_and(|rest| rest.trim() == word)
        })
        .filter_map(|(number, _)| number.parse::<usize>().ok())
        .sum()
}

/// The line without the colours that some programs write into pipes.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            for skipped in characters.by_ref() {
                if skipped.is_ascii_alphabetic() {
                    break;
                }
            }
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_every_program_are_counted() {
        let text = "\
     Summary [  12.345s] 10 tests run: 8 passed (1 slow), 1 failed, 1 timed out, 2 skipped
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
7 passed, 3 failed
a line that says 9 passed, in words
";
        assert_eq!(
            tally_of(text),
            Some(Tally {
                passed: 20,
                failed: 5
            })
        );
    }

    #[test]
    fn colours_do_not_matter() {
        let text = "\u{1b}[32;1m     Summary\u{1b}[0m [   0.1s] 2 tests run: \u{1b}[1m2\u{1b}[0m \u{1b}[32;1mpassed\u{1b}[0m, 0 skipped";
        assert_eq!(
            tally_of(text),
            Some(Tally {
                passed: 2,
                failed: 0
            })
        );
    }

    #[test]
    fn no_summary_is_not_zero() {
        assert_eq!(tally_of("nothing ran"), None);
    }
}
