//! Sprites that sleep are woken by what comes from outside, on connections that they opened.
//!
//! The driver tells for whom something came; one task waits for that, so a sprite that sleeps costs nothing here.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sprite_types::SpriteId;

use crate::error::WakeError;
use crate::host;
use crate::shared::Shared;

/// Sprites that are woken at the same time by what comes from outside: requests of people come first.
const AT_ONCE: usize = 8;

/// Pause before a sprite is tried again that could not be woken, and before the driver is asked again that could
/// not tell.
const AGAIN: Duration = Duration::from_secs(5);

/// Wakes sprites for whom something comes, until the host closes. Whoever is told while too many are woken is told
/// again: what is sent to a sprite that does not answer is sent again.
pub(crate) async fn answer(shared: Arc<Shared>) {
    let mut waking = FuturesUnordered::new();
    let mut woken = HashSet::new();
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            Some(sprite) = waking.next() => {
                woken.remove(&sprite);
            }
            called = shared.driver.called(), if waking.len() < AT_ONCE => match called {
                Ok(sprites) => for sprite in sprites {
                    if woken.insert(sprite) {
                        waking.push(wake(&shared, sprite));
                    }
                },
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "hear what comes for sprites that sleep");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

/// Wakes the sprite, whose idle time begins anew then. Gives it back.
async fn wake(shared: &Arc<Shared>, sprite: SpriteId) -> SpriteId {
    match host::awake(shared, sprite).await {
        Ok(awake) => {
            tracing::info!(%sprite, "woken by what came from outside");
            drop(awake);
        }
        Err(WakeError::NotFound | WakeError::Closing) => {}
        Err(error) => {
            tracing::warn!(%sprite, error = &error as &dyn std::error::Error, "wake a sprite for what came from outside");
            tokio::time::sleep(AGAIN).await;
        }
    }
    sprite
}
