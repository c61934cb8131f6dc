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
//! * A destroy inserts an intent `destroy` before its first step; deleting the row is the last.
#![warn(missing_docs)]

mod error;
mod intent;
mod organisation;
mod policy;
mod record;
mod row;
mod settings;
mod sprite;
mod store;
mod task;
mod transition;

pub use error::CatalogError;
pub use intent::Operation;
pub use organisation::{NewToken, Organisation, Token};
pub use policy::Policy;
pub use settings::{PrivateAccess, UnknownWord, UrlAuth};
pub use sprite::{InsertError, NewSprite, Settings, Sprite, StatusCounts};
pub use store::Catalog;
pub use task::{IfTaken, PutTaskError, Task};
pub use transition::Fence;
