//! Base images: what disks are cloned from.
//!
//! An image is made once from a [`Recipe`], under the hash of that recipe, in a cache that servers share. Then a
//! pool imports it. The steps of a build, each in a directory of its own below the cache:
//!
//! 1. fill a directory with a root file system: Debian packages, or a tarball's content;
//! 2. finish it: the user `sprite`, the files that every sprite has;
//! 3. write an ext4 image from the directory, and give it its name in the cache.
//!
//! No image is ever mounted, and nothing is extracted where a hostile archive could reach the host's files.

mod account;
mod archive;
mod bootstrap;
mod build;
mod debian;
mod finish;
mod mirror;
mod node;
mod recipe;
pub(crate) mod store;
mod tree;

pub use archive::ExtractError;
pub use build::{BuildError, Built, build, cached, missing_tools};
pub use debian::DebianError;
pub use finish::FinishError;
pub use node::NodeError;
pub use recipe::{HostTrust, ImageId, ParseImageIdError, Recipe, RecipeError, Suite, Variant};
pub use store::StoredImage;
