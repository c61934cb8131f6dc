//! The guest system: the kernel that every microVM of a server boots, its modules, and the archive with the agent.
//!
//! ```text
//! packages of this machine's distribution ──▶ CACHE/guest-ID/         shared by servers
//!                                             DIRECTORY/ID/           a server's own copy
//!                                             DIRECTORY/current.json  which one its machines boot
//! ```
//!
//! A directory goes on booting the guest system that it has recorded, until it is told to take the newest one: what
//! sprites run on does not change by an update of the host. Earlier ones stay beside it, because a machine asleep
//! wakes up on the kernel that it fell asleep on.
//!
//! Nobody has to be root for any of this.

mod build;
mod cpio;
mod description;
mod initramfs;
mod kernel;
mod modules;
mod package;
mod record;

pub use build::GuestBuildError;
pub use description::{GuestId, ParseGuestIdError};
pub use initramfs::InitramfsError;
pub use kernel::KernelError;
pub use modules::ModulesError;
pub use package::Package;
pub use record::{Guest, GuestError, GuestOptions, GuestSource};

use std::path::PathBuf;

use crate::tool::ToolError;

/// What a microVM boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestSystem {
    /// Names it, in a machine's record and in a snapshot.
    pub id: GuestId,
    /// Version of its kernel, as the kernel itself says it.
    pub version: String,
    /// The kernel: an uncompressed ELF program with a PVH entry.
    pub kernel: PathBuf,
    /// The archive with the agent as `/init` and the modules that it loads first.
    pub initramfs: PathBuf,
    /// An ext4 image of all modules, to be read only: the content of `/lib/modules`.
    pub modules: PathBuf,
}

/// The packages of the newest kernel that this machine's distribution offers to guests; `None` where it offers none
/// that is new enough. Changes nothing.
///
/// # Errors
/// There is no apt here to ask.
pub fn available() -> Result<Option<Vec<Package>>, ToolError> {
    package::newest()
}
