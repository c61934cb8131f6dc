//! The contract between the host (`sprited`) and the agent inside a machine.
//!
//! One connection carries one **stream**; one stream carries one **operation** (an exec, an attach, a
//! listing, …). A stream outlives its connections: both ends number what they send and keep it until it is
//! acknowledged, so that after a wake, or a transport that broke, they go on without a byte lost or repeated
//! ([`link`]). What an operation says on its stream is in [`message`].
//!
//! The host is the client: it connects, opens or resumes a stream, and sends a [`message::Request`] first.
//! The agent believes nothing more of the host than the host of the agent: every length is checked before
//! anything is allocated.
#![warn(missing_docs)]

pub mod calls;
mod codec;
pub mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod guest;
pub mod idle;
pub mod launch;
pub mod link;
pub mod message;
pub mod policy;
pub mod ports;
pub mod services;
pub mod tcp;
pub mod wire;

pub use codec::{CodecError, Frame, FrameKind, MAX_DATA, MAX_FRAME};

/// The number of this contract. Messages are only ever added; a field is never given another meaning.
///
/// The agent of an old snapshot may be older than the host: the host speaks every number ever released.
pub const PROTOCOL: u32 = 1;
