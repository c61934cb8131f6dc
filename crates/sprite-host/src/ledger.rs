//! What a sprite's task is told without a message: holds that began and ended, and bytes that went over connections.
//!
//! A hold is let go in `Drop`, which can neither wait nor fail, and bytes pass by the thousand: so both are written
//! down here, and the task is woken only for what it has to know at once.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use sprite_agent_api::link::Observe;
use sprite_lifecycle::{Event, Hold, Holds, Moment, Traffic};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Counts by kind, in the order of [`KINDS`].
#[derive(Debug, Default)]
struct Counts([AtomicU32; KINDS.len()]);

const KINDS: [Hold; 4] = [Hold::Call, Hold::Session, Hold::Connection, Hold::Presence];

impl Counts {
    fn add(&self, hold: Hold) {
        for (kind, count) in KINDS.iter().zip(&self.0) {
            if *kind == hold {
                count.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    fn take(&self) -> Holds {
        KINDS
            .iter()
            .zip(&self.0)
            .map(|(kind, count)| Holds::of(*kind, count.swap(0, Ordering::AcqRel)))
            .fold(Holds::default(), Holds::and)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    began: Instant,
    added: Counts,
    released: Counts,
    /// When bytes last went over a connection, in microseconds since `began`; 0: never.
    traffic: AtomicU64,
    /// The last of them went to the sprite.
    unanswered: AtomicBool,
    /// What of that the task knows.
    known: AtomicU64,
    /// Frames that wait for room.
    waiting: AtomicU32,
    /// The sprite does not simply run: the task wants to know of every byte.
    attentive: AtomicBool,
    /// Somebody sent bytes while it was.
    stirred: AtomicBool,
    changed: Notify,
}

impl Ledger {
    /// `began` is the moment 0 of the lifecycle.
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            added: Counts::default(),
            released: Counts::default(),
            traffic: AtomicU64::new(0),
            unanswered: AtomicBool::new(false),
            known: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            attentive: AtomicBool::new(false),
            stirred: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }

    /// One hold of that kind is let go.
    pub(crate) fn release(&self, hold: Hold) {
        self.released.add(hold);
        self.changed.notify_one();
    }

    /// One hold of a kind has become one of another.
    pub(crate) fn turn(&self, from: Hold, into: Hold) {
        // In this order: whoever takes them between the two sees one too many, never one too few.
        self.added.add(into);
        self.release(from);
    }

    /// From now on the sprite simply runs, or it does not, and every byte is told.
    pub(crate) fn attend(&self, closely: bool) {
        if self.attentive.swap(closely, Ordering::SeqCst) == closely {
            return;
        }
        if closely {
            // What passed just before is looked at as well; and what waits for room waits for the sprite.
            if self.waiting.load(Ordering::SeqCst) > 0 {
                self.stirred.store(true, Ordering::SeqCst);
            }
            self.changed.notify_one();
        }
    }

    /// When bytes last passed, if that is news.
    pub(crate) fn traffic(&self) -> Option<Traffic> {
        let last = self.traffic.load(Ordering::SeqCst);
        (self.known.swap(last, Ordering::SeqCst) != last).then(|| Traffic {
            at: Moment(Duration::from_micros(last)),
            unanswered: self.unanswered.load(Ordering::SeqCst),
        })
    }

    /// What the lifecycle is to know next.
    ///
    /// # Cancel safety
    /// Safe: cancelled, nothing was taken.
    pub(crate) async fn told(&self) -> Event {
        loop {
            let released = self.released.take();
            let added = self.added.take();
            if !added.is_empty() || !released.is_empty() {
                return Event::Held { added, released };
            }
            if self.stirred.swap(false, Ordering::SeqCst) {
                return Event::Stirred;
            }
            if self.attentive.load(Ordering::SeqCst)
                && let Some(traffic) = self.traffic()
            {
                return Event::Traffic(traffic);
            }
            self.changed.notified().await;
        }
    }

    fn passed(&self, unanswered: bool) {
        self.unanswered.store(unanswered, Ordering::SeqCst);
        let micros = self.began.elapsed().as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.traffic.fetch_max(micros, Ordering::SeqCst);
    }
}

impl Observe for Ledger {
    fn sends(&self) {
        self.passed(true);
        if self.attentive.load(Ordering::SeqCst) {
            self.stirred.store(true, Ordering::SeqCst);
            self.changed.notify_one();
        }
    }

    fn waits(&self, begins: bool) {
        if begins {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        } else {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn received(&self) {
        self.passed(false);
        if self.attentive.load(Ordering::SeqCst) {
            self.changed.notify_one();
        }
    }
}
