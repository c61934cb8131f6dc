//! What a sprite has used.

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Call;
use crate::error::Error;
use crate::model::{Status, Timestamp};
use crate::sprite::Sprite;

/// What a sprite has used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Its name.
    pub sprite_name: String,
    /// How it stands.
    #[serde(default)]
    pub status: Status,
    /// Since when it is counted: its creation, unless it is older than the counting.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Seconds with a machine that ran. With those asleep, the time from `since` to `until`.
    pub running_seconds: f64,
    /// Seconds asleep with its memory kept.
    pub warm_seconds: f64,
    /// Seconds asleep with its disk alone.
    pub cold_seconds: f64,
    /// Seconds of CPU time: of two CPUs that are busy for a second, two.
    pub cpu_seconds: f64,
    /// Memory in use times the time it ran with it: of 512 MiB in use for ten seconds, 5.
    pub memory_gib_seconds: f64,
    /// What came to it from the network, in bytes of packets.
    pub network_in_bytes: u64,
    /// What it sent to the network, in bytes of packets.
    pub network_out_bytes: u64,
    /// Its memory in use now, in bytes, if it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// What of its disk it shares with no other: what its end would free, in bytes.
    pub disk_unique_bytes: u64,
    /// Files of its memory on the host's disk, in bytes: what it sleeps with, or began with.
    pub snapshot_bytes: u64,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Sprite {
    /// What the sprite has used until now. This never wakes it.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let usage = sprite.usage().await?;
    /// println!("ran {:.0} s, used {:.0} s of CPU", usage.running_seconds, usage.cpu_seconds);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite, or the server counts nothing.
    pub async fn usage(&self) -> Result<Usage, Error> {
        self.client()
            .json(&Call::new(Method::GET, self.target()?.path("/usage")))
            .await
    }
}
