//! Failures of a system step: what was tried, and what the system said.

use std::fmt;
use std::io;

/// A step that failed.
#[derive(Debug)]
pub(crate) struct StepError {
    /// Lower-case verb phrase.
    pub(crate) step: String,
    pub(crate) source: io::Error,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for StepError {}

/// Names the step of a result.
pub(crate) trait Step<T> {
    fn step(self, step: &str) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step: step.to_owned(),
            source: error.into(),
        })
    }
}
