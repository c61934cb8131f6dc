//! A stream that is used more than once.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sprite_agent_api::link::Observe;

use crate::awake::Awake;
use crate::ledger::Ledger;
use crate::line::Connector;

/// Of a stream that is used again and again: between two uses it holds nothing, and what passes on it then is nobody's
/// use of the sprite. Cheap to clone.
#[derive(Clone)]
pub struct Reusable {
    line: Connector,
    gate: Arc<Gate>,
}

impl Reusable {
    pub(crate) fn new(line: Connector, ledger: Arc<Ledger>) -> Self {
        let gate = Gate {
            ledger,
            used: AtomicBool::new(true),
        };
        Self {
            line,
            gate: Arc::new(gate),
        }
    }

    pub(crate) fn observer(&self) -> Arc<dyn Observe> {
        self.gate.clone()
    }

    /// Nobody uses it for now.
    pub fn rest(&self) {
        self.gate.used.store(false, Ordering::SeqCst);
    }

    /// Somebody uses it again, who holds the sprite: what passes from now on counts. `false`: it is of a memory that
    /// the sprite had before, and leads nowhere.
    #[must_use]
    pub fn resume(&self, awake: &Awake) -> bool {
        let same = awake.is_on(&self.line);
        if same {
            self.gate.used.store(true, Ordering::SeqCst);
        }
        same
    }

    /// Returns when the sprite falls asleep or its machine ends.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_asleep(&self) {
        self.line.until_asleep().await;
    }
}

impl fmt::Debug for Reusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reusable")
            .field("used", &self.gate.used)
            .finish_non_exhaustive()
    }
}

/// Tells of traffic while somebody uses the stream.
struct Gate {
    ledger: Arc<Ledger>,
    used: AtomicBool,
}

impl Gate {
    fn is_used(&self) -> bool {
        self.used.load(Ordering::SeqCst)
    }
}

impl Observe for Gate {
    fn sends(&self) {
        if self.is_used() {
            self.ledger.sends();
        }
    }

    // Whatever waits is somebody's; and every beginning has its end.
    fn waits(&self, begins: bool) {
        self.ledger.waits(begins);
    }

    fn received(&self) {
        if self.is_used() {
            self.ledger.received();
        }
    }
}
