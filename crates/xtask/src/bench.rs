//! `cargo xtask bench`: the numbers of SPECIFICATION.md.

use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host};

/// The rows, as SPECIFICATION.md names them.
pub const NAMES: &[&str] = &[];

/// Measures every row.
///
/// # Errors
/// There is nothing to measure yet.
pub fn run(_host: Host, _consent: Consent) -> Outcome {
    Err(Failure::Refused(
        "this version has no `bench` yet; see CHANGELOG.md".to_owned(),
    ))
}
