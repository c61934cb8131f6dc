//! The files that say who this sprite is, and where its mounts are told.
//!
//! Written by the environment's first process, inside its own walls as its own root: whatever the paths lead to
//! is the sprite's. It is the sprite's as well what lies at these paths, so that anything may: what is not a file
//! is replaced if that is simple, and else left as it is. A start does not fail for it, since only a sprite that
//! starts can be mended from inside.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sprite_agent_api::message::EnvironmentSpec;

use crate::log::say;
use crate::passwd::read_bounded;

/// Writes those files that do not say it already.
pub(crate) fn write(spec: &EnvironmentSpec) {
    let name = &spec.hostname;
    let servers: String = spec
        .nameservers
        .iter()
        .map(|ip| format!("nameserver {ip}\n"))
        .collect();
    let hosts = format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost ip6-loopback\n"
    );
    let files = [
        ("hostname", format!("{name}\n")),
        ("hosts", hosts),
        ("resolv.conf", servers),
    ];
    for (file, text) in files {
        let path = Path::new("/etc").join(file);
        if read_bounded(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if let Err(error) = replace(&path, &text) {
            say(format_args!("write /etc/{file}: {error}"));
        }
    }
    write_profile();
    // Programs that mount look here; a distribution's own start makes it. Source: mount(8), "FILES".
    match std::os::unix::fs::symlink("../proc/self/mounts", "/etc/mtab") {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            say(format_args!("link /etc/mtab: {error}"));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Shells that begin a login set another PATH, and read what lies here behind that.
const PROFILE: &str = "# Written at every start of the sprite.\n\
    case \":$PATH:\" in *:/.sprite/bin:*) ;; *) PATH=\"$PATH:/.sprite/bin\" ;; esac\n";

fn write_profile() {
    let path = Path::new("/etc/profile.d/sprite.sh");
    // An image without the directory has no shell that reads it.
    if !path.parent().is_some_and(Path::is_dir)
        || read_bounded(path).is_ok_and(|old| old == PROFILE)
    {
        return;
    }
    if let Err(error) = replace(path, PROFILE) {
        say(format_args!("write {}: {error}", path.display()));
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all("/etc")?;
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // New, so that it is a file: nothing of the sprite runs yet that could put something else in between.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o644);
    options.open(path)?.write_all(text.as_bytes())
}
