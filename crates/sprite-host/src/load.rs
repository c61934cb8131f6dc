//! Waking a sprite from its snapshot.
//!
//! Load: start from the snapshot (the machine stands still) → announce (commit: running, next incarnation, the
//! machine's id) → run on → environment → awake.
//!
//! The announcement comes after the machine is made and before its first step: until then nothing has changed, so
//! a crash leaves the sprite asleep with its memory; after it the snapshot is never used again, because the disk
//! goes on without it. A machine that a crash leaves between the two stands still, and the next start lets it run.

use std::sync::Arc;

use sprite_lifecycle::{Fault, Left};
use sprite_machine::{Beginning, Identity, Machine, MachineError};
use sprite_types::{MachineId, SpriteStatus};

use crate::context::{Context, as_before, describe};
use crate::enforce::EnforceError;
use crate::fault::FaultPoint;
use crate::wake::{self, Fresh, StartError};

/// How often a load is tried before it is told as failed. The snapshot stays: the next wake tries again.
const ATTEMPTS: u32 = 2;

/// Makes a machine from the snapshot and lets it run on. A snapshot that can never be used is set aside, and a
/// machine booted.
pub(crate) async fn load(ctx: &mut Context) -> Result<(), Fault> {
    wake::check_driver(ctx)?;
    wake::end_unfinished(ctx)
        .await
        .map_err(|error| as_before("load the snapshot", &error))?;
    ctx.refresh()
        .await
        .map_err(|error| as_before("read the row", &error))?;
    let Some(of) = kept(ctx) else {
        // A commit that was in doubt has happened: the row speaks of a machine that never ran.
        return wake::boot(ctx).await;
    };
    let started = {
        let shared = ctx.shared.clone();
        let turn = shared.boots.acquire().await;
        debug_assert!(turn.is_ok(), "nobody closes it");
        start(ctx, of).await
    };
    let machine = match started {
        Ok(machine) => machine,
        // Nothing ran: the memory is as it was, and is loaded again when the start has ended.
        Err(StartError::Late(Fault { cause, left: _ })) => {
            let left = Left::AsBefore;
            return Err(Fault { cause, left });
        }
        Err(StartError::Driver(MachineError::Unfit { reason })) => {
            return boot_without(ctx, &reason).await;
        }
        Err(StartError::Driver(error)) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "load failed");
            return Err(as_before("load the snapshot", &error));
        }
    };
    ctx.fault(FaultPoint::LoadPrepared).await;
    announce(ctx, &machine).await?;
    ctx.machine = Some(machine.clone());
    ctx.fault(FaultPoint::LoadCommitted).await;
    if let Err(error) = machine.thaw().await {
        return Err(wake::undo(ctx, describe("let the machine run on", &error)).await);
    }
    ctx.fault(FaultPoint::Loaded).await;
    if let Err(error) = greet(ctx, &machine).await {
        let cause = describe("reach the agent after the load", &error);
        return Err(wake::undo(ctx, cause).await);
    }
    Ok(())
}

/// Whose memory the snapshot holds.
fn kept(ctx: &Context) -> Option<Identity> {
    match ctx.sprite.status {
        SpriteStatus::Warm => ctx.sprite.machine.map(|machine| Identity {
            sprite: ctx.sprite.id,
            machine,
            incarnation: ctx.sprite.incarnation,
            generation: ctx.sprite.generation,
        }),
        SpriteStatus::Running | SpriteStatus::Cold => None,
    }
}

async fn start(ctx: &mut Context, of: Identity) -> Result<Arc<dyn Machine>, StartError> {
    let mut attempt = 1;
    loop {
        let identity = Identity {
            machine: MachineId::random(),
            incarnation: of.incarnation.next(),
            ..of
        };
        match wake::start(ctx, identity, Beginning::Snapshot { of }).await {
            Err(StartError::Driver(
                error @ (MachineError::Step { .. } | MachineError::Timeout { .. }),
            )) if attempt < ATTEMPTS => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "load failed, and is tried again"
                );
                attempt += 1;
            }
            ended => return ended,
        }
    }
}

/// Commits that the machine runs from now on. If that fails the machine goes, and the sprite sleeps on.
async fn announce(ctx: &mut Context, machine: &Arc<dyn Machine>) -> Result<(), Fault> {
    const STEP: &str = "announce the wake";
    let id = machine.identity().machine;
    let Err(error) = ctx.leave_rest(id).await else {
        return Ok(());
    };
    // It may have happened all the same.
    let known = ctx.be_certain().await;
    if known.is_ok() && ctx.announced() == Some(id) {
        return Ok(());
    }
    let mut fault = as_before(STEP, &error);
    if let Err(error) = &known {
        // Whether the snapshot may be used again is not known: the machine that stands still has the memory too.
        ctx.machine = Some(machine.clone());
        fault.cause = format!("{}; then {}", fault.cause, describe("read the row", error));
        fault.left = Left::Unknown;
        return Err(fault);
    }
    // As long as it is there, nothing can be done with the sprite that does not drop its memory.
    if let Err(error) = wake::end_for_certain(machine).await {
        ctx.machine = Some(machine.clone());
        fault.cause = format!(
            "{}; then {}",
            fault.cause,
            describe("end the machine", &error)
        );
        fault.left = Left::Unknown;
        ctx.record_failure(&fault.cause).await;
    }
    Err(fault)
}

/// For the guest no time has passed; and its environment stands.
async fn greet(ctx: &Context, machine: &Arc<dyn Machine>) -> Result<(), EnforceError> {
    wake::set_clock(ctx, machine).await?;
    wake::prepare(ctx, machine, Fresh::No).await
}

/// The memory is lost, and that is told; the disk is as it was when the sprite fell asleep.
async fn boot_without(ctx: &mut Context, reason: &str) -> Result<(), Fault> {
    tracing::error!(
        reason,
        "the memory of a sprite cannot be used; it is set aside"
    );
    let aside = ctx.shared.disks.set_memory_aside(ctx.sprite.id).await;
    aside.map_err(|error| as_before("set the snapshot aside", &error))?;
    wake::boot(ctx).await?;
    ctx.record_failure(&format!("its memory could not be used: {reason}"))
        .await;
    Ok(())
}
