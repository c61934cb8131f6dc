//! Whether what runs inside is in use though nothing goes to and fro.
//!
//! The host asks with [`Request::Idle`](crate::message::Request::Idle) before a sprite falls asleep by itself.

use serde::{Deserialize, Serialize};

use crate::message::Failure;

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum IdleReply {
    /// Nothing is: it may sleep.
    Idle,
    /// Something is. Nothing was changed.
    InUse {
        /// For people: what.
        what: String,
    },
    /// It cannot be told; an agent that does not know the question says so with
    /// [`FailureKind::Invalid`](crate::message::FailureKind::Invalid).
    Failed(Failure),
}
