//! Notices when a sprite falls asleep: what only watches it does not keep it awake, and goes then.
//! Source: behaviour reference §11.12.

use sprite_host::{Host, Sprite, Watch, WatchEvent};
use sprite_types::{SpriteId, SpriteStatus};

/// Notices when the sprite, having run, runs no more.
pub(crate) struct Sleep {
    sprite: SpriteId,
    watch: Watch,
    /// As it was last seen. A sprite that sleeps already, or is only just waking, does not fall asleep.
    status: SpriteStatus,
}

impl Sleep {
    /// Watches a sprite from how it was seen.
    pub(crate) fn of(host: &Host, sprite: &Sprite) -> Self {
        Self {
            sprite: sprite.id,
            watch: host.watch(&sprite.org),
            status: sprite.status,
        }
    }

    /// Returns when the sprite falls asleep or is gone.
    ///
    /// # Cancel safety
    /// Safe: what was seen is remembered.
    pub(crate) async fn fallen(&mut self) {
        loop {
            match self.watch.next().await {
                Some(WatchEvent::Changed { sprite, .. }) if sprite.id == self.sprite => {
                    let before = std::mem::replace(&mut self.status, sprite.status);
                    match (before, sprite.status) {
                        (SpriteStatus::Running, SpriteStatus::Warm | SpriteStatus::Cold) => return,
                        (_, SpriteStatus::Running)
                        | (
                            SpriteStatus::Warm | SpriteStatus::Cold,
                            SpriteStatus::Warm | SpriteStatus::Cold,
                        ) => {}
                    }
                }
                Some(WatchEvent::Gone { sprite, .. }) if sprite.id == self.sprite => return,
                Some(WatchEvent::Changed { .. } | WatchEvent::Gone { .. } | WatchEvent::Missed) => {
                }
                // The host closes; the server's own stop follows.
                None => std::future::pending().await,
            }
        }
    }
}
