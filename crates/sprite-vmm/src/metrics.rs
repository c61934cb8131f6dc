//! What this program counted, written as one line of JSON when it is asked for.
//!
//! As with Firecracker a line says what happened *since the last line*, so that whoever adds the lines up
//! misses nothing over a restart of the reader.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::config::{ConfigError, usable_path};

/// A number that only grows. To serialize it is to take what it grew by since it was last serialized.
#[derive(Debug, Default)]
pub struct Counter {
    total: AtomicU64,
    told: AtomicU64,
}

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, many: u64) {
        // Nothing is ordered by a counter.
        self.total.fetch_add(many, Ordering::Relaxed);
    }

    /// All that was ever counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What was counted since the last call.
    fn take_growth(&self) -> u64 {
        let total = self.total();
        total.wrapping_sub(self.told.swap(total, Ordering::Relaxed))
    }
}

impl Serialize for Counter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.take_growth())
    }
}

/// Where the lines go: the body of `PUT /metrics`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Wire")]
pub struct MetricsTarget {
    /// A file or named pipe, which exists or is made.
    pub metrics_path: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    metrics_path: PathBuf,
}

impl TryFrom<Wire> for MetricsTarget {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<MetricsTarget, ConfigError> {
        Ok(MetricsTarget {
            metrics_path: usable_path(&wire.metrics_path, "metrics_path")?,
        })
    }
}

/// The open file that lines are appended to.
#[derive(Debug)]
pub struct MetricsFile {
    file: File,
}

/// Counts of this program could not be written.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The file did not open.
    #[error("open {path} for metrics")]
    Open {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The line was not written, or not as a whole.
    #[error("write metrics")]
    Write(#[source] io::Error),
}

impl MetricsFile {
    /// Opens the file or named pipe for appending.
    ///
    /// It never waits: a pipe that nobody reads is refused once it is full.
    ///
    /// # Errors
    /// [`MetricsError::Open`]
    pub fn open(path: &Path) -> Result<MetricsFile, MetricsError> {
        // A pipe is opened for reading too, so that opening it does not wait for a reader.
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|source| MetricsError::Open {
                path: path.to_owned(),
                source,
            })?;
        Ok(MetricsFile { file })
    }

    /// Writes one line: the time, and the groups of counts.
    ///
    /// # Errors
    /// [`MetricsError::Write`]; the growth that the line told of is then lost.
    pub fn write(
        &mut self,
        now: SystemTime,
        groups: Map<String, Value>,
    ) -> Result<(), MetricsError> {
        let since_epoch = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut line = Map::new();
        line.insert(
            "utc_timestamp_ms".to_owned(),
            Value::from(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)),
        );
        line.extend(groups);
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        // One write, so that lines of several programs in one file do not mix.
        self.file
            .write_all(text.as_bytes())
            .map_err(MetricsError::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_tells_only_what_is_new() {
        let counter = Counter::default();
        counter.add(5);
        assert_eq!(serde_json::to_string(&counter).expect("a number"), "5");
        counter.inc();
        assert_eq!(serde_json::to_string(&counter).expect("a number"), "1");
        assert_eq!(serde_json::to_string(&counter).expect("a number"), "0");
        assert_eq!(counter.total(), 6);
    }

    #[test]
    fn every_flush_is_one_line_at_the_end_of_the_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("metrics");
        let mut groups = Map::new();
        groups.insert("vsock".to_owned(), serde_json::json!({"rx_bytes_count": 7}));
        for _ in 0..2 {
            MetricsFile::open(&path)
                .expect("the file opens")
                .write(UNIX_EPOCH, groups.clone())
                .expect("the file takes the line");
        }
        let text = std::fs::read_to_string(&path).expect("the file reads");
        let line = r#"{"utc_timestamp_ms":0,"vsock":{"rx_bytes_count":7}}"#;
        assert_eq!(text, format!("{line}\n{line}\n"));
    }

    #[test]
    fn a_pipe_without_a_reader_does_not_stop_the_program() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .expect("a pipe is made");
        let mut file = MetricsFile::open(&path).expect("the pipe opens");
        let mut groups = Map::new();
        groups.insert("filler".to_owned(), Value::from("x".repeat(3000)));
        let refused = (0..100).find_map(|_| file.write(UNIX_EPOCH, groups.clone()).err());
        assert!(refused.is_some(), "the pipe is full and says so");
    }
}
