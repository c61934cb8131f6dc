//! Terminals: the agent keeps the master's side, the session opens the other one inside the environment.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use sprite_agent_api::message::TtySize;

use crate::sys;
use crate::walls::Walls;

// Source: ioctl_tty(2).
const TIOCSPTLCK: libc::Ioctl = 0x4004_5431;
const TIOCGPTN: libc::Ioctl = 0x8004_5430;

/// A new terminal: its master's side, and its number under `/dev/pts`.
pub(crate) fn open(walls: Walls, size: TtySize) -> io::Result<(OwnedFd, u32)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    // Owned by the environment's root at first, who then gives it to the session's user.
    let root = walls.environment_root();
    sys::file_identity(root, root);
    let master = rustix::fs::open("/dev/pts/ptmx", flags, Mode::empty());
    sys::file_identity(0, 0);
    let master = master?;
    let mut number: libc::c_uint = 0;
    let unlocked: libc::c_int = 0;
    // SAFETY: both requests read or write one int, which lives over the call.
    let done = unsafe {
        libc::ioctl(master.as_raw_fd(), TIOCSPTLCK, &raw const unlocked) == 0
            && libc::ioctl(master.as_raw_fd(), TIOCGPTN, &raw mut number) == 0
    };
    if !done {
        return Err(io::Error::last_os_error());
    }
    resize(&master, size)?;
    Ok((master, number))
}

/// The process group in the terminal's foreground, if it has one. Source: tcgetpgrp(3).
pub(crate) fn foreground(master: impl AsFd) -> Option<i32> {
    let group = rustix::termios::tcgetpgrp(master).ok()?;
    Some(group.as_raw_nonzero().get())
}

/// Tells the terminal, and so its foreground processes, another size.
pub(crate) fn resize(master: impl AsFd, size: TtySize) -> io::Result<()> {
    let size = rustix::termios::Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(master, size)?)
}
