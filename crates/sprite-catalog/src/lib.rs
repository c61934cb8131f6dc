//! What is known of organisations, tokens and sprites. Only this crate speaks SQL.
//!
//! The catalog is one SQLite file in WAL mode with `synchronous=FULL`: when a method that writes returns, what it
//! wrote survives a power loss. One connection writes, a few read; a reader sees every commit that was
//! acknowledged before it began.
//!
//! # How a sprite's row tells the truth
//! * The name is reserved by inserting the row, together with an intent `create`. The intent goes in the same
//!   commit in which the sprite first leaves rest ([`Catalog::complete_create`]).
//! * Leaving rest is committed **before** a machine runs ([`Catalog::leave_rest`]): status `running`, the next
//!   incarnation, the machine's id. Entering rest is committed **after** it ceased to
//!   ([`Catalog::enter_cold`], [`Catalog::enter_warm`]). So a row that says `cold` has no machine, ever.
//! * Every such change names the generation and incarnation that it starts from, and is a
//!   [`CatalogError::Conflict`] if the row is of another.
//! * Every such change writes what the sprite has used until then in the same commit, counted by the pure
//!   [`sprite_lifecycle::metering`].
//! * A destroy inserts an intent `destroy` before its first step; deleting the row is the last.
#![warn(missing_docs)]

mod alarm;
mod checkpoint;
mod domain;
mod error;
mod intent;
mod listing;
mod organisation;
mod policy;
mod recent;
mod record;
mod revocations;
mod row;
mod service;
mod settings;
mod sprite;
mod store;
mod task;
mod transition;
mod usage;

pub use alarm::PutAlarmError;
pub use checkpoint::{
    BeginCheckpointError, BeginRestoreError, Checkpoint, Checkpoints, DropCheckpointError, Restore,
};
pub use domain::{Domain, MapDomainError};
pub use error::CatalogError;
pub use intent::Operation;
pub use listing::{Scope, StatusCounts};
pub use organisation::{NewToken, Organisation, Token};
pub use policy::Policy;
pub use service::{Service, ServiceChange, ServiceChangeError, Services};
pub use settings::{Connections, IdleTimeout, Idleness, PrivateAccess, UnknownWord, UrlAuth};
pub use sprite::{InsertError, Maker, NewSprite, Settings, Sprite};
pub use store::Catalog;
pub use task::{IfTaken, PutTaskError, Task};
pub use transition::Fence;
pub use usage::Metered;
