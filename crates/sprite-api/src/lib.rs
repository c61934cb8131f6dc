//! The public wire contract: bodies, error codes, exec frames, NDJSON events, and how query strings are read.
//!
//! Nothing here has behaviour: the server says these things, clients read them. Bodies that come from clients
//! ignore keys that they do not know; bodies that go to clients are supersets of what any known client reads.
//! Source: behaviour reference §1, §9, §11.
#![warn(missing_docs)]

pub mod alarm;
pub mod checkpoint;
pub mod control;
pub mod domain;
pub mod error;
pub mod exec;
pub mod fs;
pub mod inside;
pub mod organization;
pub mod policy;
pub mod ports;
pub mod proxy;
pub mod query;
pub mod service;
pub mod session;
pub mod sprite;
mod stamp;
pub mod task;
pub mod unit;
pub mod usage;

pub use error::{ErrorBody, ErrorKind};
pub use stamp::Stamp;

/// Media type of a stream of JSON objects, one a line.
pub const NDJSON: &str = "application/x-ndjson";

/// Response header that tells the version of the sprite environment. Source: behaviour reference §1.1.
pub const VERSION_HEADER: &str = "sprite-version";

/// Response header of an exec upgrade that tells what the stream can do. Source: behaviour reference §1.1.
pub const CAPABILITIES_HEADER: &str = "x-sprite-capabilities";
