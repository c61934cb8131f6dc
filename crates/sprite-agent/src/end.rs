//! The machine's end, which is the end of the agent.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::mount::UnmountFlags;

use crate::log::say;
use crate::walls::Walls;

/// Where the agent sees the environment's disk.
pub(crate) const DISK: &str = "/env";

/// Ends the machine. Whoever calls it said why.
pub(crate) fn machine(walls: Walls, status: i32) -> ! {
    match walls {
        // Nothing of a machine outlives the first process of its namespace.
        Walls::Container { .. } => std::process::exit(status),
        Walls::Guest => guest(),
    }
}

/// Ends the guest: what was written goes to the disk, then the machine is reset.
pub(crate) fn guest() -> ! {
    rustix::fs::sync();
    // The monitor takes a reset for the end. Source: reboot(2).
    if let Err(error) = rustix::system::reboot(rustix::system::RebootCommand::Restart) {
        say(format_args!("reset the machine: {error}"));
    }
    // The kernel panics when its first process ends, and resets the machine after that.
    std::process::exit(1)
}

/// Writes all of the environment's disk.
pub(crate) fn sync_disk() -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(DISK)?)?)
}

/// Lets go of the disk after the last process of the environment: nobody writes to it any more. In a container it
/// goes with the agent.
pub(crate) fn leave_disk(walls: Walls) {
    match walls {
        Walls::Container { .. } => {}
        Walls::Guest => {
            let disk = Path::new(DISK);
            if let Err(error) = rustix::mount::unmount(disk, UnmountFlags::empty()) {
                // All was written before; the journal says so when it is mounted next.
                say(format_args!("unmount the disk: {error}"));
            }
        }
    }
}
