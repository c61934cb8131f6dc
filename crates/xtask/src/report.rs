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
/// `Summary` and cargo's `test result:`. None if there is no such line. nextest repeats what failing tests printed,
/// each with a `test result:` of its own: where it summarises, those are not counted.
pub fn tally_of(text: &str) -> Option<Tally> {
    let lines: Vec<String> = text.lines().map(plain).collect();
    let lines = || lines.iter().map(|line| line.trim());
    let word = if lines().any(|line| line.starts_with(NEXTEST)) {
        NEXTEST
    } else {
        CARGO
    };
    let mut total = None;
    for line in lines() {
        let counts = if line.starts_with(word) {
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

const NEXTEST: &str = "Summary [";
const CARGO: &str = "test result:";

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

    fn counted(text: &str) -> Option<(usize, usize)> {
        tally_of(text).map(|tally| (tally.passed, tally.failed))
    }

    #[test]
    fn summaries_of_every_program_are_counted() {
        let nextest = "     Summary [  12.345s] 10 tests run: 8 passed (1 slow), 1 failed, 1 timed out, 2 skipped";
        let cargo = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        let ours = "7 passed, 3 failed\na line that says 9 passed, in words\n";
        assert_eq!(counted(nextest), Some((8, 2)));
        assert_eq!(counted(&format!("{cargo}\n{cargo}\n")), Some((10, 0)));
        assert_eq!(counted(ours), Some((7, 3)));
        assert_eq!(counted(&format!("{nextest}\n{ours}")), Some((15, 5)));
    }

    #[test]
    fn a_failing_test_that_is_tried_again_and_repeated_counts_once() {
        let failed =
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out";
        let summary = "Summary [ 1.0s] 4 tests run: 3 passed, 1 failed, 0 skipped";
        let text = format!("{failed}\n{failed}\n{summary}\n{failed}\n");
        assert_eq!(counted(&text), Some((3, 1)));
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
