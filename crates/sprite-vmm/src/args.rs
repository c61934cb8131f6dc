//! The command line, in Firecracker's form.

use std::ffi::OsString;
use std::path::PathBuf;

use sprite_vmm::log::{Level, LogTarget};

/// What `--help` says.
pub const HELP: &str = "\
Runs one machine on KVM, controlled over a Unix socket.

Usage: sprite-vmm --api-sock PATH [OPTIONS]

  --api-sock PATH      make the control socket here; there must be no such file
  --id ID              what GET / answers as id: 1 to 64 letters, digits and hyphens
  --log-path PATH      append the log to this file or pipe, not to standard error
  --level LEVEL        Error, Warning, Info, Debug or Off
  --metrics-path PATH  append counts to this file or pipe, as PUT /metrics does
  --no-seccomp         let threads call whatever the system has
  --version            print the version and end
  --help               print this and end
";

/// What the caller wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Args {
    /// Run.
    Run(Box<Run>),
    /// Print the version.
    Version,
    /// Print the help.
    Help,
}

/// How to run.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    pub socket: PathBuf,
    pub id: String,
    pub log: LogTarget,
    pub metrics: Option<PathBuf>,
    pub seccomp: Seccomp,
}

/// Whether threads are held to the calls that they need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    On,
    Off,
}

/// A command line that says nothing sensible.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgsError {
    #[error("{0} is no option; see --help")]
    Unknown(String),
    #[error("{0} needs a value")]
    NoValue(&'static str),
    #[error("{0} is given twice")]
    Twice(&'static str),
    #[error("--api-sock is missing; see --help")]
    NoSocket,
    #[error("--id is 1 to 64 letters, digits and hyphens")]
    Id,
    #[error("--level is one of Error, Warning, Info, Debug and Off")]
    Level,
}

/// The id of a process that was given none, as in Firecracker.
const ANONYMOUS: &str = "anonymous-instance";

/// Reads the command line without the program's name.
///
/// # Errors
/// [`ArgsError`]
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args, ArgsError> {
    let mut words = words.into_iter();
    let mut given = Given::default();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy().into_owned();
        match text.as_str() {
            "--version" | "-V" => return Ok(Args::Version),
            "--help" | "-h" => return Ok(Args::Help),
            "--no-seccomp" => given.no_seccomp = true,
            _ => given.option(&text, &mut words)?,
        }
    }
    given.complete()
}

#[derive(Default)]
struct Given {
    socket: Option<OsString>,
    id: Option<OsString>,
    log_path: Option<OsString>,
    level: Option<OsString>,
    metrics: Option<OsString>,
    no_seccomp: bool,
}

impl Given {
    /// Takes an option with its value, which is the next word or stands behind an equals sign.
    fn option(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = OsString>,
    ) -> Result<(), ArgsError> {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(OsString::from(value))),
            None => (word, None),
        };
        let (name, slot) = match name {
            "--api-sock" => ("--api-sock", &mut self.socket),
            "--id" => ("--id", &mut self.id),
            "--log-path" => ("--log-path", &mut self.log_path),
            "--level" => ("--level", &mut self.level),
            "--metrics-path" => ("--metrics-path", &mut self.metrics),
            unknown => return Err(ArgsError::Unknown(unknown.to_owned())),
        };
        let value = value
            .or_else(|| words.next())
            .ok_or(ArgsError::NoValue(name))?;
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(ArgsError::Twice(name)),
        }
    }

    fn complete(self) -> Result<Args, ArgsError> {
        let id = match self.id {
            None => ANONYMOUS.to_owned(),
            Some(id) => id
                .into_string()
                .ok()
                .filter(|id| (1..=64).contains(&id.len()))
                .filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
                .ok_or(ArgsError::Id)?,
        };
        let level = match self.level {
            None => None,
            Some(name) => Some(
                name.to_str()
                    .and_then(Level::from_name)
                    .ok_or(ArgsError::Level)?,
            ),
        };
        Ok(Args::Run(Box::new(Run {
            socket: self.socket.ok_or(ArgsError::NoSocket)?.into(),
            id,
            log: LogTarget {
                log_path: self.log_path.map(PathBuf::from),
                level,
            },
            metrics: self.metrics.map(PathBuf::from),
            seccomp: match self.no_seccomp {
                true => Seccomp::Off,
                false => Seccomp::On,
            },
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Args, ArgsError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn values_stand_behind_a_space_or_an_equals_sign() {
        let spaced = parsed("--api-sock /s --id a-1 --level off --metrics-path /m --no-seccomp");
        let equal = parsed("--no-seccomp --api-sock=/s --id=a-1 --level=OFF --metrics-path=/m");
        assert_eq!(spaced, equal);
        let Ok(Args::Run(run)) = spaced else {
            panic!("it is a command line");
        };
        assert_eq!(run.socket, PathBuf::from("/s"));
        assert_eq!(run.id, "a-1");
        assert_eq!(run.log.level, Some(Level::Off));
        assert_eq!(run.seccomp, Seccomp::Off);
    }

    #[test]
    fn seccomp_is_on_and_the_name_is_anonymous_unless_said_otherwise() {
        let Ok(Args::Run(run)) = parsed("--api-sock /s") else {
            panic!("it is a command line");
        };
        assert_eq!(run.seccomp, Seccomp::On);
        assert_eq!(run.id, ANONYMOUS);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, error) in [
            ("", ArgsError::NoSocket),
            ("--api-sock", ArgsError::NoValue("--api-sock")),
            (
                "--api-sock /s --api-sock /t",
                ArgsError::Twice("--api-sock"),
            ),
            ("--api-sock /s --id a/b", ArgsError::Id),
            ("--api-sock /s --id=", ArgsError::Id),
            ("--api-sock /s --level loud", ArgsError::Level),
            (
                "--api-sock /s extra",
                ArgsError::Unknown("extra".to_owned()),
            ),
        ] {
            assert_eq!(parsed(line), Err(error), "{line}");
        }
    }
}
