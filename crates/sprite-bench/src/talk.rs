//! What the measuring program and its guest say to each other, a line each: the guest connects to [`PORT`] of its
//! host's vsock, is asked, and answers [`DONE`] or what went wrong. Connections break when a machine is saved; then
//! the guest connects again.

use std::fmt;
use std::str::FromStr;

/// Port of the host.
pub const PORT: u32 = 1100;

/// The answer to what was done.
pub const DONE: &str = "done";

/// Where the guest finds its program.
pub const GUEST_PROGRAM: &str = "bench";

/// What the guest that only prints says, on a line of its own.
pub const PRINTED: &str = "the kernel is up";

/// Pages that the guest has for [`Ask::Dirty`], which writes to every other one of them.
pub const PAGES: usize = 16 << 10;

/// What a guest is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Remove its file, and forget what it knows of the disk.
    Clear,
    /// Write its file, so many MiB.
    Write(u64),
    /// Forget what it has in memory of its file.
    Forget,
    /// Read its file.
    Read,
    /// Write to many pages of its memory that lie apart.
    Dirty,
}

/// A line that asks for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("understand what is asked")]
pub struct AskError;

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clear => f.write_str("clear"),
            Self::Write(mebibytes) => write!(f, "write {mebibytes}"),
            Self::Forget => f.write_str("forget"),
            Self::Read => f.write_str("read"),
            Self::Dirty => f.write_str("dirty"),
        }
    }
}

impl FromStr for Ask {
    type Err = AskError;

    fn from_str(line: &str) -> Result<Self, AskError> {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("clear", "") => Ok(Self::Clear),
            ("write", number) => number.parse().map(Self::Write).map_err(|_| AskError),
            ("forget", "") => Ok(Self::Forget),
            ("read", "") => Ok(Self::Read),
            ("dirty", "") => Ok(Self::Dirty),
            _ => Err(AskError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood() {
        for ask in [
            Ask::Clear,
            Ask::Write(7),
            Ask::Forget,
            Ask::Read,
            Ask::Dirty,
        ] {
            assert_eq!(ask.to_string().parse(), Ok(ask));
        }
        for line in ["", "write", "write x", "read 1", "sing"] {
            assert_eq!(line.parse::<Ask>(), Err(AskError), "{line}");
        }
    }
}
