//! A tree of files as one stream of bytes, in the format of tar: written, read, and unpacked.
//!
//! Both ends are hostile to each other. An archive may come from anybody, so every length is checked before memory is
//! taken, and what is held does not grow with the archive: an entry's names, and one open directory for each part of a
//! path. Unpacking goes down from a directory's descriptor, one name at a time, and follows no link
//! ([`unpack`](unpack()) says more).
//!
//! What is written is pax (POSIX.1-2001), which every tar reads: names of any bytes and length, times with their
//! nanoseconds, sizes without a limit. What is read is that, ustar and GNU. What tar has no word for is said by
//! [`Note`]s, global headers with keywords of ours that other programs pass over.
//!
//! An archive is whole when its end was read. One that was cut off, also right between two entries, is an error.
#![warn(missing_docs)]

mod draft;
mod entry;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod pax;
mod read;
mod unpack;
mod write;

pub use entry::{Entry, Item, Kind, Note, Time};
pub use read::{Damage, ReadError, Reader};
pub use unpack::{Progress, Target, UnpackError, Unpacked, unpack};
pub use write::{CopyError, Whole, Writer};

/// Bytes of a block: headers are one, and contents are filled up to whole ones. Source: POSIX.1-2017, pax,
/// "ustar Interchange Format".
const BLOCK: usize = 512;

/// Longest name, and longest target of a link, in bytes. Source: `PATH_MAX` of include/uapi/linux/limits.h, which
/// counts the zero byte.
pub const LONGEST_PATH: usize = 4095;
