//! What an operation works on: the sprite's row as this owner last saw it, and its machine.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use sprite_catalog::{CatalogError, Fence, Sprite};
use sprite_lifecycle::metering::Reading;
use sprite_lifecycle::{Fault, Left};
use sprite_machine::Machine;
use sprite_types::{MachineId, SpriteStatus};
use tokio_util::sync::CancellationToken;

use crate::enforce::Untold;
use crate::fault::FaultPoint;
use crate::line::Life;
use crate::shared::Shared;
use crate::sprite::ForkOf;
use crate::usage::{self, Counters, LastReading};

/// How often a row is read that must be known: six seconds, all in all.
pub(crate) const CERTAIN_ATTEMPTS: u32 = 7;
pub(crate) const CERTAIN_AGAIN: Duration = Duration::from_millis(100);

/// An operation gets a copy, and gives it back changed when it ends; an abandoned operation changes nothing.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shared: Arc<Shared>,
    /// The row. Status, incarnation and machine are as committed; settings may be older.
    pub(crate) sprite: Sprite,
    /// The machine, running, frozen, dead or half removed.
    pub(crate) machine: Option<Arc<dyn Machine>>,
    /// A start that did not end in time, and may still make a machine; cancelled once nothing of it is left.
    pub(crate) unfinished: Option<CancellationToken>,
    /// Whether the machine's agent still has to be told the policies.
    pub(crate) untold: Untold,
    /// Counts the memories that the sprite had: a boot begins another.
    pub(crate) life: Life,
    /// A commit failed, and may have happened or not: the row must be read again before the next.
    pub(crate) stale: bool,
    /// What the machine had used right before it was ended, until that is recorded.
    pub(crate) last_reading: LastReading,
    /// Of what it is a fork, while it is being created.
    pub(crate) from: Option<ForkOf>,
}

/// Why the row could not be changed.
pub(crate) type CommitError = CatalogError;

