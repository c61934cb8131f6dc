//! Following an organisation's sprites as they change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprite_catalog::Sprite;
use sprite_types::OrgId;
use time::OffsetDateTime;
use tokio::sync::broadcast;

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

/// The changes of one organisation's sprites from a moment on. At most [`Watch::KEPT`] wait for a reader.
#[derive(Debug)]
pub struct Watch {
    events: broadcast::Receiver<WatchEvent>,
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

/// Those who watch, by organisation. An organisation that nobody watches is not in it for long.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    /// `None`: closed.
    channels: Mutex<Channels>,
}

#[derive(Debug, Default)]
struct Channels {
    closed: bool,
    by_org: HashMap<OrgId, broadcast::Sender<WatchEvent>>,
}

impl Watchers {
    fn channels(&self) -> MutexGuard<'_, Channels> {
        // Nothing panics while holding it.
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn watch(&self, org: &OrgId) -> Watch {
        let mut channels = self.channels();
        if channels.closed {
            // Its sender is dropped here: the reader is told that the host has closed.
            let (_, events) = broadcast::channel(1);
            return Watch { events };
        }
        let channel = channels.by_org.entry(org.clone());
        let channel = channel.or_insert_with(|| broadcast::channel(Watch::KEPT).0);
        Watch {
            events: channel.subscribe(),
        }
    }

    /// Whether somebody watches.
    pub(crate) fn any(&self, org: &OrgId) -> bool {
        let mut channels = self.channels();
        match channels
            .by_org
            .get(org)
            .map(broadcast::Sender::receiver_count)
        {
            None => false,
            Some(0) => {
                channels.by_org.remove(org);
                false
            }
            Some(_) => true,
        }
    }

    pub(crate) fn changed(&self, sprite: Sprite) {
        let at = crate::shared::now();
        self.send(
            &sprite.org.clone(),
            WatchEvent::Changed {
                sprite: Arc::new(sprite),
                at,
            },
        );
    }

    pub(crate) fn gone(&self, sprite: Sprite) {
        let at = crate::shared::now();
        self.send(
            &sprite.org.clone(),
            WatchEvent::Gone {
                sprite: Arc::new(sprite),
                at,
            },
        );
    }

    pub(crate) fn missed(&self, org: &OrgId) {
        self.send(org, WatchEvent::Missed);
    }

    fn send(&self, org: &OrgId, event: WatchEvent) {
        if let Some(channel) = self.channels().by_org.get(org) {
            // Fails only if nobody watches any more.
            let _ = channel.send(event);
        }
    }

    /// Ends every watch.
    pub(crate) fn close(&self) {
        let mut channels = self.channels();
        channels.closed = true;
        channels.by_org.clear();
    }
}
