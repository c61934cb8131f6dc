//! Loop devices: a file as a block device.
//!
//! Every device that we set up is AUTOCLEAR: the kernel detaches it when its last user is gone, so a process
//! that dies between attaching and mounting leaves nothing behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

// Source: linux/loop.h.
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_GET_STATUS64: libc::Ioctl = 0x4C05;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Sector size of our devices in bytes. 4,096 is what lets the kernel bypass the page cache both on disks of 512
/// and of 4,096 byte sectors; with 512 it falls back to double caching on the latter.
pub(crate) const SECTOR_SIZE: u32 = 4096;

/// How often another process may snatch the free device that the kernel named before we give up.
const ATTACH_ATTEMPTS: u32 = 64;

/// `struct loop_info64`. Source: linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`. Source: linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232 && size_of::<LoopConfig>() == 304);

impl LoopInfo64 {
    const fn zeroed() -> Self {
        Self {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: 0,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        }
    }
}

/// An attached loop device, held open so that AUTOCLEAR does not detach it yet.
#[derive(Debug)]
pub(crate) struct LoopDevice {
    path: PathBuf,
    file: File,
}

impl LoopDevice {
    /// `/dev/loopN`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Attaches `backing` to a free device, with direct I/O where the file system below can.
    pub(crate) fn attach(backing: &File, name: &Path) -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/loop-control")?;
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..ATTACH_ATTEMPTS {
            // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            match configure(file.as_raw_fd(), backing, name) {
                Ok(()) => return Ok(Self { path, file }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The device to which the file `path` is already attached, if there is one.
    ///
    /// Two devices over one file would be two caches over one file system and destroy it, so the file is
    /// recognised by its inode; names only spare us opening strangers' devices.
    pub(crate) fn find(path: &Path) -> io::Result<Option<Self>> {
        let wanted = path.metadata()?;
        let name = path.file_name();
        for (device, backing) in attached()? {
            if backing.file_name() != name {
                continue;
            }
            let file = match OpenOptions::new().read(true).open(&device) {
                Ok(file) => file,
                Err(error) if vanished(&error) => continue,
                Err(error) => return Err(error),
            };
            let info = match status(file.as_raw_fd()) {
                Ok(info) => info,
                Err(error) if vanished(&error) => continue,
                Err(error) => return Err(error),
            };
            if info.device == wanted.dev() && info.inode == wanted.ino() {
                return Ok(Some(Self { path: device, file }));
            }
        }
        Ok(None)
    }

    /// Detaches the file; if somebody still uses the device, as soon as they stop.
    pub(crate) fn detach(self) -> io::Result<()> {
        // SAFETY: LOOP_CLR_FD takes no argument and touches no memory of ours.
        if unsafe { libc::ioctl(self.file.as_raw_fd(), LOOP_CLR_FD) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if vanished(&error) => Ok(()),
            error => Err(error),
        }
    }
}

/// Every attached loop device with the path of its file, as the kernel shows it.
pub(crate) fn attached() -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block")? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("loop") {
            continue;
        }
        if let Some(backing) = backing_file(Path::new("/sys/block").join(&name).as_path())? {
            found.push((Path::new("/dev").join(&name), backing));
        }
    }
    Ok(found)
}

/// Detaches every device whose file is below `directory`; those in use go with their last user.
pub(crate) fn detach_below(directory: &Path) -> io::Result<()> {
    for (device, backing) in attached()? {
        if !backing.starts_with(directory) {
            continue;
        }
        match OpenOptions::new().read(true).open(&device) {
            Ok(file) => LoopDevice { path: device, file }.detach()?,
            Err(error) if vanished(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn backing_file(block: &Path) -> io::Result<Option<PathBuf>> {
    match std::fs::read_to_string(block.join("loop/backing_file")) {
        Ok(text) => {
            let text = text.trim_end_matches('\n');
            Ok(Some(PathBuf::from(
                text.strip_suffix(" (deleted)").unwrap_or(text),
            )))
        }
        Err(error) if vanished(&error) || error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// The device was detached while we looked: others use loop devices too.
fn vanished(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV)
    )
}

fn configure(device: RawFd, backing: &File, name: &Path) -> io::Result<()> {
    let mut info = LoopInfo64::zeroed();
    info.flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO;
    // What losetup shows; the kernel wants the last byte to stay zero.
    for (to, from) in info.file_name[..63]
        .iter_mut()
        .zip(name.as_os_str().as_encoded_bytes())
    {
        *to = *from;
    }
    let fd = u32::try_from(backing.as_raw_fd()).map_err(io::Error::other)?;
    let config = LoopConfig {
        fd,
        block_size: SECTOR_SIZE,
        info,
        reserved: [0; 8],
    };
    // SAFETY: LOOP_CONFIGURE reads one `struct loop_config`; `config` is one and outlives the call.
    if unsafe { libc::ioctl(device, LOOP_CONFIGURE, &raw const config) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn status(device: RawFd) -> io::Result<LoopInfo64> {
    let mut info = LoopInfo64::zeroed();
    // SAFETY: LOOP_GET_STATUS64 writes one `struct loop_info64`; `info` is one, and any bytes are valid for it.
    if unsafe { libc::ioctl(device, LOOP_GET_STATUS64, &raw mut info) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}
