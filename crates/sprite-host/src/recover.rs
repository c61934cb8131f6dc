//! What a start does with what an earlier process left.
//!
//! 1. The driver hands out the machines that still run. Those that the rows announce are kept; others are ended.
//!    The stored policies are put in force around them. The machine of a sprite that sleeps on disk alone is one of
//!    the others: the last run had no time to end it.
//! 2. Rows that announce machines which do not run any more become cold. Those that sleep on disk alone are not even
//!    read.
//! 3. Disks without a row are deleted.
//! 4. What was announced and not finished gets a task that finishes it: sprites with an intent are destroyed,
//!    running machines adopted; frozen ones just kept.
//! 5. Checkpoints that were cut off are removed, and restores that were are gone on with.
//! 6. Sprites with a task of their own that has not expired are woken: they were promised to stay awake. Alarms ring
//!    from now on, first those that were due meanwhile.
//!
//! Every step can be done twice, so a crash in here needs nothing else than the next start.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;

use futures_util::future::try_join_all;
use sprite_catalog::Sprite;
use sprite_lifecycle::{Fault, Memory, State};
use sprite_machine::Machine;
use sprite_types::{DriverKind, SpriteId, SpriteStatus};

use crate::actor;
use crate::alarms;
use crate::called;
use crate::checkpoints;
use crate::context::{Context, describe};
use crate::enforce;
use crate::error::OpenError;
use crate::fault::FaultPoint;
use crate::pressure;
use crate::shared::Shared;
use crate::tasks;
use crate::usage;
use crate::wake::{self, Fresh};

/// Brings machines, rows and disks into agreement, and starts the tasks of sprites that need one.
pub(crate) async fn recover(shared: &Arc<Shared>) -> Result<(), OpenError> {
    let intents = shared.catalog.intents().await?;
    let active = shared.catalog.active_sprites().await?;
    let found = shared.driver.adopt().await.map_err(OpenError::Machines)?;
    let (mut machines, strays) = sort(&active, found);
    end_strays(strays).await?;
    shared.fault(FaultPoint::RecoverStrays).await;

    end_unruly(shared, &active, &mut machines).await?;
    forget_spent(shared).await?;
    let (kept, lost): (Vec<Sprite>, Vec<Sprite>) = active
        .into_iter()
        .partition(|sprite| machines.contains_key(&sprite.id));
    let machine = |sprite: &Sprite| sprite.machine.map(|machine| (sprite.id, machine));
    let lost: Vec<_> = lost.iter().filter_map(machine).collect();
    if !lost.is_empty() {
        tracing::warn!(
            machines = lost.len(),
            "machines did not outlive the last run"
        );
    }
    shared.catalog.forget_machines(&lost, shared.time()).await?;
    shared.fault(FaultPoint::RecoverRows).await;

    delete_orphan_disks(shared).await?;
    shared.fault(FaultPoint::RecoverDisks).await;

    let mut marked = HashSet::new();
    for (id, operation) in intents {
        let Some(sprite) = shared.catalog.sprite(id).await? else {
            continue;
        };
        tracing::info!(sprite = %id, name = %sprite.name, %operation, "finish or undo what was cut off");
        marked.insert(id);
        let ctx = Context::new(shared.clone(), sprite, machines.remove(&id));
        actor::resume(ctx, State::destroying());
    }
    for sprite in kept {
        if marked.contains(&sprite.id) {
            continue;
        }
        let machine = machines.remove(&sprite.id);
        let beginning = match sprite.status {
            SpriteStatus::Running => State::adopting(),
            // It is frozen: warm is recorded after freezing, and thawing is recorded before.
            SpriteStatus::Warm => {
                listen_again(machine.as_deref()).await;
                (State::warm(shared.now(), Memory::Machine), Vec::new())
            }
            SpriteStatus::Cold => continue,
        };
        actor::resume(Context::new(shared.clone(), sprite, machine), beginning);
    }
    checkpoints::sweep(shared).await?;
    tasks::wake_all(shared).await?;
    shared.spawn(alarms::ring(shared.clone()));
    shared.spawn(called::answer(shared.clone()));
    shared.spawn(pressure::relieve(shared.clone()));
    shared.spawn(usage::sample(shared.clone()));
    Ok(())
}

/// Whether the sprite sleeps and its memory is on disk: the row says so, and only after that was durable.
pub(crate) fn sleeps_without_machine(sprite: &Sprite) -> bool {
    match (sprite.driver, sprite.status) {
        (DriverKind::Microvm, SpriteStatus::Warm) => true,
        (DriverKind::Microvm, SpriteStatus::Running | SpriteStatus::Cold)
        | (
            DriverKind::Container,
            SpriteStatus::Warm | SpriteStatus::Running | SpriteStatus::Cold,
        ) => false,
    }
}

type Machines = HashMap<SpriteId, Arc<dyn Machine>>;

