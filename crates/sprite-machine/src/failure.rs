//! Names the steps that fail.

use crate::MachineError;

/// For `map_err`: names the step. Lower-case verb phrase with ids and paths.
pub(crate) fn step(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> MachineError {
    move |source| MachineError::Step {
        step: step.into(),
        source,
    }
}

/// There is nothing to read any more of a machine that was destroyed.
pub(crate) fn gone() -> MachineError {
    step("read what the machine used")(std::io::ErrorKind::NotFound.into())
}

/// For `map_err` of what the network refused.
pub(crate) fn network(step: &str) -> impl FnOnce(sprite_net::NetError) -> MachineError {
    move |error| MachineError::Step {
        step: step.to_owned(),
        source: std::io::Error::other(error),
    }
}
