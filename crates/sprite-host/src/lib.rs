//! The host of sprites: one task per *active* sprite, which does what its lifecycle decides.
//!
//! # Who does what
//! [`Host`] is what the server speaks to. A sprite that is at rest without a machine costs a row in the catalog
//! and nothing else; one that is active has a task (`actor`), which alone owns its machine and its disk.
//! Everybody else sends the task requests through its bounded mailbox. What comes next is decided by the pure
//! `sprite-lifecycle`; how it is done stands in one file per operation: `create`, `wake`, `sleep`, `stop`,
//! `destroy`, `recover`, `policy`, `upgrade`, `checkpoints`. What a sprite asks for from inside is in `calls`, `tasks` and
//! `alarms`; what it used, in `usage`.
//!
//! # What is durable when
//! The catalog's row is committed before the first side effect that it announces, and every step can be done
//! twice. So a process killed at any point leaves rows from which [`Host::open`] finishes or undoes what was
//! begun. A named [`FaultPoint`] stands beside every step; tests stop a host at each of them.
#![warn(missing_docs)]

mod actor;
mod agent;
mod alarms;
mod awake;
mod books;
mod called;
mod calls;
mod check;
mod checkpoints;
mod context;
mod create;
mod destroy;
mod dialled;
mod disks;
mod domains;
mod enforce;
mod error;
mod fault;
mod host;
mod ledger;
mod line;
mod load;
mod metrics;
mod options;
mod policy;
mod pressure;
mod recover;
mod registry;
mod reply;
mod reusable;
mod services;
mod shared;
mod sleep;
mod sprite;
mod stop;
mod tasks;
mod tokens;
mod upgrade;
mod usage;
mod wake;
mod watch;

pub use alarms::AlarmError;
pub use awake::Awake;
pub use calls::{Call, CallStream, Calls, Pace};
pub use checkpoints::{LONGEST_COMMENT, MOST_CHECKPOINTS, Restoring};
pub use dialled::Dialled;
pub use disks::{DiskError, DiskUsage, Disks};
pub use domains::MOST_DOMAINS;
pub use error::{
    AuthError, CheckError, CheckpointError, CreateError, DeleteCheckpointError, DestroyError,
    DomainError, EnvironmentError, ListError, LookupError, OpenError, OrganisationError,
    PolicyError, PutTaskError, RestartError, RestoreError, SleepError, TaskError, TokenError,
    UpdateError, UsageError, WakeError,
};
pub use fault::{FaultPoint, Faults, Stage};
pub use host::Host;
pub use options::HostOptions;
pub use policy::PolicyView;
pub use reusable::Reusable;
pub use services::{Asker, HttpTarget, ServiceError, ServiceTelling};
pub use sprite::{
    Check, CheckStatus, ForkOf, ListQuery, NewSprite, Organisation, Page, Principal,
    ResourceRequest, Who,
};
pub use sprite_catalog::{
    Catalog, CatalogError, Checkpoint, Checkpoints, Connections, Domain, IdleTimeout, Idleness,
    IfTaken, Policy, PrivateAccess, Scope, Service, ServiceChange, ServiceChangeError, Services,
    Settings as Change, Sprite, StatusCounts as Counts, Task, UrlAuth,
};
pub use sprite_lifecycle::Hold;
pub use sprite_lifecycle::metering::Usage;
pub use tasks::LONGEST_TASK;
pub use usage::SpriteUsage;
pub use watch::{Watch, WatchEvent};
