//! Falling asleep: the agent writes the disk, the machine is frozen, the row says warm.
//!
//! The disk is written first, so that it alone holds all that was written when the memory is dropped later. A wake
//! during that only abandons it; the rest takes milliseconds and is waited for.

use sprite_agent_api::message::Request;
use sprite_lifecycle::{Fault, Left};

use crate::agent;
use crate::context::{Context, as_before, describe};
use crate::fault::FaultPoint;

/// Has the agent write the disk.
///
/// # Cancel safety
/// Safe: cancelled, the agent may write on.
pub(crate) async fn sync(ctx: &Context) -> Result<(), Fault> {
    let machine = ctx
        .machine
        .as_ref()
        .expect("a running sprite has a machine");
    let within = ctx.shared.options.sync_within;
    agent::ask(machine, ctx.shared.epoch, &Request::Sync, within)
        .await
        .map_err(|error| as_before("write the disk", &error))?;
    ctx.fault(FaultPoint::SleepSynced).await;
    Ok(())
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
        if let Err(error) = machine.thaw().await {
            fault.cause = format!(
                "{}; then {}",
                fault.cause,
                describe("thaw the machine", &error)
            );
            fault.left = Left::Unknown;
            ctx.record_failure(&fault.cause).await;
        }
        return Err(fault);
    }
    ctx.fault(FaultPoint::SleepCommitted).await;
    Ok(())
}
