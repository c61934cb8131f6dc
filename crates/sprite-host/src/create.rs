//! Creating a sprite.
//!
//! 1. The row is inserted with the intent `create`: the name is reserved ([`record`]).
//! 2. The disk is cloned from the base image.
//! 3. One commit removes the intent and announces the first machine ([`complete`]). Acknowledged after this.
//! 4. The machine boots in the background (`wake`).
//!
//! A crash before 3 is undone by the next start, as a destroy whose row has the intent `create`.

use sprite_catalog::{Fence, InsertError, NewSprite as NewRow, Sprite};
use sprite_lifecycle::Fault;
use sprite_types::{Generation, Incarnation, Label, MachineId, OrgId, SpriteId};

use crate::context::{Context, as_before};
use crate::disks::DiskError;
use crate::error::CreateError;
use crate::fault::FaultPoint;
use crate::shared::{self, Shared};
use crate::sprite::{NewSprite, check_environment};

/// Checks what is asked for; nothing is changed by this.
pub(crate) fn check(shared: &Shared, org: &OrgId, new: NewSprite) -> Result<NewRow, CreateError> {
    if new.labels.len() > Label::MOST {
        return Err(CreateError::Labels {
            count: new.labels.len(),
        });
    }
    check_environment(&new.environment)?;
    Ok(NewRow {
        id: SpriteId::random(),
        org: org.clone(),
        name: new.name,
        driver: shared.driver.kind(),
        image: shared.options.image.clone(),
        labels: new.labels,
        url_auth: new.url_auth,
        private_access: new.private_access,
        resources: new.resources.on(shared.options.host_cpus)?,
        environment: new.environment,
        at: shared::now(),
    })
}

/// Reserves the name.
///
/// # Crash safety
/// From here on the next start finds the intent, and undoes what there is.
pub(crate) async fn record(shared: &Shared, new: &NewRow) -> Result<Sprite, CreateError> {
    match shared
        .catalog
        .insert_sprite(new, shared.options.max_sprites)
        .await
    {
        Ok(sprite) => {
            shared.fault(FaultPoint::CreateRecorded).await;
            Ok(sprite)
        }
        Err(InsertError::NameTaken(name)) => Err(CreateError::NameTaken { name }),
        Err(InsertError::TooMany(limit)) => Err(CreateError::TooMany { limit }),
        Err(InsertError::Organisation(org)) => Err(CreateError::Organisation(org)),
        Err(InsertError::Catalog(error)) => {
            // A commit that failed may have happened. If this fails too, the next start undoes it.
            let fence = Fence {
                generation: Generation(1),
                incarnation: Incarnation(0),
            };
            if let Err(error) = shared.catalog.delete_sprite(new.id, fence).await {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "free the name again"
                );
            }
            Err(CreateError::Catalog(error))
        }
    }
}

/// Makes the disk and completes the sprite. What failed is also told in `error`, as the creator sees it.
pub(crate) async fn complete(
    ctx: &mut Context,
    error: &mut Option<CreateError>,
) -> Result<(), Fault> {
    let sprite = &ctx.sprite;
    let made = ctx
        .shared
        .disks
        .create(sprite.id, &sprite.image, sprite.resources.storage_gb)
        .await;
    if let Err(cause) = made {
        let fault = as_before("make the disk", &cause);
        *error = Some(match cause {
            full @ DiskError::Full { .. } => CreateError::NoSpace(full),
            DiskError::TooSmall {
                step: _,
                storage_gb,
                smallest_gb,
            } => CreateError::DiskTooSmall {
                storage_gb,
                smallest_gb,
            },
            other @ DiskError::Step { .. } => CreateError::Disk(other),
        });
        return Err(fault);
    }
    ctx.fault(FaultPoint::CreateDisk).await;
    if let Err(cause) = ctx.complete_create(MachineId::random()).await {
        let fault = as_before("complete the sprite", &cause);
        *error = Some(CreateError::Catalog(cause));
        return Err(fault);
    }
    ctx.fault(FaultPoint::CreateCommitted).await;
    Ok(())
}
