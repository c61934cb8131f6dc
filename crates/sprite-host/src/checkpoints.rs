//! Checkpoints: states of a sprite's disk that it can go back to.
//!
//! # Making one
//! Announce (commit) → the agent of a machine that runs writes out what it has in memory → clone the disk → record
//! (commit). Nothing is stopped: the clone is atomic, so it is an exact prefix of what was written. A sprite that
//! sleeps wrote its disk when it fell asleep, and sleeps on.
//!
//! # Going back to one
//! Announce (commit) → restart the sprite. Its boot, before any machine exists, keeps the disk as it is as an automatic
//! checkpoint, puts the clone of the other in its place and records that ([`carry_out`]). A process killed in between
//! leaves the announcement, and the next start restarts the sprite.
//!
//! What was announced and not recorded is removed by the next start ([`sweep`]).

use std::sync::Arc;

use sprite_agent_api::message::Request;
use sprite_catalog::{
    BeginCheckpointError, BeginRestoreError, CatalogError, Checkpoint, Checkpoints, Restore,
};
use sprite_lifecycle::Fault;
use sprite_types::{CheckpointId, SpriteId};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::actor;
use crate::agent;
use crate::awake::Awake;
use crate::check;
use crate::context::{Context, as_before, describe};
use crate::error::{CheckpointError, DeleteCheckpointError, LookupError, OpenError, RestoreError};
use crate::fault::FaultPoint;
use crate::host;
use crate::registry::{Look, Message, Undelivered};
use crate::shared::Shared;

/// Most checkpoints of one sprite that somebody asked for: room for one an hour over ten days. They take of the pool
/// what has changed since.
pub const MOST_CHECKPOINTS: u32 = 256;

/// Automatic ones that are kept of a sprite, the newest.
const MOST_AUTOMATIC: usize = 5;

/// The longest comment, in bytes.
pub const LONGEST_COMMENT: usize = 1024;

/// Makes a checkpoint. Goes on if the caller does not wait.
pub(crate) async fn create(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    comment: String,
) -> Result<Checkpoint, CheckpointError> {
    if comment.len() > LONGEST_COMMENT {
        return Err(CheckpointError::Comment {
            bytes: comment.len(),
        });
    }
    let (tell, told) = oneshot::channel();
    let owner = shared.clone();
    let work = async move {
        // Whoever does not wait any more needs no answer.
        let _ = tell.send(make(&owner, sprite, &comment).await);
    };
    shared.spawn(work.in_current_span());
    told.await.unwrap_or(Err(CheckpointError::Closing))
}

async fn make(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    comment: &str,
) -> Result<Checkpoint, CheckpointError> {
    let (catalog, at) = (&shared.catalog, shared.time());
    let begun = catalog.begin_checkpoint(sprite, comment, at, MOST_CHECKPOINTS);
    let id = begun.await.map_err(|error| match error {
        BeginCheckpointError::NoSprite => CheckpointError::NotFound,
        BeginCheckpointError::TooMany(limit) => CheckpointError::TooMany { limit },
        BeginCheckpointError::Catalog(error) => CheckpointError::Catalog(error),
    })?;
    shared.fault(FaultPoint::CheckpointAnnounced).await;
    if let Err(error) = clone(shared, sprite, id).await {
        discard(shared, sprite, id).await;
        return Err(error);
    }
    shared.fault(FaultPoint::CheckpointCloned).await;
    let at = shared.time();
    catalog.keep_checkpoint(sprite, id, at).await?;
    shared.fault(FaultPoint::CheckpointCommitted).await;
    find(shared, sprite, id).await.map_err(|error| match error {
        DeleteCheckpointError::Catalog(error) => CheckpointError::Catalog(error),
        _ => CheckpointError::NotFound,
    })
}

/// Clones the disk with all in it that anybody was told is written.
async fn clone(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    id: CheckpointId,
) -> Result<(), CheckpointError> {
    let _awake = write_out(shared, sprite).await?;
    shared.disks.checkpoint(sprite, id).await?;
    Ok(())
}

