//! What sprites use: the counters of their machines, and what the catalog has of them.
//!
//! Counters are read when a sprite falls asleep or its machine ends, for the very commit that records that; when somebody
//! asks; and once a minute for every sprite that runs, in one commit for all. So a host that loses power loses at most a
//! minute of counters, and nothing of the time: that is counted from the durable transitions alone.

use std::error::Error;
use std::fmt::{self, Debug};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprite_catalog::{CatalogError, Sprite};
use sprite_lifecycle::metering::{Fact, Reading, Usage, WallMicros};
use sprite_machine::{Machine, Statistics};
use sprite_types::{SpriteId, SpriteStatus};
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::check::look;
use crate::disks::DiskUsage;
use crate::error::UsageError;
use crate::registry::{Look, Message};
use crate::shared::Shared;

/// Sprites in one commit: others write between two, and none waits for long.
const SAMPLED_AT_ONCE: usize = 256;

/// What a sprite has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpriteUsage {
    /// Since when it is counted: its creation, unless it is older than the counting.
    pub since: OffsetDateTime,
    /// Until when.
    pub until: OffsetDateTime,
    /// How it stands.
    pub status: SpriteStatus,
    /// What it used between the two. The times of its states add up to that time exactly.
    pub used: Usage,
    /// Its memory in use now, in bytes, if it runs.
    pub memory_bytes: Option<u64>,
    /// What it takes of the pool.
    pub disk: DiskUsage,
}

/// What a sprite has used until now. Wakes nothing and writes nothing.
pub(crate) async fn show(shared: &Arc<Shared>, sprite: &Sprite) -> Result<SpriteUsage, UsageError> {
    let disk = shared.disks.usage(sprite.id).await?;
    let reading = match counters(shared, sprite.id).await {
        Some(counters) => counters.read().await,
        None => None,
    };
    // Read after the counters: what was recorded meanwhile is not counted again, for it is of the same machine.
    let now = shared.time();
    let metered = shared.catalog.usage(sprite.id, now).await?;
    let metered = metered.ok_or(UsageError::NotFound)?;
    // Of a machine that is the sprite's no more all is recorded.
    let reading = reading.filter(|reading| metered.machine == Some(reading.machine));
    let fact = Fact {
        stood: metered.status,
        at: micros(now),
        reading,
    };
    let meter = metered.meter.fold(&fact);
    let running = metered.status == SpriteStatus::Running;
    Ok(SpriteUsage {
        since: moment(meter.since),
        until: moment(meter.until),
        status: metered.status,
        used: meter.usage,
        memory_bytes: reading
            .filter(|_| running)
            .map(|reading| reading.memory_bytes),
        disk,
    })
}

/// What a machine had used right before it was ended, until that is recorded. Clones share it: an operation and whoever
/// looks at the sprite meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct LastReading(Arc<Mutex<Option<Reading>>>);

impl LastReading {
    fn lock(&self) -> MutexGuard<'_, Option<Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, reading: Reading) {
        *self.lock() = Some(reading);
    }

    pub(crate) fn get(&self) -> Option<Reading> {
        *self.lock()
    }

    /// It is recorded.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }
}

/// Where the counters of a sprite's machine are, whatever is done with it.
pub(crate) struct Counters {
    pub(crate) machine: Option<Arc<dyn Machine>>,
    pub(crate) last: LastReading,
}

impl Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counters").field(&self.last).finish()
    }
}

impl Counters {
    /// What they say; `None` if that is recorded already.
    async fn read(&self) -> Option<Reading> {
        let machine = self.machine.as_ref()?;
        match machine.statistics().await {
            Ok(used) => Some(reading(machine, used)),
            // It has just been ended.
            Err(_) => self.last.get(),
        }
    }
}

async fn counters(shared: &Shared, sprite: SpriteId) -> Option<Counters> {
    let (reply, answer) = oneshot::channel();
    let message = Message::Counters(reply);
    match shared.registry.send_if_active(sprite, message) {
        Ok(true) => answer.await.ok(),
        Ok(false) | Err(_) => None,
    }
}

/// What a machine has used. One whose counters cannot be read has used what is known already.
pub(crate) async fn read(machine: &Arc<dyn Machine>) -> Option<Reading> {
    match machine.statistics().await {
        Ok(used) => Some(reading(machine, used)),
        Err(error) => {
            let error = &error as &dyn Error;
            let machine = machine.identity().machine;
            tracing::warn!(error, %machine, "read what a machine used");
            None
        }
    }
}

fn reading(machine: &Arc<dyn Machine>, used: Statistics) -> Reading {
    Reading {
        machine: machine.identity().machine,
        cpu_micros: used.cpu_usec,
        memory_bytes: used.memory_bytes,
        bytes_in: used.bytes_in,
        bytes_out: used.bytes_out,
    }
}

/// Records now and then what those sprites have used that run, until the host closes. While none runs, nothing is done.
pub(crate) async fn sample(shared: Arc<Shared>) {
    let every = shared.options.sample_every;
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.ran.notified() => {}
        }
        loop {
            tokio::select! {
                biased;
                () = shared.closing.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            match sample_once(&shared).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    // They are read again in a while, and when their sprites sleep.
                    let error = &error as &dyn Error;
                    tracing::warn!(error, "record what sprites used");
                }
            }
        }
    }
}

/// Records what those sprites have used that run. How many run, or may do so in a moment.
async fn sample_once(shared: &Shared) -> Result<usize, CatalogError> {
    let mut all = 0;
    for sprites in shared.registry.sprites().chunks(SAMPLED_AT_ONCE) {
        let mut readings = Vec::new();
        for sprite in sprites {
            match look(shared, *sprite).await {
                Some(Look::Awake(machine)) => {
                    all += 1;
                    readings.extend(read(&machine).await.map(|reading| (*sprite, reading)));
                }
                // Perhaps it wakes, and that was told already.
                Some(Look::Busy) => all += 1,
                Some(Look::Asleep | Look::Failed(_)) | None => {}
            }
        }
        let catalog = &shared.catalog;
        catalog.record_usage(&readings, shared.time()).await?;
    }
    Ok(all)
}

fn micros(at: OffsetDateTime) -> WallMicros {
    WallMicros(i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX))
}

fn moment(at: WallMicros) -> OffsetDateTime {
    let nanos = i128::from(at.0) * 1000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
