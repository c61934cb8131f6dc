//! Between this process' own streams and those of a command in a sprite.
//!
//! Blocking reads and writes of the own streams live on threads of their own with short queues between, so that a
//! slow reader of ours slows the command down and signals are heard all the while.

mod inlet;
mod outlet;
mod relay;
mod screen;
mod terminal;
mod tty;

pub(crate) use inlet::Inlet;
pub(crate) use outlet::{Outlet, OutletError};
pub(crate) use relay::{Quit, relay};
pub(crate) use terminal::{hidden_line, is_foreground, size_or_default};
pub(crate) use tty::relay_tty;

use sprite_client::{ExecError, ExitStatus};

/// How a relayed command ended for us.
#[derive(Debug)]
pub(crate) enum Ended {
    /// It ended.
    Exit(ExitStatus),
    /// It was let go of and runs on.
    Detached,
    /// The reader of our standard output went away; the command was told by SIGPIPE.
    OutputClosed,
    /// We were told to leave, by this signal; the command may run on.
    Left { signal: u8 },
}

/// Why relaying a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    #[error(transparent)]
    Exec(#[from] ExecError),
    #[error("read standard input")]
    Input(#[source] std::io::Error),
    #[error("write {stream}")]
    Output {
        stream: &'static str,
        source: std::io::Error,
    },
    #[error("put the terminal into raw mode")]
    Terminal(#[source] std::io::Error),
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
}