/// The machines that rows announce, and the others.
fn sort(active: &[Sprite], found: Vec<Arc<dyn Machine>>) -> (Machines, Vec<Arc<dyn Machine>>) {
    let announced: HashMap<SpriteId, &Sprite> =
        active.iter().map(|sprite| (sprite.id, sprite)).collect();
    let (ours, strays): (Vec<_>, Vec<_>) = found.into_iter().partition(|machine| {
        let identity = machine.identity();
        announced.get(&identity.sprite).is_some_and(|sprite| {
            sprite.machine == Some(identity.machine) && sprite.generation == identity.generation
        })
    });
    (
        ours.into_iter()
            .map(|machine| (machine.identity().sprite, machine))
            .collect(),
        strays,
    )
}

async fn end_strays(strays: Vec<Arc<dyn Machine>>) -> Result<(), OpenError> {
    try_join_all(strays.into_iter().map(async |machine| {
        let identity = machine.identity();
        tracing::warn!(sprite = %identity.sprite, machine = %identity.machine, "end a machine of no sprite");
        let ended = machine.destroy().await;
        ended.map_err(|source| OpenError::Stray { machine: identity.machine, source })
    }))
    .await
    .map(|_| ())
}

/// A machine that stands still is frozen once more, so that what comes for it from outside is told again.
async fn listen_again(machine: Option<&dyn Machine>) {
    if let Some(machine) = machine
        && let Err(error) = machine.freeze().await
    {
        let error: &dyn Error = &error;
        tracing::warn!(
            error,
            "what comes from outside for a frozen machine is not heard"
        );
    }
}

/// Puts the stored policies in force around every machine that goes on: the last run may have ended between storing
/// one and that. A machine for which it fails is ended.
async fn end_unruly(
    shared: &Arc<Shared>,
    active: &[Sprite],
    machines: &mut Machines,
) -> Result<(), OpenError> {
    let each = active.iter().filter_map(|sprite| {
        let machine = machines.get(&sprite.id)?;
        Some(async move {
            let error = enforce::around(shared, sprite, machine).await.err()?;
            let (error, sprite) = (&error as &dyn Error, sprite.id);
            tracing::error!(error, %sprite, "end a machine that has not its sprite's policies");
            Some(sprite)
        })
    });
    let unruly = futures_util::future::join_all(each).await;
    let unruly = unruly.into_iter().flatten();
    let ended = unruly.filter_map(|sprite| machines.remove(&sprite));
    end_strays(ended.collect()).await
}

/// Lets go of what the driver keeps for memories that are not counted on any more.
async fn forget_spent(shared: &Shared) -> Result<(), OpenError> {
    for of in shared.driver.sleepers() {
        let sprite = shared.catalog.sprite(of.sprite).await?;
        let counts = sprite.is_some_and(|sprite| {
            sleeps_without_machine(&sprite) && sprite.machine == Some(of.machine)
        });
        if !counts {
            forget(shared, of.sprite).await;
        }
    }
    Ok(())
}

/// Lets go of what the driver keeps for the sprite's memory. It only takes up room: the next machine that boots, or
/// the next start, tries again.
pub(crate) async fn forget(shared: &Shared, sprite: SpriteId) {
    if let Err(error) = shared.driver.forget(sprite).await {
        let error: &dyn Error = &error;
        tracing::warn!(%sprite, error, "let go of the connections of a sprite");
    }
}

async fn delete_orphan_disks(shared: &Shared) -> Result<(), OpenError> {
    let disks = shared.disks.list().await.map_err(OpenError::Disks)?;
    if disks.is_empty() {
        return Ok(());
    }
    let sprites: HashSet<SpriteId> = shared.catalog.sprite_ids().await?.into_iter().collect();
    for disk in disks.into_iter().filter(|disk| !sprites.contains(disk)) {
        tracing::warn!(sprite = %disk, "delete a disk of no sprite");
        shared.disks.delete(disk).await.map_err(OpenError::Disks)?;
    }
    Ok(())
}

/// Takes over a machine that an earlier process started: lets it run, whatever that process was about to do with
/// it, and sees that its environment stands.
pub(crate) async fn adopt(ctx: &mut Context) -> Result<(), Fault> {
    let machine = ctx
        .machine
        .clone()
        .expect("a sprite is adopted with its machine");
    // It may have been frozen right before the crash, without having been recorded as warm.
    if let Err(error) = machine.thaw().await {
        tracing::debug!(error = &error as &dyn Error, "thaw an adopted machine");
    }
    if let Err(error) = wake::prepare(ctx, &machine, Fresh::No).await {
        let cause = describe("adopt the machine", &error);
        return Err(wake::undo(ctx, cause).await);
    }
    ctx.shared.ran.notify_one();
    ctx.fault(FaultPoint::RecoverAdopted).await;
    tracing::info!("adopted a running machine");
    Ok(())
}