impl Context {
    pub(crate) fn new(
        shared: Arc<Shared>,
        sprite: Sprite,
        machine: Option<Arc<dyn Machine>>,
    ) -> Self {
        let untold = Untold::default();
        // An earlier process started it.
        untold.set(machine.is_some());
        Self {
            shared,
            sprite,
            machine,
            unfinished: None,
            untold,
            life: 0,
            stale: false,
            last_reading: LastReading::default(),
            from: None,
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.sprite.fence()
    }

    /// What the machine has used, if there is one.
    pub(crate) async fn read_usage(&self) -> Option<Reading> {
        usage::read(self.machine.as_ref()?).await
    }

    /// Keeps what the machine has used for the record of its end. Right before that end.
    pub(crate) async fn keep_usage(&self) {
        if let Some(reading) = self.read_usage().await {
            self.last_reading.keep(reading);
        }
    }

    /// Where the counters of the machine are.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            machine: self.machine.clone(),
            last: self.last_reading.clone(),
        }
    }

    /// Stands beside a step.
    pub(crate) async fn fault(&self, point: FaultPoint) {
        self.shared.fault(point).await;
    }

    /// Whether the row says that a machine may run, though none does: it was announced and never came, or it is
    /// gone and that could not be recorded.
    pub(crate) fn announced(&self) -> Option<MachineId> {
        match self.sprite.status {
            SpriteStatus::Running => self.sprite.machine,
            SpriteStatus::Warm | SpriteStatus::Cold => None,
        }
    }

    /// Reads the row again if it is not certain what it says.
    pub(crate) async fn refresh(&mut self) -> Result<(), CommitError> {
        if !self.stale {
            return Ok(());
        }
        const STEP: &str = "read the row again";
        let sprite = self.sprite.id;
        let row = self.shared.catalog.sprite(sprite).await?;
        let row = row.ok_or(CatalogError::Conflict { step: STEP, sprite })?;
        if row.generation != self.sprite.generation {
            return Err(CatalogError::Conflict { step: STEP, sprite });
        }
        self.sprite = row;
        self.stale = false;
        Ok(())
    }

    /// Reads the row again, and again if that fails: what a commit left that was in doubt must be known before
    /// anything else happens to the sprite, and what keeps a catalog from being read is mostly over soon.
    pub(crate) async fn be_certain(&mut self) -> Result<(), CommitError> {
        let mut pause = CERTAIN_AGAIN;
        for _ in 1..CERTAIN_ATTEMPTS {
            if self.refresh().await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.refresh().await
    }

    fn left_rest(
        &mut self,
        committed: Result<Fence, CatalogError>,
        machine: MachineId,
    ) -> Result<(), CommitError> {
        match committed {
            Ok(fence) => {
                self.sprite.incarnation = fence.incarnation;
                self.sprite.status = SpriteStatus::Running;
                self.sprite.machine = Some(machine);
                self.sprite.last_running_at = Some(self.shared.time());
                self.sprite.failure = None;
                self.shared.ran.notify_one();
                Ok(())
            }
            Err(error) => {
                self.stale = true;
                Err(error)
            }
        }
    }

    /// Commits that the sprite is complete and leaves rest for the first time.
    pub(crate) async fn complete_create(&mut self, machine: MachineId) -> Result<(), CommitError> {
        let (id, fence) = (self.sprite.id, self.fence());
        let committed = self
            .shared
            .catalog
            .complete_create(id, fence, machine, self.shared.time())
            .await;
        self.left_rest(committed, machine)?;
        self.shared.publish(&self.sprite).await;
        Ok(())
    }

    /// Commits that the sprite leaves rest.
    pub(crate) async fn leave_rest(&mut self, machine: MachineId) -> Result<(), CommitError> {
        let (id, fence) = (self.sprite.id, self.fence());
        let committed = self
            .shared
            .catalog
            .leave_rest(id, fence, machine, self.shared.time())
            .await;
        self.left_rest(committed, machine)?;
        self.shared.publish(&self.sprite).await;
        Ok(())
    }

    /// Commits that the sprite has no machine.
    pub(crate) async fn enter_cold(&mut self, failure: Option<&str>) -> Result<(), CommitError> {
        self.refresh().await?;
        let (id, fence) = (self.sprite.id, self.fence());
        let at = self.shared.time();
        let reading = self.last_reading.get();
        let catalog = &self.shared.catalog;
        let committed = catalog.enter_cold(id, fence, failure, at, reading).await;
        self.stale |= committed.is_err();
        committed?;
        self.last_reading.clear();
        self.sprite.status = SpriteStatus::Cold;
        self.sprite.machine = None;
        self.sprite.last_running_at = Some(at);
        self.sprite.failure = failure.map(str::to_owned);
        self.shared.publish(&self.sprite).await;
        Ok(())
    }

    /// Commits that the sprite is asleep with its memory kept.
    pub(crate) async fn enter_warm(&mut self) -> Result<(), CommitError> {
        let (id, fence) = (self.sprite.id, self.fence());
        // It stands still: what is read now is all that it used.
        let reading = self.read_usage().await;
        let at = self.shared.time();
        let catalog = &self.shared.catalog;
        let committed = catalog.enter_warm(id, fence, at, reading).await;
        self.stale |= committed.is_err();
        committed?;
        self.sprite.status = SpriteStatus::Warm;
        self.sprite.last_running_at = Some(at);
        self.sprite.last_warming_at = Some(at);
        self.shared.publish(&self.sprite).await;
        Ok(())
    }

    /// Commits that the sprite is asleep still; tried more than once, because nobody comes back to it.
    pub(crate) async fn be_warm(&mut self) -> Result<(), CommitError> {
        let mut pause = CERTAIN_AGAIN;
        let mut attempt = 1;
        loop {
            let recorded = match self.refresh().await {
                Ok(()) if self.sprite.status == SpriteStatus::Warm => return Ok(()),
                Ok(()) => self.enter_warm().await,
                Err(error) => Err(error),
            };
            if recorded.is_ok() || attempt == CERTAIN_ATTEMPTS {
                return recorded;
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Commits why the sprite's machine can neither be used nor be trusted to be gone.
    pub(crate) async fn record_failure(&mut self, cause: &str) {
        let recorded = match self.refresh().await {
            Ok(()) => {
                self.shared
                    .catalog
                    .record_failure(self.sprite.id, self.fence(), cause)
                    .await
            }
            Err(error) => Err(error),
        };
        match recorded {
            Ok(()) => {
                self.sprite.failure = Some(cause.to_owned());
                self.shared.publish(&self.sprite).await;
            }
            Err(error) => {
                self.stale = true;
                tracing::error!(error = &error as &dyn Error, cause, "record a failure");
            }
        }
    }
}

/// A step that failed, with all that was said about it, outermost first.
pub(crate) fn describe(step: &str, error: &(dyn Error + 'static)) -> String {
    let mut text = format!("{step}: {error}");
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string cannot fail.
        let _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// A fault that leaves things as they were.
pub(crate) fn as_before(step: &str, error: &(dyn Error + 'static)) -> Fault {
    Fault {
        cause: describe(step, error),
        left: Left::AsBefore,
    }
}
