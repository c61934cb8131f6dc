//! `/.sprite`: what an environment is told about itself, and its way to speak with the host.
//!
//! ```text
//! /.sprite/api.sock         the socket of the API inside; the host answers, this program is a pipe
//! /.sprite/bin/             sprite-env and sprite-browser: this very program by other names
//! /.sprite/docs/, llm.txt   where a person or an agent finds itself, and what can be done here
//! /.sprite/logs/            on the sprite's disk; the only part of all this that can be written
//! /.sprite/policy/          the network policy as it is now, if there is one
//! /.sprite/version.txt      the version of the environment
//! ```
//! It is a file system in memory of the agent's own, made before the environment is, and shows inside as a mount
//! that can only be read. So nothing inside can forge what another process reads there, and the agent can change it
//! at any time.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use sprite_types::RUNTIME_VERSION;

use crate::launch::{attach, clone_mount, pseudo};
use crate::step::{Step, StepError};
use crate::sys;
use crate::walls::Walls;

/// Where it is, for the agent and for the environment. The launcher and the guest's start make the directory.
pub(crate) const PATH: &str = "/.sprite";

/// Files with what they say.
const TEXTS: [(&str, &str); 4] = [
    ("llm.txt", include_str!("text/llm.txt")),
    (
        "docs/agent-context.md",
        include_str!("text/agent-context.md"),
    ),
    ("docs/api.md", include_str!("text/api.md")),
    ("docs/lifecycle.md", include_str!("text/lifecycle.md")),
];

/// Builds all of it; the socket that listens comes back.
pub(crate) fn build(walls: Walls) -> Result<UnixListener, StepError> {
    let options = [("mode", "755"), ("size", "16m"), ("nr_inodes", "64")];
    let attributes = sys::MOUNT_ATTR_NOSUID | sys::MOUNT_ATTR_NODEV;
    let memory = pseudo("tmpfs", &options, attributes).step("make /.sprite")?;
    let home = Path::new(PATH);
    attach(&memory, home).step("attach /.sprite")?;
    for name in ["bin", "docs", "logs", "policy"] {
        fs::create_dir(home.join(name)).step("make the directories of /.sprite")?;
    }
    for (name, text) in TEXTS {
        write(name, text)?;
    }
    write("version.txt", &format!("{RUNTIME_VERSION}\n"))?;
    let program = home.join("bin/sprite-env");
    show_program(walls, &program)?;
    std::os::unix::fs::symlink("sprite-env", home.join("bin/sprite-browser"))
        .step("name sprite-browser")?;
    let socket = home.join("api.sock");
    let listener = UnixListener::bind(&socket).step("listen on /.sprite/api.sock")?;
    fs::set_permissions(&socket, Permissions::from_mode(0o666))
        .step("open /.sprite/api.sock to everybody")?;
    Ok(listener)
}

/// Shows the agent's program. The file that the container driver lays down belongs to all machines of the host: what
/// one sprite does to it (locks, watches, when its pages are read) could be seen by another. So each has a copy.
fn show_program(walls: Walls, place: &Path) -> Result<(), StepError> {
    let agent = Path::new("/agent");
    match walls {
        Walls::Container { .. } => fs::copy(agent, place).map(drop).step("copy sprite-env"),
        Walls::Guest => {
            File::create(place).step("make a place for sprite-env")?;
            let agent = clone_mount(agent).step("find the agent's program")?;
            attach(&agent, place).step("attach sprite-env")
        }
    }
}

/// Shows the network policy; an empty text says that there is none. Readers see the one before or this one, whole.
pub(crate) fn show_network_policy(text: &str) -> std::io::Result<()> {
    let shown = Path::new(PATH).join("policy/network.json");
    if text.is_empty() {
        return match fs::remove_file(shown) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let fresh = shown.with_extension("new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, &shown)
}

fn write(name: &str, text: &str) -> Result<(), StepError> {
    fs::write(Path::new(PATH).join(name), text).step(&format!("write {PATH}/{name}"))
}
