//! Lines: cut out of output, written to a log, and read from there.
//!
//! A line of a log is `2026-06-02T17:11:17.821Z [stderr] text`. Source: behaviour reference §4.3.

use std::time::{SystemTime, UNIX_EPOCH};

use sprite_agent_api::services::{LONGEST_LINE, ServiceEvent, ServiceHappening};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

const STAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Which of the two it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    Stdout,
    Stderr,
}

impl Out {
    fn mark(self) -> &'static str {
        match self {
            Self::Stdout => "[stdout]",
            Self::Stderr => "[stderr]",
        }
    }

    pub(super) fn event(self, unix_ms: i64, data: String) -> ServiceEvent {
        let what = match self {
            Self::Stdout => ServiceHappening::Stdout { data },
            Self::Stderr => ServiceHappening::Stderr { data },
        };
        ServiceEvent { unix_ms, what }
    }
}

/// Now, in Unix milliseconds.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Cuts bytes into lines.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// The beginning of the next line, shorter than the longest.
    begun: Vec<u8>,
}

impl Cutter {
    /// The lines that end in `bytes`, or are as long as a line may be; without their ends.
    pub(super) fn cut(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let mut text = text;
            while self.begun.len() + text.len() > LONGEST_LINE {
                let (head, tail) = text.split_at(LONGEST_LINE - self.begun.len());
                self.begun.extend_from_slice(head);
                lines.push(std::mem::take(&mut self.begun));
                text = tail;
            }
            self.begun.extend_from_slice(text);
            if ends {
                lines.push(std::mem::take(&mut self.begun));
            }
        }
        lines
    }

    /// What is left at the end.
    pub(super) fn rest(self) -> Option<Vec<u8>> {
        (!self.begun.is_empty()).then_some(self.begun)
    }
}

/// The text of a line, as it is told; terminals' line ends lose their other half.
pub(super) fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

/// Appends a line to what goes to a log.
pub(super) fn write(into: &mut Vec<u8>, out: Out, unix_ms: i64, line: &[u8]) {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    let stamp = at.unwrap_or(OffsetDateTime::UNIX_EPOCH).format(STAMP);
    into.extend_from_slice(stamp.unwrap_or_default().as_bytes());
    into.push(b' ');
    into.extend_from_slice(out.mark().as_bytes());
    into.push(b' ');
    into.extend_from_slice(line);
    into.push(b'\n');
}

/// A line of a log. What somebody else wrote there is told as it stands, with the time `now`.
pub(super) fn read(line: &[u8], now: i64) -> ServiceEvent {
    let whole = text(line);
    let marked = || {
        let (stamp, rest) = whole.split_once(' ')?;
        let at = PrimitiveDateTime::parse(stamp, STAMP).ok()?.assume_utc();
        let ms = i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()?;
        let (mark, said) = rest.split_once(' ')?;
        let out = [Out::Stdout, Out::Stderr];
        let out = out.into_iter().find(|out| out.mark() == mark)?;
        Some(out.event(ms, said.to_owned()))
    };
    marked().unwrap_or_else(|| Out::Stdout.event(now, whole.clone()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_written_as_it_is_known_and_read_again() {
        let mut log = Vec::new();
        write(
            &mut log,
            Out::Stderr,
            1_780_420_277_821,
            b"text: [stdout] x",
        );
        assert_eq!(
            String::from_utf8_lossy(&log),
            "2026-06-02T17:11:17.821Z [stderr] text: [stdout] x\n"
        );
        let read = read(log.trim_ascii_end(), 0);
        assert_eq!(
            read,
            Out::Stderr.event(1_780_420_277_821, "text: [stdout] x".to_owned())
        );
    }

    #[test]
    fn what_others_write_into_a_log_is_told_as_it_stands() {
        for line in [
            "",
            "x",
            "2026 [stderr] x",
            "2026-06-02T17:11:17.821Z [other] x",
        ] {
            assert_eq!(
                read(line.as_bytes(), 7),
                Out::Stdout.event(7, line.to_owned())
            );
        }
    }

    #[test]
    fn lines_longer_than_the_longest_come_in_pieces() {
        let mut cutter = Cutter::default();
        let long = vec![b'x'; LONGEST_LINE];
        assert_eq!(cutter.cut(&long), Vec::<Vec<u8>>::new());
        assert_eq!(cutter.cut(b"y\nz"), [long, b"y".to_vec()]);
        assert_eq!(cutter.rest(), Some(b"z".to_vec()));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_output_comes(text in "[a-c\n]{0,200}", piece in 1_usize..20) {
            let mut cutter = Cutter::default();
            let mut lines = Vec::new();
            for bytes in text.as_bytes().chunks(piece) {
                lines.extend(cutter.cut(bytes));
            }
            lines.extend(cutter.rest());
            let whole: Vec<&[u8]> = text.as_bytes().split(|byte| *byte == b'\n').collect();
            let whole = match whole.split_last() {
                Some(([], before)) => before,
                _ => &whole[..],
            };
            prop_assert_eq!(lines, whole);
        }

        #[test]
        fn no_line_is_too_strange(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line, 0);
        }
    }
}
