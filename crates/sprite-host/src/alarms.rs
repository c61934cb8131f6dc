//! Alarms: a sprite asks to be awake at a moment, whatever state it is in until then.
//!
//! The catalog holds them. One task of the host waits for the next one of all sprites, so a sprite that sleeps with
//! an alarm costs a row. An alarm is deleted when its sprite was awake behind it; what was due while the host was
//! down rings at its next start.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sprite_catalog::{CatalogError, PutAlarmError};
use sprite_types::SpriteId;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tracing::Instrument;

use crate::error::WakeError;
use crate::host::{self, Host};
use crate::shared::Shared;

/// Most alarms of one sprite.
pub(crate) const MOST: u32 = 64;

/// Sprites that are woken for their alarms at the same time: whoever waits for a sprite of theirs comes first.
const AT_ONCE: usize = 8;

/// Pause before a sprite is tried again that could not be woken.
const AGAIN: Duration = Duration::from_secs(30);

/// Pause before the catalog is asked again that could not be used.
const RETRY: Duration = Duration::from_secs(2);

/// The clock of the host may be set while it is waited for; then an alarm comes at most so late.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// The way to the task that rings.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    changed: Notify,
}

/// Why an alarm was not recorded, listed or deleted. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AlarmError {
    /// Its moment is over.
    #[error("the moment is over")]
    Past,
    /// The sprite has as many alarms as it may.
    #[error("sprite has {limit} alarms, which is its limit")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// There is no alarm of that moment.
    #[error("find the alarm")]
    NotFound,
    /// There is no such sprite (any more).
    #[error("find the sprite")]
    NoSprite,
    /// The catalog could not be used.
    #[error("read or record alarms")]
    Catalog(#[from] CatalogError),
}

impl From<PutAlarmError> for AlarmError {
    fn from(error: PutAlarmError) -> Self {
        match error {
            PutAlarmError::TooMany(limit) => Self::TooMany { limit },
            PutAlarmError::NoSprite => Self::NoSprite,
            PutAlarmError::Catalog(error) => Self::Catalog(error),
        }
    }
}

impl Host {
    /// The moments at which the sprite wants to be awake, the next one first. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn alarms(&self, sprite: SpriteId) -> Result<Vec<OffsetDateTime>, AlarmError> {
        Ok(self.shared().catalog.alarms(sprite).await?)
    }

    /// Has the sprite woken at a moment, to the microsecond, once. Survives a restart of this process; what was due
    /// while none ran is made up for at the next start. Idempotent.
    ///
    /// # Errors
    /// See [`AlarmError`]; nothing was recorded.
    ///
    /// # Cancel safety
    /// Cancelled, the alarm is recorded or not; recorded, it may be a quarter of an hour late.
    pub async fn put_alarm(&self, sprite: SpriteId, at: OffsetDateTime) -> Result<(), AlarmError> {
        let shared = self.shared();
        if at <= shared.time() {
            return Err(AlarmError::Past);
        }
        shared.catalog.put_alarm(sprite, at, MOST).await?;
        shared.alarms.changed.notify_one();
        Ok(())
    }

    /// Deletes the alarm of that moment, or all of the sprite's.
    ///
    /// # Errors
    /// There is none of that moment.
    pub async fn delete_alarms(
        &self,
        sprite: SpriteId,
        at: Option<OffsetDateTime>,
    ) -> Result<(), AlarmError> {
        let deleted = self.shared().catalog.delete_alarms(sprite, at).await?;
        match (at, deleted) {
            (Some(_), 0) => Err(AlarmError::NotFound),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// Wakes every sprite when its time has come, until the host closes.
pub(crate) async fn ring(shared: Arc<Shared>) {
    let mut ringing = FuturesUnordered::new();
    let mut woken = HashSet::new();
    loop {
        let next = match due(&shared, &mut woken).await {
            Ok((sprites, next)) => {
                ringing.extend(sprites.into_iter().map(|sprite| ring_for(&shared, sprite)));
                let until =
                    |at: OffsetDateTime| (at - shared.time()).try_into().unwrap_or_default();
                next.map(|at| LONGEST_WAIT.min(until(at)))
            }
            Err(error) => {
                tell("read the alarms", &error);
                Some(RETRY)
            }
        };
        let look_again = async {
            match next {
                Some(next) => tokio::time::sleep(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.alarms.changed.notified() => {}
            Some(sprite) = ringing.next() => {
                woken.remove(&sprite);
            }
            () = look_again => {}
        }
    }
}

/// Whose time has come, as many as may be woken now, who are then in `woken`; and when to look again.
async fn due(
    shared: &Shared,
    woken: &mut HashSet<SpriteId>,
) -> Result<(Vec<SpriteId>, Option<OffsetDateTime>), CatalogError> {
    let now = shared.time();
    let mut sprites = Vec::new();
    let room = AT_ONCE.saturating_sub(woken.len());
    if room > 0 {
        // Those that are being woken may be among them, and are fewer.
        let most = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
        for sprite in shared.catalog.alarmed_sprites(now, most).await? {
            if sprites.len() < room && woken.insert(sprite) {
                sprites.push(sprite);
            }
        }
    }
    Ok((sprites, shared.catalog.next_alarm(now).await?))
}

/// Wakes a sprite, and deletes its alarms that were due. Gives it back.
async fn ring_for(shared: &Arc<Shared>, sprite: SpriteId) -> SpriteId {
    let span = tracing::info_span!("alarm", %sprite);
    async {
        let rung = shared.time();
        let recorded = match host::awake(shared, sprite).await {
            // It is held until the alarm is gone: asleep again before that, it would be woken for it twice.
            Ok(_awake) => shared.catalog.end_alarms(sprite, rung).await,
            // Its alarms went with it, or it is woken by the next start.
            Err(WakeError::NotFound | WakeError::Closing) => return,
            Err(error) => {
                tell("wake a sprite for its alarm", &error);
                let again = shared.time() + AGAIN;
                shared.catalog.put_alarms_off(sprite, rung, again).await
            }
        };
        if let Err(error) = recorded {
            tell("record that an alarm has rung", &error);
            tokio::time::sleep(RETRY).await;
        }
    }
    .instrument(span)
    .await;
    sprite
}

fn tell(step: &str, error: &(dyn std::error::Error + 'static)) {
    tracing::warn!(error, "{step}");
}
