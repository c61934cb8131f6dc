//! Destroying a sprite: announced durably, then machine, disk, row, each until it is done.
//!
//! The row goes last: as long as anything of the sprite is left, the intent tells the next start to go on. A sprite
//! whose creation failed or was cut off goes the same way, with its intent `create` in place of `destroy`.

use sprite_catalog::Operation;
use sprite_lifecycle::{DestroyStep, Fault, Left};

use crate::context::{CERTAIN_AGAIN, CERTAIN_ATTEMPTS, Context, as_before};
use crate::fault::FaultPoint;
use crate::recover;
use crate::stop::end_machine;

/// Announces the end.
pub(crate) async fn mark(ctx: &mut Context) -> Result<(), Fault> {
    let (catalog, sprite) = (&ctx.shared.catalog, ctx.sprite.id);
    let marked = catalog.mark_destroyed(sprite, ctx.fence(), ctx.shared.time());
    if let Err(error) = marked.await
        && !announced(ctx).await
    {
        return Err(as_before("announce the end", &error));
    }
    ctx.fault(FaultPoint::DestroyMarked).await;
    Ok(())
}

/// Whether the end was announced though that seemed to fail: the next start would carry it out, whatever the sprite is
/// used for until then.
async fn announced(ctx: &Context) -> bool {
    let mut pause = CERTAIN_AGAIN;
    for _ in 0..CERTAIN_ATTEMPTS {
        if let Ok(intents) = ctx.shared.catalog.intents().await {
            return intents.contains(&(ctx.sprite.id, Operation::Destroy));
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    false
}

/// Does one step. Idempotent.
pub(crate) async fn step(ctx: &mut Context, step: DestroyStep) -> Result<(), Fault> {
    match step {
        DestroyStep::Machine => {
            end_machine(ctx).await.map_err(|cause| Fault {
                cause,
                left: Left::AsBefore,
            })?;
            recover::forget(&ctx.shared, ctx.sprite.id).await;
            ctx.fault(FaultPoint::DestroyMachine).await;
        }
        DestroyStep::Disk => {
            let deleted = ctx.shared.disks.delete(ctx.sprite.id).await;
            deleted.map_err(|error| as_before("delete the disk", &error))?;
            ctx.fault(FaultPoint::DestroyDisk).await;
        }
        DestroyStep::Row => {
            let deleted = ctx
                .shared
                .catalog
                .delete_sprite(ctx.sprite.id, ctx.fence())
                .await;
            deleted.map_err(|error| as_before("delete the row", &error))?;
            ctx.fault(FaultPoint::DestroyRow).await;
            ctx.shared.watchers.gone(ctx.sprite.clone());
        }
    }
    Ok(())
}
