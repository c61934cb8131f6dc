//! Disks of sprites: the pool they live in, the base images they are cloned from.
//!
//! * [`Pool`] is the local file system with reflink. It is the data directory itself where that can, else an XFS
//!   file of ours, loop-mounted. [`Pool::create_disk`] takes milliseconds, whatever the size.
//! * [`guest`] is what microVMs boot: kernel, modules, and the agent as their first program.
//! * [`image`] makes base images in a cache that servers share; [`Pool::import_image`] takes one over.
//!
//! Everything here blocks; call it from a thread that may.
//!
//! What must hold: a name in the pool or in the cache leads to a complete file, and what a call acknowledged is
//! durable. The host never mounts, parses or changes a disk after it was given to a sprite.
#![warn(missing_docs)]

mod cache;
mod durable;
mod ext4;
mod fiemap;
pub mod guest;
pub mod image;
mod loop_device;
mod mounts;
mod pool;
mod progress;
mod sparse;
mod tool;

pub use image::ImageId;
pub use pool::{
    Backing, CheckpointError, ClosePoolError, CreateDiskError, DeleteDiskError, Goldens,
    ImportImageError, Layout, ListDisksError, ListImagesError, MeasureError, Obstacle,
    OpenPoolError, Pool, PoolOptions, Prospect, PurgeError, Shortage, SizedImageError,
    SnapshotsError, Space, SpriteSpace,
};
pub use progress::{Progress, Silent};
pub use tool::ToolError;
