//! Letting the host forward packets: per interface, and given back.
//!
//! An IPv4 packet is forwarded if the interface *by which it comes in* says so. So the uplinks need it (for
//! the answers) and the slots' interfaces (for the questions), and the host's global switch, which turns every
//! interface into a router's, stays as it is.
//!
//! Whoever switches an uplink on says so in [`DIRECTORY`]: a directory for each interface that was off, in it
//! an empty file for each instance that needs it. The last instance to leave switches it off again, unless the
//! global switch was turned on meanwhile: then someone else counts on it. All of this is in `/run`, which is
//! as transient as the switches. Callers hold the host's lock.
//!
//! Source: `IN_DEV_FORWARD` in `net/ipv4/route.c`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sprite_types::InstanceId;

const DIRECTORY: &str = "/run/sprited-net/forwarding";
const GLOBAL: &str = "/proc/sys/net/ipv4/ip_forward";

fn switch(link: &str) -> PathBuf {
    // Not `sysctl` syntax, so that a dot in an interface's name is only a dot.
    Path::new("/proc/sys/net/ipv4/conf")
        .join(link)
        .join("forwarding")
}

fn is_on(path: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(path)?.trim() != "0")
}

/// Lets what comes in by `link` be forwarded.
///
/// # Crash safety
/// The mark is set before the switch; a mark without a switch is made good by the next call, or removed by
/// [`forget`].
pub(crate) fn allow(link: &str, instance: &InstanceId) -> io::Result<()> {
    let mark = Path::new(DIRECTORY).join(link);
    let on = is_on(&switch(link))?;
    if on && !mark.exists() {
        return Ok(());
    }
    fs::create_dir_all(&mark)?;
    fs::write(mark.join(instance.as_str()), "")?;
    if !on {
        fs::write(switch(link), "1")?;
        tracing::info!(link, "forwarding of this interface is switched on");
    }
    Ok(())
}

/// Takes the instance's marks away, and switches off what no other instance needs and was off before.
pub(crate) fn forget(instance: &InstanceId) -> io::Result<()> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let mark = entry?.path();
        match fs::remove_file(mark.join(instance.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        }
        if fs::read_dir(&mark)?.next().is_some() {
            continue;
        }
        let link = mark
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // Off first: a crash in between leaves an empty directory, which the next instance takes for its own.
        if !is_on(Path::new(GLOBAL))? {
            match fs::write(switch(&link), "0") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        fs::remove_dir(&mark)?;
    }
    Ok(())
}
