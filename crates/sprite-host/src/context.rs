//! What an operation works on: the sprite's row as this owner last saw it, and its machine.

use std::error::Error;
use std::fmt::Write;
use std::sync::Arc;

use sprite_catalog::{CatalogError, Fence, Sprite};
use sprite_lifecycle::{Fault, Left};
use sprite_machine::Machine;
use sprite_types::{MachineId, SpriteStatus};
use tokio_util::sync::CancellationToken;

use crate::enforce::Untold;
use crate::fault::FaultPoint;
use crate::shared::{self, Shared};

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
    /// A commit failed, and may have happened or not: the row must be read again before the next.
    pub(crate) stale: bool,
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
            stale: false,
        }
    }

    pub(crate) fn fence(&self) -> Fence {
        self.sprite.fence()
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
                self.sprite.last_running_at = Some(shared::now());
                self.sprite.failure = None;
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
            .complete_create(id, fence, machine, shared::now())
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
            .leave_rest(id, fence, machine, shared::now())
            .await;
        self.left_rest(committed, machine)?;
        self.shared.publish(&self.sprite).await;
        Ok(())
    }

    /// Commits that the sprite has no machine.
    pub(crate) async fn enter_cold(&mut self, failure: Option<&str>) -> Result<(), CommitError> {
        self.refresh().await?;
        let (id, fence) = (self.sprite.id, self.fence());
        let at = shared::now();
        let committed = self.shared.catalog.enter_cold(id, fence, failure, at).await;
        self.stale |= committed.is_err();
        committed?;
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
        let at = shared::now();
        let committed = self.shared.catalog.enter_warm(id, fence, at).await;
        self.stale |= committed.is_err();
        committed?;
        self.sprite.status = SpriteStatus::Warm;
        self.sprite.last_running_at = Some(at);
        self.sprite.last_warming_at = Some(at);
        self.shared.publish(&self.sprite).await;
        Ok(())
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
