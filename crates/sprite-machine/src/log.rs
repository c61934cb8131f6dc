//! What an agent writes for the host's operator.
//!
//! A pipe with a name, not a file: whoever holds the agent's end, a taken-over agent too, fills the 64 KiB that
//! the kernel keeps for a pipe, and not the host's memory or disk. What was written stays while the agent or the
//! server has it open, so it outlives a restart of the server, and an end of the agent that the server sees.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};

/// How much of the log is told when the agent ended.
const TOLD: usize = 2000;

/// Most that is read: a pipe can be enlarged up to this. Source: pipe(7), /proc/sys/fs/pipe-max-size.
const LONGEST: u64 = 1 << 20;

/// The server's end of a log.
#[derive(Debug)]
pub(crate) struct AgentLog {
    pipe: File,
}

/// Opens a pipe that was made before.
pub(crate) fn open_pipe(path: &Path) -> io::Result<File> {
    // For reading and writing, so that neither end waits for the other one or is told that it is gone.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// Makes a pipe, and opens both ends. They are opened apart: the flags of each are its owner's to change.
pub(crate) fn make_pipe(path: &Path) -> io::Result<(File, File)> {
    match rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    Ok((open_pipe(path)?, open_pipe(path)?))
}

/// Bytes of a machine as text that does nothing to a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().filter(|c| *c != '\r');
    let text: String = shown
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect();
    text.trim().to_owned()
}

impl AgentLog {
    /// Makes a machine's log, and returns the agent's end too.
    pub(crate) fn make(path: &Path) -> io::Result<(Self, File)> {
        let (pipe, agents) = make_pipe(path)?;
        Ok((Self { pipe }, agents))
    }

    /// The log of a machine that runs.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            pipe: open_pipe(path)?,
        })
    }

    /// Takes what is there, and returns its last lines. What a machine says is told, never believed.
    pub(crate) fn last_lines(&self) -> String {
        let mut bytes = Vec::new();
        // Ends with an error: nothing more is there now.
        let _ = (&self.pipe).take(LONGEST).read_to_end(&mut bytes);
        let last = &bytes[bytes.len().saturating_sub(TOLD)..];
        match printable(last).as_str() {
            "" => "the agent ended and said nothing".to_owned(),
            text => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_lines_are_told_and_a_flood_ends() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let (log, mut agents) = AgentLog::make(&path).expect("a log");
        assert_eq!(log.last_lines(), "the agent ended and said nothing");
        agents.write_all(b"one\ntwo\x1b[2J\n").expect("room");
        assert_eq!(log.last_lines(), "one\ntwo?[2J");
        let mut took = 0;
        while let Ok(n) = agents.write(&[b'x'; 4096]) {
            took += n;
        }
        assert!(took as u64 <= LONGEST, "{took}");
        drop(log);
        let again = AgentLog::open(&path).expect("the log");
        assert_eq!(again.last_lines().len(), TOLD);
    }
}
