//! The ext4 images that we make: how they are laid out, and whether a file is one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// Nominal size of a base image in GB; the default size of a disk.
pub(crate) const NOMINAL_GB: u64 = 100;

/// Block size in bytes.
pub(crate) const BLOCK_SIZE: u64 = 4096;

/// One GB in bytes.
const GB: u64 = 1 << 30;

/// Everything that is optional, named: what `/etc/mke2fs.conf` of the host says must not change an image.
/// Left out on purpose: `orphan_file` and `metadata_csum_seed`, which kernels before 5.15 and older tools refuse.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// `assume_storage_prezeroed`: a new sparse file reads as zeros, so neither the journal nor the inode tables are
/// written, and the kernel's lazy initialisation finds nothing to do when a disk is first mounted.
/// `resize`: room for the group descriptors of 4,096 GB, in blocks of 4 KiB.
const EXTENDED: &str = "assume_storage_prezeroed=1,lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,resize=1073741824";

/// Everything that decides how an image is laid out: another layout makes another image.
pub(crate) const LAYOUT: [&str; 2] = [FEATURES, EXTENDED];

/// Writes a new file system with the content of `directory` into `image`, which must not exist. Owners, modes,
/// times, links, device nodes and extended attributes are those of the directory. Links are copied, not followed.
pub(crate) fn make(
    directory: &Path,
    image: &Path,
    progress: &dyn Progress,
) -> Result<(), ToolError> {
    let failed = |source| ToolError::Run {
        tool: tool::MKFS_EXT4.name(),
        source,
    };
    let file = File::create_new(image).map_err(failed)?;
    file.set_len(NOMINAL_GB * GB).map_err(failed)?;
    let mut command = tool::MKFS_EXT4.command()?;
    command.args([
        "-q", "-F", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-J", "size=64",
    ]);
    command
        .args(["-O", FEATURES, "-E", EXTENDED, "-L", "sprite", "-d"])
        .arg(directory)
        .arg(image);
    tool::MKFS_EXT4.run(command, progress)?;
    file.sync_all().map_err(failed)
}

/// Whether a file of `length` bytes is an image that disks can be cloned from; if not, which rule it breaks.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn check(file: &File, length: u64) -> io::Result<Result<(), &'static str>> {
    // Source: Linux Documentation/filesystems/ext4/super.rst.
    const SUPERBLOCK_AT: u64 = 1024;
    const MAGIC: u16 = 0xEF53;
    if length == 0 || !length.is_multiple_of(GB) {
        return Ok(Err("its size is not a multiple of 1 GB"));
    }
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, SUPERBLOCK_AT)?;
    let word = |at: usize| {
        u32::from_le_bytes([
            superblock[at],
            superblock[at + 1],
            superblock[at + 2],
            superblock[at + 3],
        ])
    };
    if u16::from_le_bytes([superblock[56], superblock[57]]) != MAGIC {
        return Ok(Err("it holds no ext4 file system"));
    }
    let blocks = u64::from(word(0x150)) << 32 | u64::from(word(4));
    if word(24) != 2 || blocks.checked_mul(BLOCK_SIZE) != Some(length) {
        return Ok(Err(
            "its file system is not as large as the file, or its blocks are not of 4 KiB",
        ));
    }
    Ok(Ok(()))
}
