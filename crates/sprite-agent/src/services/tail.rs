//! Reading back what is kept of a log, from its last lines on.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;

use sprite_agent_api::services::ServiceEvent;

use super::lines::{self, Cutter};
use super::log::{Part, ROTATED_AT};

/// Read at once.
const PIECE: usize = 64 << 10;

/// Of a file at most so much is read, from its end: more was not written by us.
const LONGEST: u64 = 2 * ROTATED_AT;

/// What is still to be read.
pub(super) struct Tail {
    /// Files with the range that is left of each.
    parts: VecDeque<(Part, u64)>,
    cutter: Cutter,
}

impl Tail {
    /// The last `lines` lines of these files, or all.
    ///
    /// # Errors
    /// The disk does not give them. Blocks.
    pub(super) fn open(parts: Vec<Part>, lines: Option<u64>) -> io::Result<Self> {
        let mut kept = VecDeque::new();
        let mut missing = lines;
        for part in parts.into_iter().rev() {
            let from = match &mut missing {
                None => part.length.saturating_sub(LONGEST),
                Some(0) => break,
                Some(missing) => begin(&part, missing)?,
            };
            kept.push_front((part, from));
        }
        Ok(Self {
            parts: kept,
            cutter: Cutter::default(),
        })
    }

    /// The next lines; none at the end. Blocks.
    ///
    /// # Errors
    /// The disk does not give them.
    pub(super) fn next(&mut self) -> io::Result<Vec<ServiceEvent>> {
        let now = lines::now_ms();
        let mut buffer = vec![0; PIECE];
        while let Some((part, from)) = self.parts.front_mut() {
            let left = usize::try_from(part.length - *from).unwrap_or(PIECE);
            let count = part.file.read_at(&mut buffer[..left.min(PIECE)], *from)?;
            *from += count as u64;
            let mut cut = self.cutter.cut(&buffer[..count]);
            if count == 0 || *from >= part.length {
                // Somebody may have cut it meanwhile.
                self.parts.pop_front();
                cut.extend(std::mem::take(&mut self.cutter).rest());
            }
            if !cut.is_empty() {
                return Ok(cut.iter().map(|line| lines::read(line, now)).collect());
            }
        }
        Ok(Vec::new())
    }
}

/// Where the last `missing` lines of a file begin; takes those that there are from it.
fn begin(part: &Part, missing: &mut u64) -> io::Result<u64> {
    let first = part.length.saturating_sub(LONGEST);
    let mut buffer = vec![0; PIECE];
    let mut end = part.length;
    while end > first {
        let begin = end.saturating_sub(PIECE as u64).max(first);
        let piece = &mut buffer[..usize::try_from(end - begin).unwrap_or(PIECE)];
        part.file.read_exact_at(piece, begin)?;
        for (at, byte) in piece.iter().enumerate().rev() {
            let at = begin + at as u64;
            // The last line's own end begins no line.
            if *byte == b'\n' && at + 1 < part.length {
                *missing -= 1;
                if *missing == 0 {
                    return Ok(at + 1);
                }
            }
        }
        end = begin;
    }
    if part.length > first {
        *missing -= 1;
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use sprite_agent_api::services::ServiceHappening;

    use super::*;

    fn part(text: &str) -> Part {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("it is written");
        Part {
            file,
            length: text.len() as u64,
        }
    }

    fn all(parts: &[&str], lines: Option<u64>) -> Vec<String> {
        let parts = parts.iter().map(|text| part(text)).collect();
        let mut tail = Tail::open(parts, lines).expect("they can be read");
        let mut all = Vec::new();
        loop {
            let next = tail.next().expect("they can be read");
            if next.is_empty() {
                return all;
            }
            all.extend(next.into_iter().map(|event| match event.what {
                ServiceHappening::Stdout { data } => data,
                other => panic!("{other:?}"),
            }));
        }
    }

    #[test]
    fn the_last_lines_come_over_both_files() {
        let parts = ["a\nb\n", "c\nd\n"];
        assert_eq!(all(&parts, None), ["a", "b", "c", "d"]);
        assert_eq!(all(&parts, Some(0)), Vec::<String>::new());
        assert_eq!(all(&parts, Some(1)), ["d"]);
        assert_eq!(all(&parts, Some(2)), ["c", "d"]);
        assert_eq!(all(&parts, Some(3)), ["b", "c", "d"]);
        assert_eq!(all(&parts, Some(4)), ["a", "b", "c", "d"]);
        assert_eq!(all(&parts, Some(500)), ["a", "b", "c", "d"]);
        assert_eq!(all(&["", ""], Some(3)), Vec::<String>::new());
        assert_eq!(all(&["a\nb", "c"], Some(2)), ["b", "c"]);
    }

    #[test]
    fn lines_over_many_pieces_are_whole() {
        let line = "x".repeat(5000);
        let text = format!("{line}\n").repeat(100);
        assert_eq!(all(&[&text], Some(37)), vec![line; 37]);
    }

    #[test]
    fn a_file_that_was_cut_meanwhile_ends_early() {
        let part = part("a\nb\nc\n");
        let cut = part.file.try_clone().expect("a descriptor");
        let mut tail = Tail::open(vec![part], None).expect("it can be read");
        cut.set_len(2).expect("it can be cut");
        assert_eq!(tail.next().expect("it can be read").len(), 1);
        assert_eq!(tail.next().expect("it can be read").len(), 0);
    }
}
