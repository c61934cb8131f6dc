//! Falling asleep: the agent writes the disk; the machine is frozen, or its memory written and the machine ended;
//! the row says warm.
//!
//! The disk is written first, so that it alone holds all that was written when the memory is dropped later. A wake
//! during that only abandons it; the rest takes milliseconds and is waited for.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::message::Request;
use sprite_lifecycle::{Fault, Left, Why};
use sprite_machine::{Machine, MachineError};
use sprite_types::SpriteStatus;

use crate::agent;
use crate::context::{Context, as_before, describe};
use crate::fault::FaultPoint;
use crate::wake;

/// How long after a machine does not answer any more its end may be seen.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

/// Has the agent write the disk.
///
/// # Cancel safety
/// Safe: cancelled, the agent may write on.
pub(crate) async fn sync(ctx: &Context, why: Why) -> Result<(), Fault> {
    let machine = ctx
        .machine
        .as_ref()
        .expect("a running sprite has a machine");
    let within = ctx.shared.options.sync_within;
    match why {
        Why::Idle => idle(ctx, machine).await?,
        Why::Asked => {}
    }
    agent::ask(machine, ctx.shared.epoch, &Request::Sync, within)
        .await
        .map_err(|error| as_before("write the disk", &error))?;
    ctx.fault(FaultPoint::SleepSynced).await;
    Ok(())
}

/// Asks the agent whether anything inside is in use that nobody outside can see.
async fn idle(ctx: &Context, machine: &Arc<dyn Machine>) -> Result<(), Fault> {
    let within = ctx.shared.options.sync_within;
    let used = agent::in_use(machine, ctx.shared.epoch, within)
        .await
        .map_err(|error| as_before("ask whether anything is in use", &error))?;
    match used {
        None => Ok(()),
        Some(cause) => Err(Fault {
            cause,
            left: Left::InUse,
        }),
    }
}

/// Freezes the machine and records that the sprite sleeps.
pub(crate) async fn freeze(ctx: &mut Context) -> Result<(), Fault> {
    let machine = ctx.machine.clone().expect("a running sprite has a machine");
    machine
        .freeze()
        .await
        .map_err(|error| as_before("freeze the machine", &error))?;
    ctx.fault(FaultPoint::SleepFrozen).await;
    let recorded = match ctx.refresh().await {
        Ok(()) => ctx.enter_warm().await,
        Err(error) => Err(error),
    };
    if let Err(error) = recorded {
        let mut fault = as_before("record the sleep", &error);
        match ctx.be_certain().await {
            Ok(()) if ctx.sprite.status == SpriteStatus::Warm => {}
            Ok(()) => return Err(run_on(ctx, fault).await),
            // A machine that runs must not be told as one that sleeps.
            Err(error) => {
                fault.cause = format!("{}; then {}", fault.cause, describe("read the row", &error));
                fault.left = Left::Unknown;
                return Err(fault);
            }
        }
    }
    ctx.fault(FaultPoint::SleepCommitted).await;
    Ok(())
}

/// Writes the machine's memory, records that the sprite sleeps, and ends the machine.
///
/// The machine stands still until the record is durable: what it does afterwards would not be in the snapshot. So it
/// runs on only if it is certain that the row does not count on the snapshot.
pub(crate) async fn snapshot(ctx: &mut Context) -> Result<(), Fault> {
    let machine = ctx.machine.clone().expect("a running sprite has a machine");
    if let Err(error) = machine.snapshot().await {
        return Err(run_on(ctx, as_before("write the memory", &error)).await);
    }
    ctx.fault(FaultPoint::SnapshotWritten).await;
    let recorded = match ctx.refresh().await {
        Ok(()) => ctx.enter_warm().await,
        Err(error) => Err(error),
    };
    if let Err(error) = recorded {
        let mut fault = as_before("record the sleep", &error);
        match ctx.be_certain().await {
            Ok(()) if ctx.sprite.status == SpriteStatus::Warm => {}
            Ok(()) => return Err(run_on(ctx, fault).await),
            Err(error) => {
                fault.cause = format!("{}; then {}", fault.cause, describe("read the row", &error));
                fault.left = Left::Unknown;
                return Err(fault);
            }
        }
    }
    ctx.fault(FaultPoint::SnapshotCommitted).await;
    // As long as it is there, nothing can be done with the sprite that does not drop its memory.
    if let Err(error) = leave_for_certain(&machine).await {
        let cause = describe("end the machine", &error);
        tracing::error!(cause, "a machine is left that cannot be removed");
        ctx.record_failure(&cause).await;
        return Err(Fault {
            cause,
            left: Left::Unknown,
        });
    }
    ctx.machine = None;
    Ok(())
}

/// Ends the machine, whose memory is written. What could not be left with its connections is ended without them.
async fn leave_for_certain(machine: &Arc<dyn Machine>) -> Result<(), MachineError> {
    let Err(error) = machine.leave().await else {
        return Ok(());
    };
    tracing::warn!(
        error = &error as &dyn std::error::Error,
        "a machine could not be left, and is ended"
    );
    wake::end_for_certain(machine).await
}

/// Lets a machine run on that could not be put to sleep.
async fn run_on(ctx: &mut Context, mut fault: Fault) -> Fault {
    let machine = ctx.machine.clone().expect("a running sprite has a machine");
    tracing::warn!(cause = fault.cause, "falling asleep failed");
    if let Err(error) = machine.thaw().await {
        fault.cause = format!(
            "{}; then {}",
            fault.cause,
            describe("let the machine run on", &error)
        );
        // One that ended meanwhile is no mystery: its memory is lost, and its disk boots.
        if tokio::time::timeout(ENDED_WITHIN, machine.exited())
            .await
            .is_ok()
        {
            return wake::undo(ctx, fault.cause).await;
        }
        fault.left = Left::Unknown;
        ctx.record_failure(&fault.cause).await;
    }
    fault
}