/// Has a machine that runs write out what it has in memory; it does not fall asleep while what comes back lives. One
/// that sleeps has done so.
pub(crate) async fn write_out(
    shared: &Arc<Shared>,
    sprite: SpriteId,
) -> Result<Option<Awake>, CheckpointError> {
    let awake = match check::look(shared, sprite).await {
        // It may be in use, or just be falling asleep.
        Some(Look::Awake(_) | Look::Busy) => Some(host::awake(shared, sprite).await?),
        Some(Look::Asleep | Look::Failed(_)) | None => None,
    };
    if awake.is_some()
        && let Some(Look::Awake(machine)) = check::look(shared, sprite).await
    {
        let within = shared.options.sync_within;
        let synced = agent::ask(&machine, shared.epoch, &Request::Sync, within).await;
        synced.map_err(|error| CheckpointError::Failed {
            cause: describe("write the disk", &error),
        })?;
    }
    Ok(awake)
}

/// Removes a checkpoint that is not kept. What cannot be removed now is by the next start.
async fn discard(shared: &Shared, sprite: SpriteId, id: CheckpointId) {
    if let Err(error) = remove(shared, sprite, id).await {
        tracing::warn!(%sprite, %id, error, "remove a checkpoint");
    }
}

async fn remove(shared: &Shared, sprite: SpriteId, id: CheckpointId) -> Result<(), String> {
    let deleted = shared.disks.delete_checkpoint(sprite, id).await;
    deleted.map_err(|error| describe("delete its file", &error))?;
    let forgotten = shared.catalog.forget_checkpoint(sprite, id).await;
    forgotten.map_err(|error| describe("forget it", &error))
}

/// The checkpoints of a sprite.
pub(crate) async fn list(shared: &Shared, sprite: SpriteId) -> Result<Checkpoints, LookupError> {
    Ok(shared.catalog.checkpoints(sprite).await?)
}

async fn find(
    shared: &Shared,
    sprite: SpriteId,
    id: CheckpointId,
) -> Result<Checkpoint, DeleteCheckpointError> {
    let all = shared.catalog.checkpoints(sprite).await?.all;
    let found = all.into_iter().find(|checkpoint| checkpoint.id == id);
    found.ok_or(DeleteCheckpointError::NotFound { id })
}

/// Deletes a checkpoint.
pub(crate) async fn delete(
    shared: &Shared,
    sprite: SpriteId,
    id: CheckpointId,
) -> Result<(), DeleteCheckpointError> {
    shared.catalog.drop_checkpoint(sprite, id).await?;
    shared.fault(FaultPoint::CheckpointDropped).await;
    discard(shared, sprite, id).await;
    Ok(())
}

/// Brings a sprite back to a checkpoint. Goes on if the caller does not wait.
pub(crate) async fn restore(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    to: CheckpointId,
) -> Result<Restoring, RestoreError> {
    let begun = shared.catalog.begin_restore(sprite, to, shared.time());
    let restore = begun.await.map_err(|error| match error {
        BeginRestoreError::NotFound(id) => RestoreError::NotFound { id },
        BeginRestoreError::UnderWay(to) => RestoreError::UnderWay { to },
        BeginRestoreError::Catalog(error) => RestoreError::Catalog(error),
    })?;
    shared.fault(FaultPoint::RestoreAnnounced).await;
    let (reply, restarted) = oneshot::channel();
    match actor::send(shared, sprite, Message::Restart(reply)) {
        Ok(()) => {}
        Err(Undelivered::Busy) => {
            let cause = "too many requests wait for this sprite".to_owned();
            return Err(RestoreError::Later { cause });
        }
        Err(Undelivered::Closing) => return Err(RestoreError::Closing),
    }
    let (tell, told) = oneshot::channel();
    let owner = shared.clone();
    let work = async move {
        let outcome = match restarted.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(unfinished(&owner, sprite, restore, error.to_string()).await),
            Err(_) => Err(RestoreError::Closing),
        };
        thin(&owner, sprite).await;
        // Whoever does not wait any more needs no answer.
        let _ = tell.send(outcome);
    };
    shared.spawn(work.in_current_span());
    Ok(Restoring { told })
}

/// Why a restart did not bring the sprite back: the state is on the disk or not.
async fn unfinished(
    shared: &Shared,
    sprite: SpriteId,
    restore: Restore,
    cause: String,
) -> RestoreError {
    match shared.catalog.restore_under_way(sprite).await {
        Ok(Some(pending)) if pending == restore => RestoreError::Later { cause },
        Ok(_) | Err(_) => RestoreError::Failed { cause },
    }
}

