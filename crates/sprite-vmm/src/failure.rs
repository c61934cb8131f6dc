//! Failures in words.

use std::error::Error;

/// An error and all that caused it, in one line: `load a snapshot: open /s/state: No such file or directory`.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
