//! Sprites that sleep in their machines give their memory up when the host is short of it.
//!
//! Those that have slept for the longest go first, some each time that it is told, which the kernel does every two
//! seconds while it goes on. A sprite that runs is never touched, and neither is memory that is on the disk.

use std::sync::Arc;
use std::time::Duration;

use crate::registry::Message;
use crate::shared::Shared;

/// Sprites that become cold each time it is told.
const AT_ONCE: u32 = 8;

/// Pause before the catalog is asked again that could not be used.
const AGAIN: Duration = Duration::from_secs(1);

/// Has sprites give their memory up whenever the driver tells that it is short, until the host closes.
pub(crate) async fn relieve(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            biased;
            () = shared.closing.cancelled() => return,
            () = shared.driver.pressed() => {}
        }
        match shared
            .catalog
            .longest_warm(shared.driver.kind(), AT_ONCE)
            .await
        {
            Ok(sprites) => {
                for sprite in sprites {
                    // Whoever has no task has no machine; one that is busy is told again.
                    if let Ok(true) = shared.registry.send_if_active(sprite, Message::Pressed) {
                        tracing::info!(%sprite, "memory is short: a sprite that sleeps is to become cold");
                    }
                }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "look for sprites that sleep"
                );
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