/// A restore that was begun.
#[derive(Debug)]
pub struct Restoring {
    told: oneshot::Receiver<Result<(), RestoreError>>,
}

impl Restoring {
    /// Returns when the sprite runs with the checkpoint's state.
    ///
    /// # Errors
    /// See [`RestoreError`].
    ///
    /// # Cancel safety
    /// Cancelled, the restore goes on.
    pub async fn done(self) -> Result<(), RestoreError> {
        self.told.await.unwrap_or(Err(RestoreError::Closing))
    }
}

/// Carries out a restore that was announced, if there is one. No machine of the sprite exists.
pub(crate) async fn carry_out(ctx: &Context) -> Result<(), Fault> {
    let (shared, sprite) = (&ctx.shared, ctx.sprite.id);
    let pending = shared.catalog.restore_under_way(sprite).await;
    let pending = pending.map_err(|error| as_before("look for a restore", &error))?;
    let Some(restore) = pending else {
        return Ok(());
    };
    let disks = &shared.disks;
    if let Err(error) = disks.checkpoint(sprite, restore.kept).await {
        take_back(ctx, restore, Left::Nothing).await;
        return Err(as_before("keep the disk as it is", &error));
    }
    ctx.fault(FaultPoint::RestoreKept).await;
    if let Err(error) = disks.restore(sprite, restore.to).await {
        // Whichever state the disk has: what it had is kept, and the sprite is not kept from running.
        take_back(ctx, restore, Left::Kept).await;
        return Err(as_before("put the checkpoint on the disk", &error));
    }
    ctx.fault(FaultPoint::RestoreSwapped).await;
    let finished = shared
        .catalog
        .finish_restore(sprite, restore, shared.time());
    // What has happened all the same is no announcement for the next boot.
    finished
        .await
        .map_err(|error| as_before("record the restore", &error))?;
    ctx.fault(FaultPoint::RestoreCommitted).await;
    tracing::info!(to = %restore.to, kept = %restore.kept, "restored");
    Ok(())
}

/// What a restore that could not be carried out leaves.
#[derive(Clone, Copy)]
enum Left {
    /// The disk as it was, alone.
    Nothing,
    /// The state that it had, as a checkpoint.
    Kept,
}

/// Takes a restore back that could not be carried out; if that fails too, the next boot tries it again.
async fn take_back(ctx: &Context, restore: Restore, left: Left) {
    let (catalog, sprite) = (&ctx.shared.catalog, ctx.sprite.id);
    let taken_back = match left {
        Left::Nothing => catalog.abandon_restore(sprite, restore).await,
        Left::Kept => {
            let at = ctx.shared.time();
            catalog.keep_of_restore(sprite, restore, at).await
        }
    };
    if let Err(error) = taken_back {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "take a restore back");
    }
}

/// Deletes the oldest automatic checkpoints.
async fn thin(shared: &Shared, sprite: SpriteId) {
    let Ok(Checkpoints { all, source }) = shared.catalog.checkpoints(sprite).await else {
        // The next restore does it.
        return;
    };
    let automatic = all.iter().filter(|it| it.id.is_automatic());
    let old = automatic
        .skip(MOST_AUTOMATIC)
        .filter(|it| Some(it.id) != source);
    for checkpoint in old {
        if let Err(error) = delete(shared, sprite, checkpoint.id).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(%sprite, error, "delete an old automatic checkpoint");
        }
    }
}

/// Removes what an earlier run announced and did not finish, and goes on with the restores that it began.
pub(crate) async fn sweep(shared: &Arc<Shared>) -> Result<(), OpenError> {
    for (sprite, id) in shared.catalog.unfinished_checkpoints().await? {
        tracing::info!(%sprite, %id, "remove a checkpoint that was cut off");
        discard(shared, sprite, id).await;
    }
    for sprite in shared.catalog.restores().await? {
        tracing::info!(%sprite, "go on with a restore that was cut off");
        let (reply, _not_waited_for) = oneshot::channel();
        // Refused only when the host closes while it opens: then the next start does this.
        let _ = actor::send(shared, sprite, Message::Restart(reply));
    }
    Ok(())
}

impl From<CatalogError> for CheckpointError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::Conflict { .. } => Self::NotFound,
            other => Self::Catalog(other),
        }
    }
}
