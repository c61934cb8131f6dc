//! Ending a machine: in order where it runs and is to stop, hard where it does not or its memory is not wanted.

use std::error::Error;

use sprite_agent_api::message::Request;
use sprite_lifecycle::{Fault, Left, Stop};

use crate::agent;
use crate::context::{Context, describe};
use crate::fault::FaultPoint;
use crate::recover;
use crate::wake;

/// Ends the machine, removes what it had, and records the sprite as cold.
pub(crate) async fn stop(ctx: &mut Context, how: Stop) -> Result<(), Fault> {
    match how {
        Stop::Orderly => {
            shut_down(ctx).await;
            ctx.fault(FaultPoint::StopShutDown).await;
        }
        Stop::Hard => {}
    }
    if let Err(cause) = end_machine(ctx).await {
        tracing::error!(cause, "a machine is left that cannot be removed");
        ctx.record_failure(&cause).await;
        return Err(Fault {
            cause,
            left: Left::Unknown,
        });
    }
    ctx.fault(FaultPoint::StopEnded).await;
    if let Err(error) = ctx.enter_cold(None).await {
        let cause = describe("record the end of the machine", &error);
        return Err(Fault {
            cause,
            left: Left::Unrecorded,
        });
    }
    ctx.fault(FaultPoint::StopCommitted).await;
    forget_memory(ctx).await;
    Ok(())
}

/// The row does not count on it any more, so it only takes up room; the next stop, sleep or destroy deletes what
/// cannot be deleted now.
async fn forget_memory(ctx: &Context) {
    if !ctx.shared.driver.keeps_snapshots() {
        return;
    }
    recover::forget(&ctx.shared, ctx.sprite.id).await;
    if let Err(error) = ctx.shared.disks.forget_memory(ctx.sprite.id).await {
        tracing::warn!(
            error = &error as &dyn Error,
            "delete memory that is not wanted"
        );
    }
}

/// Has the agent end its processes, write the disk and exit. If it does not, the machine is ended hard, which
/// loses no more than a crash of the sprite's own processes would: what they synced is on the disk.
async fn shut_down(ctx: &Context) {
    let Some(machine) = &ctx.machine else { return };
    let within = ctx.shared.options.stop_within;
    if let Err(error) = agent::ask(machine, ctx.shared.epoch, &Request::Shutdown, within).await {
        tracing::warn!(
            error = &error as &dyn Error,
            "shut the machine down in order"
        );
    }
}

/// Ends the machine hard, if there is one. Idempotent.
pub(crate) async fn end_machine(ctx: &mut Context) -> Result<(), String> {
    wake::end_unfinished(ctx)
        .await
        .map_err(|error| describe("end the machine", &error))?;
    if let Some(machine) = ctx.machine.clone() {
        ctx.keep_usage().await;
        machine
            .destroy()
            .await
            .map_err(|error| describe("end the machine", &error))?;
        ctx.machine = None;
    }
    Ok(())
}
