//! The host of sprites: one task per *active* sprite, which does what its lifecycle decides.
//!
//! # Who does what
//! [`Host`] is what the server speaks to. A sprite that is at rest without a machine costs a row in the catalog
//! and nothing else; one that is active has a task (`actor`), which alone owns its machine and its disk.
//! Everybody else sends the task requests through its bounded mailbox. What comes next is decided by the pure
//! `sprite-lifecycle`; how it is done stands in one file per operation: `create`, `wake`, `sleep`, `stop`,
//! `destroy`, `recover`, `policy`. What a sprite asks for from inside is in `calls` and `tasks`.
//!
//! # What is durable when
//! The catalog's row is committed before the first side effect that it announces, and every step can be done
//! twice. So a process killed at any point leaves rows from which [`Host::open`] finishes or undoes what was
//! begun. A named [`FaultPoint`] stands beside every step; tests stop a host at each of them.
#![warn(missing_docs)]

mod actor;
mod agent;
mod awake;
mod calls;
mod check;
mod context;
mod create;
mod destroy;
mod disks;
mod enforce;
mod error;
mod fault;
mod host;
mod load;
mod options;
mod policy;
mod recover;
mod registry;
mod reply;
mod shared;
mod sleep;
mod sprite;
mod stop;
mod tasks;
mod tokens;
mod wake;
mod watch;

pub use awake::Awake;
pub use calls::{Call, CallStream, Calls, Pace};
pub use disks::{DiskError, Disks};
pub use error::{
    AuthError, CheckError, CreateError, DestroyError, EnvironmentError, ListError, LookupError,
    OpenError, OrganisationError, PolicyError, PutTaskError, RestartError, TaskError, TokenError,
    UpdateError, WakeError,
};
pub use fault::{FaultPoint, Faults};
pub use host::Host;
pub use options::HostOptions;
pub use policy::PolicyView;
pub use sprite::{
    Check, CheckStatus, ListQuery, NewSprite, Organisation, Page, Principal, ResourceRequest,
};
pub use sprite_catalog::{
    Catalog, CatalogError, IfTaken, Policy, PrivateAccess, Settings as Change, Sprite,
    StatusCounts as Counts, Task, UrlAuth,
};
pub use tasks::LONGEST_TASK;
pub use watch::{Watch, WatchEvent};
