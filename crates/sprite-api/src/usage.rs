//! What a sprite has used.

use serde::{Deserialize, Serialize};
use sprite_types::SpriteStatus;
use utoipa::ToSchema;

use crate::Stamp;

/// `GET …/usage`. Seconds have microseconds behind the point. Totals never become less, but for what was counted of a
/// machine that was lost with its host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Usage {
    /// Its name.
    pub sprite_name: String,
    /// How it stands.
    #[schema(value_type = String, example = "warm")]
    pub status: SpriteStatus,
    /// Since when it is counted: its creation, unless it is older than the counting.
    #[schema(value_type = String, format = DateTime)]
    pub since: Stamp,
    /// Until when.
    #[schema(value_type = String, format = DateTime)]
    pub until: Stamp,
    /// Seconds with a machine that ran. With `warm_seconds` and `cold_seconds` the time from `since` to `until`.
    pub running_seconds: f64,
    /// Seconds asleep with its memory kept.
    pub warm_seconds: f64,
    /// Seconds asleep with its disk alone.
    pub cold_seconds: f64,
    /// Seconds of CPU time: of two CPUs that are busy for a second, two.
    pub cpu_seconds: f64,
    /// Memory in use times the time it ran with it: of 512 MiB in use for ten seconds, 5.
    pub memory_gib_seconds: f64,
    /// What came to it from the network, in bytes of packets. What passes through this server is not in it.
    pub network_in_bytes: u64,
    /// What it sent to the network, in bytes of packets. What passes through this server is not in it.
    pub network_out_bytes: u64,
    /// Its memory in use now, in bytes, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What of its disk it shares with no other: what its end would free, in bytes.
    pub disk_unique_bytes: u64,
    /// Files of its memory on the host's disk, in bytes: what it sleeps with, or began with.
    pub snapshot_bytes: u64,
}
