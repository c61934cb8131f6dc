//! The catalog as the host uses it: as it is, or step by step on a [`Stage`].

use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;

use sprite_catalog::{
    BeginCheckpointError, BeginRestoreError, Catalog, CatalogError, Checkpoints,
    DropCheckpointError, Fence, IfTaken, InsertError, Metered, NewSprite, Operation, Policy,
    PutAlarmError, PutTaskError, Restore, Scope, ServiceChange, ServiceChangeError, Services,
    Settings, Sprite, Task,
};
use sprite_lifecycle::metering::Reading;
use sprite_types::{
    CheckpointId, DriverKind, MachineId, OrgId, Policies, SpriteId, SpriteName, TaskName,
};
use time::OffsetDateTime;

use crate::fault::Stage;

/// What a host knows. A method that is not named here goes to the catalog by itself, past the stage.
#[derive(Debug, Clone)]
pub(crate) struct Books {
    catalog: Catalog,
    stage: Option<Arc<dyn Stage>>,
}

impl Books {
    pub(crate) fn new(catalog: Catalog, stage: Option<Arc<dyn Stage>>) -> Self {
        Self { catalog, stage }
    }

    async fn turn<T, E>(
        &self,
        step: &'static str,
        sprite: Option<SpriteId>,
        work: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E>
    where
        T: Send,
        E: From<CatalogError> + Send,
    {
        let Some(stage) = &self.stage else {
            return work.await;
        };
        stage.before(step, sprite).await?;
        let mut outcome = None;
        stage.drive(pin!(async { outcome = Some(work.await) }));
        let outcome = outcome.expect("a stage drives to the end");
        stage.after(step, sprite).await?;
        outcome
    }
}

impl Deref for Books {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

macro_rules! on_stage {
    ($($name:ident[$sprite:expr]($($argument:ident: $kind:ty),*) -> $answer:ty, $error:ty;)*) => {
        impl Books { $(
            pub(crate) async fn $name(&self, $($argument: $kind),*) -> Result<$answer, $error> {
                let work = self.catalog.$name($($argument),*);
                self.turn(stringify!($name), $sprite, work).await
            }
        )* }
    };
}

on_stage! {
    abandon_restore[Some(sprite)](sprite: SpriteId, restore: Restore) -> (), CatalogError;
    active_sprites[None]() -> Vec<Sprite>, CatalogError;
    alarmed_sprites[None](now: OffsetDateTime, limit: u32) -> Vec<SpriteId>, CatalogError;
    alarms[Some(sprite)](sprite: SpriteId) -> Vec<OffsetDateTime>, CatalogError;
    begin_checkpoint[Some(sprite)](sprite: SpriteId, comment: &str, at: OffsetDateTime, limit: u32) -> CheckpointId, BeginCheckpointError;
    begin_restore[Some(sprite)](sprite: SpriteId, to: CheckpointId, at: OffsetDateTime) -> Restore, BeginRestoreError;
    change_service[Some(sprite)](sprite: SpriteId, change: &ServiceChange, at: OffsetDateTime) -> Services, ServiceChangeError;
    checkpoints[Some(sprite)](sprite: SpriteId) -> Checkpoints, CatalogError;
    complete_create[Some(sprite)](sprite: SpriteId, fence: Fence, machine: MachineId, at: OffsetDateTime) -> Fence, CatalogError;
    delete_alarms[Some(sprite)](sprite: SpriteId, at: Option<OffsetDateTime>) -> u64, CatalogError;
    delete_sprite[Some(sprite)](sprite: SpriteId, fence: Fence) -> (), CatalogError;
    delete_task[Some(sprite)](sprite: SpriteId, name: &TaskName, now: OffsetDateTime) -> bool, CatalogError;
    drop_checkpoint[Some(sprite)](sprite: SpriteId, id: CheckpointId) -> (), DropCheckpointError;
    end_alarms[Some(sprite)](sprite: SpriteId, now: OffsetDateTime) -> (), CatalogError;
    enter_cold[Some(sprite)](sprite: SpriteId, fence: Fence, failure: Option<&str>, at: OffsetDateTime, reading: Option<Reading>) -> (), CatalogError;
    enter_warm[Some(sprite)](sprite: SpriteId, fence: Fence, at: OffsetDateTime, reading: Option<Reading>) -> (), CatalogError;
    finish_restore[Some(sprite)](sprite: SpriteId, restore: Restore, at: OffsetDateTime) -> (), CatalogError;
    forget_checkpoint[Some(sprite)](sprite: SpriteId, id: CheckpointId) -> (), CatalogError;
    forget_expired_tasks[None](now: OffsetDateTime) -> (), CatalogError;
    forget_machines[None](machines: &[(SpriteId, MachineId)], at: OffsetDateTime) -> (), CatalogError;
    insert_sprite[Some(new.id)](new: &NewSprite, limit: u64) -> Sprite, InsertError;
    intents[None]() -> Vec<(SpriteId, Operation)>, CatalogError;
    keep_checkpoint[Some(sprite)](sprite: SpriteId, id: CheckpointId, at: OffsetDateTime) -> (), CatalogError;
    keep_of_restore[Some(sprite)](sprite: SpriteId, restore: Restore, at: OffsetDateTime) -> (), CatalogError;
    last_task_end[Some(sprite)](sprite: SpriteId) -> Option<OffsetDateTime>, CatalogError;
    leave_rest[Some(sprite)](sprite: SpriteId, fence: Fence, machine: MachineId, at: OffsetDateTime) -> Fence, CatalogError;
    longest_warm[None](driver: DriverKind, limit: u32) -> Vec<SpriteId>, CatalogError;
    mark_destroyed[Some(sprite)](sprite: SpriteId, fence: Fence, at: OffsetDateTime) -> (), CatalogError;
    next_alarm[None](now: OffsetDateTime) -> Option<OffsetDateTime>, CatalogError;
    policies[Some(sprite)](sprite: SpriteId) -> Policies, CatalogError;
    put_alarm[Some(sprite)](sprite: SpriteId, at: OffsetDateTime, limit: u32) -> (), PutAlarmError;
    put_alarms_off[Some(sprite)](sprite: SpriteId, now: OffsetDateTime, until: OffsetDateTime) -> (), CatalogError;
    put_task[Some(sprite)](sprite: SpriteId, task: &Task, if_taken: IfTaken, limit: u32) -> Task, PutTaskError;
    record_failure[Some(sprite)](sprite: SpriteId, fence: Fence, failure: &str) -> (), CatalogError;
    record_usage[None](readings: &[(SpriteId, Reading)], at: OffsetDateTime) -> (), CatalogError;
    restore_under_way[Some(sprite)](sprite: SpriteId) -> Option<Restore>, CatalogError;
    restores[None]() -> Vec<SpriteId>, CatalogError;
    services[Some(sprite)](sprite: SpriteId) -> Arc<Services>, CatalogError;
    set_policy[Some(sprite)](sprite: SpriteId, policy: &Policy, at: OffsetDateTime) -> bool, CatalogError;
    sprite[Some(sprite)](sprite: SpriteId) -> Option<Sprite>, CatalogError;
    sprite_ids[None]() -> Vec<SpriteId>, CatalogError;
    sprite_named[None](org: &OrgId, name: &SpriteName) -> Option<Sprite>, CatalogError;
    sprites[None](org: &OrgId, scope: Scope, prefix: &str, after: &str, limit: u32) -> Vec<Sprite>, CatalogError;
    sprites_with_tasks[None](now: OffsetDateTime) -> Vec<SpriteId>, CatalogError;
    task[Some(sprite)](sprite: SpriteId, name: &TaskName, now: OffsetDateTime) -> Option<Task>, CatalogError;
    tasks[Some(sprite)](sprite: SpriteId, now: OffsetDateTime) -> Vec<Task>, CatalogError;
    unfinished_checkpoints[None]() -> Vec<(SpriteId, CheckpointId)>, CatalogError;
    update_sprite[Some(sprite)](sprite: SpriteId, settings: &Settings, at: OffsetDateTime) -> Option<Sprite>, CatalogError;
    usage[Some(sprite)](sprite: SpriteId, now: OffsetDateTime) -> Option<Metered>, CatalogError;
}
