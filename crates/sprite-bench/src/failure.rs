//! Why nothing could be measured.

use std::error::Error;
use std::io;

/// One failure, told to the person at the terminal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The system did not do something.
    #[error("{step}")]
    Io {
        /// Lower-case verb phrase.
        step: String,
        source: io::Error,
    },
    /// KVM did not.
    #[error("{step}")]
    Kvm {
        /// Lower-case verb phrase.
        step: &'static str,
        source: kvm_ioctls::Error,
    },
    /// The guest system cannot be used.
    #[error("open the guest system")]
    Guest(#[from] sprite_disk::guest::GuestError),
    /// Something is not as it must be.
    #[error("{0}")]
    Check(String),
}

impl Failure {
    /// The failure with all that caused it.
    pub(crate) fn chain(&self) -> String {
        let mut told = self.to_string();
        let mut cause = self.source();
        while let Some(deeper) = cause {
            told.push_str(&format!(": {deeper}"));
            cause = deeper.source();
        }
        told
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Wraps an error of the system with the step that failed.
pub(crate) fn io_failure(step: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let step = step.into();
    move |source| Failure::Io { step, source }
}

/// Wraps an error of KVM with the step that failed.
pub(crate) fn kvm_failure(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Failure {
    move |source| Failure::Kvm { step, source }
}
