//! What a person is told when a command fails: the chain of causes, and a hint.

use std::error::Error;
use std::fmt;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    what: String,
    causes: Vec<String>,
    hint: Option<String>,
}

impl Failure {
    /// A failure of a step, for a reason.
    pub(crate) fn new(what: impl Into<String>, error: &dyn Error) -> Self {
        let mut causes = Vec::new();
        let mut cause = Some(error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        Self {
            what: what.into(),
            causes,
            hint: None,
        }
    }

    /// A failure that needs no further cause.
    pub(crate) fn plain(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            causes: Vec::new(),
            hint: None,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sprited: {}", self.what)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        writeln!(f)?;
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {hint}"),
            None => Ok(()),
        }
    }
}
