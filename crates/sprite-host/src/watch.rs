//! Following an organisation's sprites as they change.

use std::sync::Arc;

use time::OffsetDateTime;
use tokio::sync::broadcast;

use crate::sprite::Sprite;

/// What happened.
#[derive(Debug, Clone)]
pub enum WatchEvent {
    /// The sprite is new, or something of it changed.
    Changed {
        /// As it is now.
        sprite: Arc<Sprite>,
        /// When.
        at: OffsetDateTime,
    },
    /// The sprite is gone.
    Gone {
        /// As it was last.
        sprite: Arc<Sprite>,
        /// When.
        at: OffsetDateTime,
    },
    /// The reader was too slow and missed events: it should list again.
    Missed,
}

/// The changes of one organisation's sprites from a moment on. At most [`Watch::KEPT`] are kept for a reader.
#[derive(Debug)]
pub struct Watch {
    pub(crate) events: broadcast::Receiver<WatchEvent>,
}

impl Watch {
    /// Most events that wait for a reader.
    pub const KEPT: usize = 256;

    /// The next event; `None` when the host closes.
    ///
    /// # Cancel safety
    /// Safe: cancelled, no event was taken.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        match self.events.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(WatchEvent::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
