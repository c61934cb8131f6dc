//! What can go wrong, one enum per operation.

use std::time::Duration;

use sprite_catalog::{CatalogError, DropCheckpointError};
use sprite_types::{
    CheckpointId, CustomDomain, DriverKind, Label, OrgId, ResourcesError, SpriteId, SpriteName,
    TaskName,
};

use crate::disks::DiskError;

/// Why a host could not be opened. Nothing runs that did not run before.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The catalog could not be read or written.
    #[error("read what an earlier run left in the catalog")]
    Catalog(#[from] CatalogError),
    /// The driver could not tell what still runs.
    #[error("look for machines of an earlier run")]
    Machines(#[source] sprite_machine::MachineError),
    /// A machine that belongs to no sprite could not be ended.
    #[error("end machine {machine}, which belongs to no sprite")]
    Stray {
        /// The machine.
        machine: sprite_types::MachineId,
        /// What the driver said.
        #[source]
        source: sprite_machine::MachineError,
    },
    /// The disks could not be listed, or one that belongs to no sprite not be deleted.
    #[error("remove disks that belong to no sprite")]
    Disks(#[source] DiskError),
}

/// Why a token was refused.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// It is not of the form `org-slug/org-id/token-id/secret`.
    #[error("read the token: it is not of the form org/org-id/token-id/secret")]
    Malformed,
    /// There is no such token, or it was revoked.
    #[error("check the token: it is unknown or was revoked")]
    Unknown,
    /// The catalog could not be read.
    #[error("look the token up")]
    Catalog(#[from] CatalogError),
}

/// Why a token could not be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The description is too long.
    #[error("describe the token in at most {max} characters")]
    Description {
        /// The limit.
        max: usize,
    },
    /// The catalog could not be written.
    #[error("record the token")]
    Catalog(#[from] CatalogError),
}

/// Why an organisation could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum OrganisationError {
    /// There is none of that id.
    #[error("find organisation {0}")]
    NotFound(OrgId),
    /// The catalog could not be read.
    #[error("read the organisation")]
    Catalog(#[from] CatalogError),
}

/// Variables that cannot be given to a process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// A name is empty or holds `=` or NUL.
    #[error("environment variable {name:?} has a name that is empty or holds '=' or NUL")]
    Name {
        /// The name, cut to 80 characters.
        name: String,
    },
    /// A value holds NUL.
    #[error("environment variable {name:?} has a value that holds NUL")]
    Value {
        /// The name, cut to 80 characters.
        name: String,
    },
    /// All of them together are too long.
    #[error("environment is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Names and values, in bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Why a sprite was not created. Nothing of it is left, unless told otherwise.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The organisation has a sprite of that name.
    #[error("name {name} is taken")]
    NameTaken {
        /// The name.
        name: SpriteName,
    },
    /// A size is out of its range.
    #[error("size the sprite")]
    Resources(#[from] ResourcesError),
    /// Too many labels.
    #[error("sprite has {count} labels, at most {max} are allowed", max = Label::MOST)]
    Labels {
        /// How many were given.
        count: usize,
    },
    /// Bad variables.
    #[error("set the environment")]
    Environment(#[from] EnvironmentError),
    /// The organisation has as many sprites as it may.
    #[error("organisation has {limit} sprites, which is its limit")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The sprite that asks has made as many as it may.
    #[error("sprite has made {limit} sprites, which is its limit")]
    MadeTooMany {
        /// The limit.
        limit: u64,
    },
    /// The sprite that asks is gone, or may not make any.
    #[error("let sprite {0} make a sprite")]
    MayNotMake(SpriteId),
    /// A sprite asks for one that may make sprites too.
    #[error("give API access: only a token of the organisation can")]
    ApiAccess,
    /// A sprite asks for one that is larger than itself.
    #[error(
        "{size} is {asked}, at most {most} are allowed: no more than the sprite has that makes it"
    )]
    LargerThanMaker {
        /// Which size.
        size: &'static str,
        /// What was asked for.
        asked: u32,
        /// What the sprite has that asks.
        most: u32,
    },
    /// There is no such organisation.
    #[error("find organisation {0}")]
    Organisation(OrgId),
    /// The sprite that is to be forked does not exist.
    #[error("the sprite to be forked does not exist")]
    NoSource,
    /// The sprite that is to be forked has no such checkpoint.
    #[error("the sprite to be forked has no checkpoint {id}")]
    NoCheckpoint {
        /// What was asked for.
        id: CheckpointId,
    },
    /// A fork's disk has the size of the one that it is a copy of.
    #[error(
        "storage_gb is {asked}, of a fork it must be {of_source}, as of the sprite that is forked"
    )]
    ForkSize {
        /// What was asked for.
        asked: u32,
        /// What the source has.
        of_source: u32,
    },
    /// The disk is of another driver than this server runs.
    #[error(
        "the sprite to be forked was created with driver {theirs}; this server runs driver {ours}"
    )]
    ForkDriver {
        /// The source's.
        theirs: DriverKind,
        /// This server's.
        ours: DriverKind,
    },
    /// What the sprite that is to be forked has in memory could not be written out.
    #[error("write out what the sprite to be forked has in memory")]
    WriteOut(#[source] CheckpointError),
    /// The base image does not fit on a disk of that size.
    #[error("storage_gb is {storage_gb}, it must be at least {smallest_gb} to hold the base image")]
    DiskTooSmall {
        /// What was asked for.
        storage_gb: u32,
        /// The least that holds the image.
        smallest_gb: u32,
    },
    /// The pool is too full for another disk.
    #[error("make the disk: the pool is full")]
    NoSpace(#[source] DiskError),
    /// Its disk could not be made.
    #[error("make the disk")]
    Disk(#[source] DiskError),
    /// A step failed, and undoing it too; the host goes on trying to remove what there is.
    #[error("create the sprite: {cause}")]
    Step {
        /// Which step, and what was said.
        cause: String,
    },
    /// It was destroyed before it was complete.
    #[error("sprite was destroyed while it was being created")]
    Destroyed,
    /// The host shuts down. If the sprite was recorded, the next start finishes or removes it.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be written.
    #[error("record the sprite")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is none.
    #[error("sprite does not exist")]
    NotFound,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why sprites could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The catalog could not be read.
    #[error("list sprites")]
    Catalog(#[from] CatalogError),
}

/// Why settings were not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no such sprite.
    #[error("sprite does not exist")]
    NotFound,
    /// Too many labels.
    #[error("sprite has {count} labels, at most {max} are allowed", max = Label::MOST)]
    Labels {
        /// How many were given.
        count: usize,
    },
    /// The catalog could not be written.
    #[error("record the settings")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite is not gone.
#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    /// There is no such sprite.
    #[error("sprite does not exist")]
    NotFound,
    /// A step fails again and again. The sprite stays marked, and the host goes on trying.
    #[error("destroy the sprite: {cause}")]
    Step {
        /// Which step, and what was said.
        cause: String,
    },
    /// Too many requests wait for this sprite.
    #[error("too many requests wait for this sprite")]
    Busy,
    /// The host shuts down. A destroy that was begun is finished by the next start.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite is not awake.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// There is no such sprite (any more).
    #[error("sprite does not exist")]
    NotFound,
    /// It is still waking; it may be awake when asked again.
    #[error("sprite is still starting after {within:?}")]
    Starting {
        /// How long was waited.
        within: Duration,
    },
    /// Too many requests wait for this sprite.
    #[error("too many requests wait for this sprite")]
    Busy,
    /// It could not be started. It is at rest, its disk as it was.
    #[error("start the sprite: {cause}")]
    Failed {
        /// Which step, and what was said.
        cause: String,
    },
    /// The host shuts down.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite was not put to sleep.
#[derive(Debug, thiserror::Error)]
pub enum SleepError {
    /// There is no such sprite (any more).
    #[error("sprite does not exist")]
    NotFound,
    /// Too many requests wait for this sprite.
    #[error("too many requests wait for this sprite")]
    Busy,
    /// A task of its own holds it, or a call lasted longer than the request waited.
    #[error("a task or a call in flight keeps the sprite awake")]
    Held,
    /// It could not fall asleep.
    #[error("put the sprite to sleep: {cause}")]
    Failed {
        /// Which step, and what was said.
        cause: String,
    },
    /// The host shuts down.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite was not restarted.
#[derive(Debug, thiserror::Error)]
pub enum RestartError {
    /// There is no such sprite (any more).
    #[error("sprite does not exist")]
    NotFound,
    /// Too many requests wait for this sprite.
    #[error("too many requests wait for this sprite")]
    Busy,
    /// It could not be stopped or started.
    #[error("restart the sprite: {cause}")]
    Failed {
        /// Which step, and what was said.
        cause: String,
    },
    /// The host shuts down.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// There is no such sprite (any more).
    #[error("sprite does not exist")]
    NotFound,
    /// The comment is too long.
    #[error("the comment has {bytes} bytes, and may have 1024")]
    Comment {
        /// How long it is.
        bytes: usize,
    },
    /// The sprite has as many as it may.
    #[error("sprite has {limit} checkpoints, which is its limit")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The sprite could not be woken, which was just falling asleep.
    #[error("wake the sprite")]
    Wake(#[from] WakeError),
    /// What the sprite has in memory could not be written out.
    #[error("{cause}")]
    Failed {
        /// Which step, and what was said.
        cause: String,
    },
    /// The disk could not be cloned.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The host shuts down. There may be a checkpoint.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read or written. There may be a checkpoint.
    #[error("record the checkpoint")]
    Catalog(#[source] CatalogError),
}

/// Why a checkpoint stays.
#[derive(Debug, thiserror::Error)]
pub enum DeleteCheckpointError {
    /// The sprite has no such checkpoint.
    #[error("sprite has no checkpoint {id}")]
    NotFound {
        /// What was asked for.
        id: CheckpointId,
    },
    /// The disk as it is now goes back to it.
    #[error("the sprite stands on checkpoint {id}")]
    InUse {
        /// What was asked for.
        id: CheckpointId,
    },
    /// The catalog could not be read or written.
    #[error("delete the checkpoint")]
    Catalog(#[from] CatalogError),
}

impl From<DropCheckpointError> for DeleteCheckpointError {
    fn from(error: DropCheckpointError) -> Self {
        match error {
            DropCheckpointError::NotFound(id) => Self::NotFound { id },
            DropCheckpointError::InUse(id) => Self::InUse { id },
            DropCheckpointError::Catalog(error) => Self::Catalog(error),
        }
    }
}

/// Why a sprite was not brought back to a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The sprite has no such checkpoint. Nothing was changed.
    #[error("sprite has no checkpoint {id}")]
    NotFound {
        /// What was asked for.
        id: CheckpointId,
    },
    /// Another restore has not ended. Nothing was changed.
    #[error("the sprite is being restored to {to}")]
    UnderWay {
        /// Where that leads.
        to: CheckpointId,
    },
    /// The sprite could not be stopped or started. It is announced, and the sprite's next start does it.
    #[error("{cause}; the sprite's next start restores it")]
    Later {
        /// Which step, and what was said.
        cause: String,
    },
    /// It could not be done, or the sprite could not be started with that state.
    #[error("{cause}")]
    Failed {
        /// Which step, and what was said.
        cause: String,
    },
    /// The host shuts down. If it is announced, the next start does it.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be read or written.
    #[error("record the restore")]
    Catalog(#[source] CatalogError),
}

/// Why a policy is not in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// There is no such sprite (any more).
    #[error("sprite does not exist")]
    NotFound,
    /// A limit is out of its range. Nothing was changed.
    #[error(transparent)]
    Limit(#[from] ResourcesError),
    /// The driver's environments cannot be given more than they have. Nothing was changed.
    #[error(
        "profile privileged needs a kernel of the sprite's own, which driver {driver} does not give"
    )]
    Privileged {
        /// The sprite's driver.
        driver: DriverKind,
    },
    /// The driver's environments do not have that device. Nothing was changed.
    #[error("environments of driver {driver} have no device {device:?}")]
    Device {
        /// As it was asked for, cut to 80 characters.
        device: String,
        /// The sprite's driver.
        driver: DriverKind,
        /// Those that they have.
        there: &'static [&'static str],
    },
    /// It is stored, and was not put in force on the machine that ran.
    #[error("{cause}; the policy is stored and holds from the sprite's next start")]
    NotInForce {
        /// Which step, and what was said.
        cause: String,
        /// Whether that machine was ended.
        ended: bool,
    },
    /// Too many requests wait for this sprite. It is stored, and holds from the sprite's next start.
    #[error("too many requests wait for this sprite")]
    Busy,
    /// The host shuts down. If it is stored, it holds from the next start on.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be written.
    #[error("store the policy")]
    Catalog(#[from] CatalogError),
}

/// Why a sprite could not be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// There is no such sprite.
    #[error("sprite does not exist")]
    NotFound,
    /// The catalog could not be read.
    #[error("look the sprite up")]
    Catalog(#[from] CatalogError),
}

/// Why it could not be told what a sprite has used.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// There is no such sprite.
    #[error("sprite does not exist")]
    NotFound,
    /// The catalog could not be read.
    #[error("look up what the sprite used")]
    Catalog(#[from] CatalogError),
    /// The pool could not be read.
    #[error("measure what the sprite takes of the pool")]
    Disk(#[from] DiskError),
}

/// Why a task could not be shown or deleted.
#[derive(Debug, thiserror::Error)]
pub enum TaskError {
    /// There is none of that name, or it has expired.
    #[error("task does not exist")]
    NotFound,
    /// The catalog could not be read or written.
    #[error("look the task up")]
    Catalog(#[from] CatalogError),
}

/// Why a task was not recorded.
#[derive(Debug, thiserror::Error)]
pub enum PutTaskError {
    /// Its end is now, or too far away.
    #[error("expire must be more than 0 and at most {max:?}", max = crate::tasks::LONGEST_TASK)]
    Expire,
    /// The sprite has a task of that name.
    #[error("task {name} exists")]
    Taken {
        /// The name.
        name: TaskName,
    },
    /// The sprite has as many tasks as it may.
    #[error("sprite has {limit} tasks, which is its limit")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The sprite, which a task keeps awake, could not be woken.
    #[error("wake the sprite")]
    Wake(#[from] WakeError),
    /// The host shuts down.
    #[error("host shuts down")]
    Closing,
    /// The catalog could not be written.
    #[error("record the task")]
    Catalog(#[source] CatalogError),
}

impl From<sprite_catalog::PutTaskError> for PutTaskError {
    fn from(error: sprite_catalog::PutTaskError) -> Self {
        match error {
            sprite_catalog::PutTaskError::Taken(name) => Self::Taken { name },
            sprite_catalog::PutTaskError::TooMany(limit) => Self::TooMany { limit },
            sprite_catalog::PutTaskError::NoSprite => Self::Wake(WakeError::NotFound),
            sprite_catalog::PutTaskError::Catalog(error) => Self::Catalog(error),
        }
    }
}

/// Why a domain was not shown, mapped or let go.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// The sprite has no such domain.
    #[error("domain does not lead to the sprite")]
    NotFound,
    /// The domain leads to another sprite, of whomever.
    #[error("domain {domain} is taken")]
    Taken {
        /// The domain.
        domain: CustomDomain,
    },
    /// The sprite has as many domains as it may.
    #[error("sprite has {limit} domains, which is its limit")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The sprite is gone.
    #[error("sprite does not exist")]
    NoSprite,
    /// The catalog could not be read or written.
    #[error("look the domain up")]
    Catalog(#[from] CatalogError),
}

impl From<sprite_catalog::MapDomainError> for DomainError {
    fn from(error: sprite_catalog::MapDomainError) -> Self {
        match error {
            sprite_catalog::MapDomainError::Taken(domain) => Self::Taken { domain },
            sprite_catalog::MapDomainError::TooMany(limit) => Self::TooMany { limit },
            sprite_catalog::MapDomainError::NoSprite => Self::NoSprite,
            sprite_catalog::MapDomainError::Catalog(error) => Self::Catalog(error),
        }
    }
}
