//! Creating a sprite.
//!
//! 1. The row is inserted with the intent `create`: the name is reserved ([`record`]).
//! 2. The disk is cloned from the base image, or from the sprite that is forked.
//! 3. One commit removes the intent and announces the first machine ([`complete`]). Acknowledged after this.
//! 4. The machine boots in the background (`wake`).
//!
//! A crash before 3 is undone by the next start, as a destroy whose row has the intent `create`.

use std::time::Duration;

use sprite_catalog::{Fence, InsertError, Maker, NewSprite as NewRow, Sprite};
use sprite_lifecycle::Fault;
use sprite_types::{Generation, Incarnation, Label, MachineId, OrgId, Resources, SpriteId};

use crate::context::{Context, as_before};
use crate::disks::DiskError;
use crate::error::CreateError;
use crate::fault::FaultPoint;
use crate::shared::Shared;
use crate::sprite::{ForkOf, NewSprite, ResourceRequest, check_environment};

/// Most sprites that one sprite may have made and not deleted: enough for a program that shares its work out, little
/// beside what an organisation may have.
const MOST_MADE: u64 = 64;

/// How often a name is freed: six seconds, all in all.
const FREE_ATTEMPTS: u32 = 6;
const FREE_AGAIN: Duration = Duration::from_millis(100);

/// Checks what is asked for; nothing is changed by this.
pub(crate) async fn check(
    shared: &Shared,
    org: &OrgId,
    new: NewSprite,
) -> Result<NewRow, CreateError> {
    if new.labels.len() > Label::MOST {
        return Err(CreateError::Labels {
            count: new.labels.len(),
        });
    }
    let source = source(shared, org, &new).await?;
    let mut environment = source
        .as_ref()
        .map(|source| source.environment.clone())
        .unwrap_or_default();
    environment.extend(new.environment);
    check_environment(&environment)?;
    let default = match &source {
        Some(source) => source.resources,
        None => Resources::default_for(shared.options.host_cpus),
    };
    let (resources, maker) = match new.made_by {
        None => (new.resources.or(default)?, None),
        Some(id) => {
            if new.api_access {
                return Err(CreateError::ApiAccess);
            }
            let maker = shared.catalog.sprite(id).await;
            let maker = maker.map_err(CreateError::Catalog)?;
            let maker = maker.ok_or(CreateError::MayNotMake(id))?;
            let resources = within(new.resources, default, maker.resources)?;
            let most = MOST_MADE;
            (resources, Some(Maker { sprite: id, most }))
        }
    };
    if let Some(source) = &source
        && source.resources.storage_gb != resources.storage_gb
    {
        return Err(CreateError::ForkSize {
            asked: resources.storage_gb,
            of_source: source.resources.storage_gb,
        });
    }
    let image = source.as_ref().map(|source| &source.image);
    Ok(NewRow {
        id: SpriteId::random(),
        org: org.clone(),
        name: new.name,
        driver: shared.driver.kind(),
        image: image.unwrap_or(&shared.options.image).clone(),
        labels: new.labels,
        url_auth: new.url_auth,
        private_access: new.private_access,
        resources,
        environment,
        idleness: new.idleness,
        api_access: new.api_access,
        maker,
        fork_of: source.map(|source| source.id),
        at: shared.time(),
    })
}

/// The sprite that is to be forked, if one is.
async fn source(
    shared: &Shared,
    org: &OrgId,
    new: &NewSprite,
) -> Result<Option<Sprite>, CreateError> {
    let Some(ForkOf { sprite, checkpoint }) = new.from else {
        return Ok(None);
    };
    let found = shared.catalog.sprite(sprite).await;
    let found = found.map_err(CreateError::Catalog)?;
    let source = found.filter(|source| source.org == *org);
    let source = source.ok_or(CreateError::NoSource)?;
    let (theirs, ours) = (source.driver, shared.driver.kind());
    if theirs != ours {
        return Err(CreateError::ForkDriver { theirs, ours });
    }
    if let Some(id) = checkpoint {
        let kept = shared.catalog.checkpoints(sprite).await;
        let kept = kept.map_err(CreateError::Catalog)?.all;
        if !kept.iter().any(|checkpoint| checkpoint.id == id) {
            return Err(CreateError::NoCheckpoint { id });
        }
    }
    Ok(Some(source))
}

/// The sizes of a sprite that another makes: none above that one's.
fn within(
    asked: ResourceRequest,
    default: Resources,
    maker: Resources,
) -> Result<Resources, CreateError> {
    let resources = asked.or(Resources {
        cpus: default.cpus.min(maker.cpus),
        memory_mib: default.memory_mib.min(maker.memory_mib),
        storage_gb: default.storage_gb.min(maker.storage_gb),
        pids: default.pids.min(maker.pids),
    })?;
    let sizes = [
        ("cpus", resources.cpus, maker.cpus),
        ("ram_mb", resources.memory_mib, maker.memory_mib),
        ("storage_gb", resources.storage_gb, maker.storage_gb),
    ];
    match sizes.into_iter().find(|(_, asked, most)| asked > most) {
        Some((size, asked, most)) => Err(CreateError::LargerThanMaker { size, asked, most }),
        None => Ok(resources),
    }
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
        Err(InsertError::MadeTooMany(limit)) => Err(CreateError::MadeTooMany { limit }),
        Err(InsertError::MayNotMake(maker)) => Err(CreateError::MayNotMake(maker)),
        Err(InsertError::Organisation(org)) => Err(CreateError::Organisation(org)),
        Err(InsertError::Catalog(error)) => {
            free(shared, new.id).await;
            Err(CreateError::Catalog(error))
        }
    }
}

/// Takes back a reservation that may have been made all the same. Tried more than once: nobody may take what stands
/// there for a sprite. What is left then is undone by the next start.
async fn free(shared: &Shared, sprite: SpriteId) {
    let fence = Fence {
        generation: Generation(1),
        incarnation: Incarnation(0),
    };
    let mut pause = FREE_AGAIN;
    for _ in 0..FREE_ATTEMPTS {
        match shared.catalog.delete_sprite(sprite, fence).await {
            Ok(()) => return,
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "free the name again"
            ),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

/// Makes the disk and completes the sprite. What failed is also told in `error`, as the creator sees it.
pub(crate) async fn complete(
    ctx: &mut Context,
    error: &mut Option<CreateError>,
) -> Result<(), Fault> {
    let (sprite, disks) = (&ctx.sprite, &ctx.shared.disks);
    let made = match ctx.from {
        Some(from) => disks.fork(sprite.id, from.sprite, from.checkpoint).await,
        None => {
            let storage_gb = sprite.resources.storage_gb;
            disks.create(sprite.id, &sprite.image, storage_gb).await
        }
    };
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
