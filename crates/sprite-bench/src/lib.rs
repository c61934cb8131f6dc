//! What the measuring program and the guest that it measures both do, so that both do the same.
#![warn(missing_docs)]

pub mod sequential;
pub mod talk;
