//! Devices: waiting for those that the kernel finds, and names for those whose modules load when they are opened.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Mode};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};

use super::DEVICE_WITHIN;
use crate::modules::{self, StaticNode};
use crate::step::{Step, StepError};

/// The group to which the kernel itself sends. Source: lib/kobject_uevent.c.
const FROM_KERNEL: u32 = 1;

/// Devices that every user may open: each looks itself at who asks for what. Others are root's.
const OPEN_TO_ALL: [&str; 3] = ["fuse", "net/tun", "kvm"];

/// Links that programs expect. Source: Linux Documentation/admin-guide/devices.rst.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Hears of the kernel's devices.
pub(super) struct Devices(OwnedFd);

impl Devices {
    /// Hears of all that appear from now on.
    pub(super) fn listen() -> Result<Self, StepError> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::KOBJECT_UEVENT),
        )
        .step("listen for devices")?;
        let address = netlink::SocketAddrNetlink::new(0, FROM_KERNEL);
        rustix::net::bind(&socket, &address).step("listen for devices")?;
        Ok(Self(socket))
    }

    /// Waits until `path` is there. The kernel makes it before it tells of the device.
    pub(super) fn wait_for(&self, path: &str) -> Result<(), StepError> {
        let deadline = Instant::now() + DEVICE_WITHIN;
        while !Path::new(path).exists() {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("seconds fit");
            let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&left)) {
                Ok(0) => {
                    return Err(io::Error::from(io::ErrorKind::TimedOut))
                        .step(&format!("wait for {path}"));
                }
                Ok(_) => self.drain(),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).step(&format!("wait for {path}")),
            }
        }
        Ok(())
    }

    /// Which device it was does not matter, nor whether news were lost: whoever waits looks again.
    fn drain(&self) {
        let mut message = [0; 8192];
        while !matches!(
            rustix::net::recv(&self.0, &mut message, RecvFlags::empty()),
            Err(rustix::io::Errno::AGAIN)
        ) {}
    }
}

/// Makes the nodes that a kernel without its modules does not have: opening one loads its module.
pub(super) fn make_static_nodes() -> Result<(), StepError> {
    for (name, target) in LINKS {
        std::os::unix::fs::symlink(target, Path::new("/dev").join(name)).step("link in /dev")?;
    }
    for node in modules::static_nodes().step("read the index of devices")? {
        make(&node).step(&format!("make /dev/{}", node.name))?;
    }
    for name in OPEN_TO_ALL {
        let path = Path::new("/dev").join(name);
        match fs::set_permissions(&path, Permissions::from_mode(0o666)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).step(&format!("open /dev/{name} to all"));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn make(node: &StaticNode) -> io::Result<()> {
    let path = Path::new("/dev").join(&node.name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let kind = if node.block {
        FileType::BlockDevice
    } else {
        FileType::CharacterDevice
    };
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(0o600), device) {
        // Built into this kernel.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
