//! Checkpoints: states of a sprite's disk that it can go back to. Source: behaviour reference §1.8, §4.2.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;

/// What the entry of a list is called that stands for the sprite as it is now.
pub const CURRENT: &str = "Current";

/// `POST …/checkpoint`. The body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreateCheckpoint {
    /// What it is for, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A checkpoint, or in a list also the sprite as it is now. `GET …/checkpoints` answers a bare array of them, newest
/// first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// `v1`, `v2`, … where somebody asked for it, `auto-1`, … where it was made by itself, or `Current`.
    pub id: String,
    /// Of what time the state is.
    #[schema(value_type = String, format = DateTime)]
    pub create_time: Stamp,
    /// The checkpoint that this state goes back to: the one made or restored last before; empty if there was none.
    #[serde(default)]
    pub source_id: String,
    /// What it is for.
    #[serde(default)]
    pub comment: String,
    /// Whether nobody asked for it.
    #[serde(default)]
    pub is_auto: bool,
    /// Empty while nothing is known to be wrong with it.
    #[serde(default)]
    pub health: String,
    /// The checkpoints that it goes back to, the oldest first.
    #[serde(default)]
    pub history: Vec<String>,
}

/// A line of the streams that creating and restoring answer with. The last is `complete` or `error`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointEvent {
    /// What happened.
    #[serde(flatten)]
    pub kind: CheckpointEventKind,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub time: Stamp,
}

/// What a line of a stream tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckpointEventKind {
    /// How far it is.
    Info {
        /// For a person.
        data: String,
    },
    /// It could not be done.
    Error {
        /// Why not, and what to do.
        error: String,
    },
    /// It is done.
    Complete {
        /// For a person; names the checkpoint.
        data: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.8.
    #[test]
    fn lines_have_the_form_that_clients_read() {
        let time: Stamp = serde_json::from_str("\"2026-01-05T10:30:00Z\"").expect("a time");
        let kind = CheckpointEventKind::Complete {
            data: "Checkpoint v8 created".to_owned(),
        };
        let line = serde_json::to_string(&CheckpointEvent { kind, time }).expect("JSON");
        assert_eq!(
            line,
            r#"{"type":"complete","data":"Checkpoint v8 created","time":"2026-01-05T10:30:00.000000Z"}"#
        );
        let kind = CheckpointEventKind::Error {
            error: "no room".to_owned(),
        };
        let line = serde_json::to_string(&CheckpointEvent { kind, time }).expect("JSON");
        assert_eq!(
            line,
            r#"{"type":"error","error":"no room","time":"2026-01-05T10:30:00.000000Z"}"#
        );
    }
}
