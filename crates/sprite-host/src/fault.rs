//! Named points beside every step, at which a test can stop the host as `kill -9` would.
//!
//! Without a test's hook a point is one comparison with null.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use sprite_catalog::CatalogError;
use sprite_types::SpriteId;
use time::OffsetDateTime;

/// A place between two steps of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultPoint {
    /// Create: the name is reserved, nothing else exists.
    CreateRecorded,
    /// Create: the disk exists, the sprite is still marked as incomplete.
    CreateDisk,
    /// Create: complete, its first machine announced, not acknowledged.
    CreateCommitted,
    /// Wake: the machine is announced, and does not exist.
    WakeCommitted,
    /// Wake: the machine runs, its environment does not.
    WakeStarted,
    /// Wake: the environment stands, nobody knows.
    WakeReady,
    /// Wake: thawing is announced.
    ThawCommitted,
    /// Wake: thawed, nobody knows.
    Thawed,
    /// Sleep: the disk is written.
    SleepSynced,
    /// Sleep: frozen, and not recorded.
    SleepFrozen,
    /// Sleep: recorded.
    SleepCommitted,
    /// Sleep: the memory is written, and not recorded.
    SnapshotWritten,
    /// Sleep: recorded, and the machine is still there.
    SnapshotCommitted,
    /// Wake: a machine was made from the snapshot and stands still; nothing is announced.
    LoadPrepared,
    /// Wake: announced, the machine stands still.
    LoadCommitted,
    /// Wake: the machine runs on, nobody knows.
    Loaded,
    /// Stop: the agent wrote its disk and ended.
    StopShutDown,
    /// Stop: the machine is gone, and recorded as there.
    StopEnded,
    /// Stop: recorded.
    StopCommitted,
    /// Destroy: announced.
    DestroyMarked,
    /// Destroy: the machine is gone.
    DestroyMachine,
    /// Destroy: the disk is deleted.
    DestroyDisk,
    /// Destroy: the row is deleted, nobody knows.
    DestroyRow,
    /// Policy: stored, and not in force.
    PolicyStored,
    /// Policy: in force, nobody knows.
    PolicyEnforced,
    /// Services: stored, and the agent does not know.
    ServiceStored,
    /// Checkpoint: its number is given, nothing else exists.
    CheckpointAnnounced,
    /// Checkpoint: the disk is cloned, and nothing counts on that.
    CheckpointCloned,
    /// Checkpoint: recorded, nobody knows.
    CheckpointCommitted,
    /// Checkpoint: it goes, its file is still there.
    CheckpointDropped,
    /// Restore: announced, nothing is changed.
    RestoreAnnounced,
    /// Restore: the disk as it is is kept.
    RestoreKept,
    /// Restore: the disk has the checkpoint's state, and that is not recorded.
    RestoreSwapped,
    /// Restore: recorded, no machine runs yet.
    RestoreCommitted,
    /// Recovery: rows of machines that are gone were set to cold.
    RecoverRows,
    /// Recovery: machines that belong to no sprite are ended.
    RecoverStrays,
    /// Recovery: disks that belong to no sprite are deleted.
    RecoverDisks,
    /// Recovery: an adopted machine is thawed and its environment stands.
    RecoverAdopted,
}

type Hook = Arc<dyn Fn(FaultPoint) -> bool + Send + Sync>;

/// What a host stands on while it is simulated: chance and time, in place of a disk and a clock.
#[async_trait]
pub trait Stage: fmt::Debug + Send + Sync {
    /// Waits as long as a step of the catalog waits for its turn. An error: nothing was done.
    async fn before(
        &self,
        step: &'static str,
        sprite: Option<SpriteId>,
    ) -> Result<(), CatalogError>;

    /// Drives a step of the catalog to its end, whatever threads that takes; no time passes meanwhile.
    fn drive(&self, work: Pin<&mut (dyn Future<Output = ()> + Send)>);

    /// Waits until the step's end is known. An error: it was done all the same.
    async fn after(&self, step: &'static str, sprite: Option<SpriteId>)
    -> Result<(), CatalogError>;

    /// The time of day.
    fn time(&self) -> OffsetDateTime;
}

/// Decides at every [`FaultPoint`] whether the host goes on. The default always does.
#[derive(Clone, Default)]
pub struct Faults {
    hook: Option<Hook>,
    stage: Option<Arc<dyn Stage>>,
}

impl Faults {
    /// Asks `stop_at` at every point. Where it says true, the step never goes on, as if the process had been
    /// killed there; what the test does next is drop the host.
    #[must_use]
    pub fn asking(stop_at: impl Fn(FaultPoint) -> bool + Send + Sync + 'static) -> Self {
        Self {
            hook: Some(Arc::new(stop_at)),
            stage: None,
        }
    }

    /// On a stage. It goes on at every point.
    #[must_use]
    pub fn on(stage: Arc<dyn Stage>) -> Self {
        Self {
            hook: None,
            stage: Some(stage),
        }
    }

    pub(crate) fn stage(&self) -> Option<Arc<dyn Stage>> {
        self.stage.clone()
    }

    /// The time of day, as the catalog keeps it: in whole microseconds.
    pub(crate) fn time(&self) -> OffsetDateTime {
        match &self.stage {
            Some(stage) => stage.time(),
            None => crate::shared::now(),
        }
    }

    /// Stands beside a step.
    pub(crate) async fn at(&self, point: FaultPoint) {
        if let Some(stop_at) = &self.hook
            && stop_at(point)
        {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.hook.is_some() {
            "Faults(asking)"
        } else {
            "Faults"
        })
    }
}
