//! Why a developer command ended without doing what was asked.

use std::fmt;
use std::io;
use std::process::ExitStatus;

/// One failure, told to the person at the terminal.
#[derive(Debug)]
pub enum Failure {
    /// A program could not be started.
    Start {
        /// The command line.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended with something other than success.
    Exit {
        /// The command line.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it said, where they were kept.
        said: String,
    },
    /// A file or a stream failed.
    Io {
        /// Lower-case verb phrase.
        step: String,
        /// What the system said.
        source: io::Error,
    },
    /// Something that must hold does not.
    Check(String),
    /// The command cannot be done here; the text says what to do instead.
    Refused(String),
    /// The person pressed Ctrl-C, or the command was told to end.
    Interrupted,
}

impl Failure {
    /// Wraps an error of the system with the step that failed.
    pub fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let step = step.into();
        move |source| Self::Io { step, source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start { program, source } => write!(f, "start `{program}`: {source}"),
            Self::Exit {
                program,
                status,
                said,
            } if said.is_empty() => {
                write!(f, "`{program}` ended with {status}")
            }
            Self::Exit {
                program,
                status,
                said,
            } => {
                write!(f, "`{program}` ended with {status}:\n{said}")
            }
            Self::Io { step, source } => write!(f, "{step}: {source}"),
            Self::Check(text) | Self::Refused(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Failure {}

/// What every step gives back.
pub type Outcome<T = ()> = Result<T, Failure>;
