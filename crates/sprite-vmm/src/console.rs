//! The guest's console, kept within bounds.
//!
//! Whatever a guest prints, and however much of it: the file stays below a limit and always ends with the
//! newest lines, and a reader of a pipe who is slow loses output rather than stop a vCPU.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// The newest output that is kept in memory, and with which a full file begins anew.
const KEPT: usize = 32 << 10;
/// The largest the console's file becomes.
const FILE_LIMIT: u64 = 1 << 20;
/// A line that is longer is written in parts.
const LINE: usize = 256;

const _: () = assert!((KEPT + LINE) as u64 <= FILE_LIMIT / 2);
const _: () = assert!(
    LINE <= libc::PIPE_BUF,
    "a write to a pipe that is ready does not block"
);

/// Where the output goes.
enum Target {
    /// A file, and how much is in it.
    Regular { file: File, length: u64 },
    /// A pipe, terminal or device.
    Stream(File),
}

/// Takes the guest's output.
pub struct Console {
    target: Target,
    line: Vec<u8>,
    kept: VecDeque<u8>,
}

impl Console {
    /// A console that writes to `file`, behind what is there if it is a regular one.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn new(file: File) -> io::Result<Console> {
        let metadata = file.metadata()?;
        let target = if metadata.is_file() {
            let length = metadata.len();
            Target::Regular { file, length }
        } else {
            Target::Stream(file)
        };
        Ok(Console {
            target,
            line: Vec::with_capacity(LINE),
            kept: VecDeque::new(),
        })
    }

    /// The newest output, at most 32 KiB.
    #[must_use]
    pub fn newest(&self) -> Vec<u8> {
        self.kept.iter().copied().collect()
    }

    fn put_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let surplus = (self.kept.len() + line.len()).saturating_sub(KEPT);
        self.kept.drain(..surplus);
        self.kept.extend(&line);
        let written = self.target.put(&line, &self.kept);
        self.line = line;
        self.line.clear();
        written
    }
}

impl Target {
    /// Writes `line`; if the file is full it begins anew with `kept`, the line being the end of that.
    fn put(&mut self, line: &[u8], kept: &VecDeque<u8>) -> io::Result<()> {
        match self {
            Target::Regular { file, length } => {
                if *length + line.len() as u64 <= FILE_LIMIT {
                    file.write_all_at(line, *length)?;
                    *length += line.len() as u64;
                } else {
                    file.set_len(0)?;
                    let (front, back) = kept.as_slices();
                    file.write_all_at(front, 0)?;
                    file.write_all_at(back, front.len() as u64)?;
                    *length = kept.len() as u64;
                }
                Ok(())
            }
            Target::Stream(stream) => {
                if takes_more(stream) {
                    stream.write_all(line)?;
                }
                Ok(())
            }
        }
    }
}

/// Whether a write of a line would not wait.
fn takes_more(stream: &File) -> bool {
    let mut poll = libc::pollfd {
        fd: stream.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one pollfd that lives until the call is over, and no time to wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & libc::POLLOUT != 0
}

impl Write for Console {
    /// Takes everything. A failure to write it down is the host's trouble, not the guest's.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() == LINE {
                let _ = self.put_line();
            }
        }
        Ok(bytes.len())
    }

    /// The serial port flushes after each byte; lines are written when they are whole. What of a line is
    /// there is written by [`Console::put_rest`].
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Console {
    /// Writes down the line that has no end yet.
    pub fn put_rest(&mut self) {
        if !self.line.is_empty() {
            // As in `write`: nobody is there whom it would help to know.
            let _ = self.put_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;

    use super::*;

    fn file_and_console() -> (File, Console) {
        let file = tempfile::tempfile().expect("a file");
        let console = Console::new(file.try_clone().expect("cloned")).expect("a console");
        (file, console)
    }

    fn content(file: &File) -> String {
        let length = usize::try_from(file.metadata().expect("metadata").len()).expect("small");
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, 0).expect("read");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn lines_are_written_whole_and_the_rest_on_demand() {
        let (file, mut console) = file_and_console();
        write!(console, "one\ntw").expect("taken");
        assert_eq!(content(&file), "one\n");
        console.put_rest();
        assert_eq!(content(&file), "one\ntw");
        writeln!(console, "o").expect("taken");
        assert_eq!(content(&file), "one\ntwo\n");
    }

    #[test]
    fn a_file_stays_below_its_limit_and_ends_with_the_newest() {
        let (file, mut console) = file_and_console();
        for number in 0..200_000 {
            writeln!(console, "line {number}").expect("taken");
            assert!(number % 1000 != 0 || file.metadata().expect("metadata").len() <= FILE_LIMIT);
        }
        let content = content(&file);
        assert!(content.len() as u64 <= FILE_LIMIT);
        assert!(content.ends_with("line 199998\nline 199999\n"));
        assert_eq!(console.newest().len(), KEPT);
    }

    #[test]
    fn the_console_of_an_earlier_process_is_continued() {
        let (file, mut console) = file_and_console();
        writeln!(console, "before").expect("taken");
        let mut console = Console::new(file.try_clone().expect("cloned")).expect("a console");
        writeln!(console, "after").expect("taken");
        assert_eq!(content(&file), "before\nafter\n");
    }

    #[test]
    fn a_line_without_end_is_written_in_parts() {
        let (file, mut console) = file_and_console();
        console.write_all(&[b'x'; LINE + 1]).expect("taken");
        assert_eq!(content(&file).len(), LINE);
    }

    #[test]
    fn a_reader_that_does_not_read_stops_nobody() {
        let (mut read, write) = io::pipe().expect("a pipe");
        let write = File::from(OwnedFd::from(write));
        let mut console = Console::new(write).expect("a console");
        for number in 0..100_000 {
            writeln!(console, "line {number}").expect("taken");
        }
        drop(console);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("text");
        assert!(text.starts_with("line 0\nline 1\n") && text.len() < 200_000);
    }
}
