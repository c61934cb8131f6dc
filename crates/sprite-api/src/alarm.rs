//! Alarms: moments at which a sprite wants to be awake.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;
use crate::task::Expire;

/// `POST /v1/wake` inside: one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PutAlarm {
    /// The moment: RFC 3339, in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Stamp>,
    /// How long from now: `10m`, or a number of seconds.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub after: Option<Expire>,
}

/// A moment at which the sprite is woken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// The moment.
    #[schema(value_type = String, format = DateTime)]
    pub at: Stamp,
}

/// `GET /v1/wake` inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AlarmList {
    /// The next one first.
    pub alarms: Vec<Alarm>,
}
