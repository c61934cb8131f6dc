//! What this program has to say, line by line, on standard error or in a file.
//!
//! Some lines are caused by the guest, which could cause them without end: so only so many are written in a
//! second, and how many were left out is said.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::config::{ConfigError, absent, usable_path};

/// Most lines in one [`WINDOW`]: enough for all that a start has to say, too few to fill a disk in a day.
const LINES_IN_WINDOW: u32 = 100;

/// How long a window is.
const WINDOW: Duration = Duration::from_secs(10);

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Off = 0,
    /// What ended the machine or made a command fail.
    Error = 1,
    /// What should not happen and was survived.
    Warn = 2,
    /// Starts, ends, snapshots.
    Info = 3,
    /// All there is.
    Debug = 4,
}

impl Level {
    /// Reads a level as Firecracker writes it, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Level> {
        match name.to_ascii_lowercase().as_str() {
            "off" => Some(Level::Off),
            "error" => Some(Level::Error),
            "warning" | "warn" => Some(Level::Warn),
            "info" => Some(Level::Info),
            "debug" | "trace" => Some(Level::Debug),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Level::Off => "OFF",
            Level::Error => "ERROR",
            Level::Warn => "WARN",
            Level::Info => "INFO",
            Level::Debug => "DEBUG",
        }
    }
}

/// The body of `PUT /logger`: what is absent stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Wire")]
pub struct LogTarget {
    /// A file or named pipe; standard error without one.
    pub log_path: Option<PathBuf>,
    /// How much is said; [`Level::Info`] at first.
    pub level: Option<Level>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    log_path: Option<PathBuf>,
    level: Option<String>,
    // Every line has its level, and none its place in the source.
    #[serde(rename = "show_level")]
    _show_level: Option<bool>,
    #[serde(rename = "show_log_origin")]
    _show_log_origin: Option<bool>,
    module: Option<IgnoredAny>,
}

impl TryFrom<Wire> for LogTarget {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<LogTarget, ConfigError> {
        absent(
            wire.module.as_ref(),
            "module",
            "set a level for the whole program",
        )?;
        let level = match wire.level {
            None => None,
            Some(name) => Some(Level::from_name(&name).ok_or(ConfigError::Form {
                field: "level",
                rule: "one of Off, Error, Warning, Info, Debug, Trace",
            })?),
        };
        Ok(LogTarget {
            log_path: wire
                .log_path
                .map(|path| usable_path(&path, "log_path"))
                .transpose()?,
            level,
        })
    }
}

/// The log's file does not open.
#[derive(Debug, thiserror::Error)]
#[error("open {path} for the log")]
pub struct LogError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);
static SINK: Mutex<Sink> = Mutex::new(Sink {
    file: None,
    window: None,
    left_out: 0,
});

struct Sink {
    file: Option<std::fs::File>,
    /// When the window began, and how many lines it has.
    window: Option<(Instant, u32)>,
    left_out: u64,
}

/// Says from now on as much as `target` wants, where it wants.
///
/// # Errors
/// [`LogError`]: the file does not open; nothing is changed then.
pub fn configure(target: &LogTarget) -> Result<(), LogError> {
    if let Some(path) = &target.log_path {
        let file = open(path).map_err(|source| LogError {
            path: path.clone(),
            source,
        })?;
        SINK.lock().unwrap_or_else(PoisonError::into_inner).file = Some(file);
    }
    if let Some(level) = target.level {
        LEVEL.store(level as u8, Ordering::Relaxed);
    }
    Ok(())
}

fn open(path: &Path) -> std::io::Result<std::fs::File> {
    // Read as well, so that opening a pipe does not wait for its reader.
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

/// Says what ended the machine or made a command fail.
pub fn error(text: fmt::Arguments<'_>) {
    say(Level::Error, text);
}

/// Says what should not happen and was survived.
pub fn warn(text: fmt::Arguments<'_>) {
    say(Level::Warn, text);
}

/// Says what a reader of the log wants to know when all is well.
pub fn info(text: fmt::Arguments<'_>) {
    say(Level::Info, text);
}

/// Says what only a developer wants to know.
pub fn debug(text: fmt::Arguments<'_>) {
    say(Level::Debug, text);
}

fn say(level: Level, text: fmt::Arguments<'_>) {
    if level as u8 > LEVEL.load(Ordering::Relaxed) {
        return;
    }
    SINK.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .say(level, text, Instant::now());
}

impl Sink {
    fn say(&mut self, level: Level, text: fmt::Arguments<'_>, now: Instant) {
        let (began, lines) = match self.window {
            Some((began, lines)) if now.duration_since(began) < WINDOW => (began, lines),
            Some(_) | None => (now, 0),
        };
        if lines == LINES_IN_WINDOW {
            self.left_out += 1;
            return;
        }
        self.window = Some((began, lines + 1));
        let left_out = std::mem::take(&mut self.left_out);
        let mut line = String::new();
        if left_out > 0 {
            line.push_str(&format!("WARN {left_out} lines were left out\n"));
        }
        line.push_str(&format!("{} {text}\n", level.name()));
        // A log that cannot be written must not stop the machine.
        let _ = match &mut self.file {
            Some(file) => file.write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_is_cut_off_and_told() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let mut sink = Sink {
            file: Some(open(&path).expect("the file opens")),
            window: None,
            left_out: 0,
        };
        let start = Instant::now();
        for number in 0..LINES_IN_WINDOW + 50 {
            sink.say(Level::Warn, format_args!("line {number}"), start);
        }
        sink.say(Level::Warn, format_args!("later"), start + WINDOW);
        let text = std::fs::read_to_string(&path).expect("the file reads");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), LINES_IN_WINDOW as usize + 2);
        assert_eq!(
            lines[LINES_IN_WINDOW as usize],
            "WARN 50 lines were left out"
        );
        assert_eq!(lines[LINES_IN_WINDOW as usize + 1], "WARN later");
    }
}
