//! The agent of a machine.
//!
//! One program, several roles, chosen by its first argument, or by its name where the kernel starts it:
//!
//! | role | runs as | does |
//! |---|---|---|
//! | `launch` | root of the host (container driver) | builds the machine's walls, then becomes `run` inside them |
//! | `jail` | root of the host (microvm driver) | builds the walls around a monitor, then becomes it |
//! | `/init` | the first process of a guest (microvm driver) | builds the guest, then becomes `run` |
//! | `run` | root of the machine | accepts the host's streams, keeps sessions and their output |
//! | `spawn` | root of the machine, in the environment's cgroups | builds the environment, starts its processes |
//! | `modprobe` | root of a guest | loads the module that the kernel asks for |
//! | `sprite-env`, `sprite-browser` | anybody in the environment | speaks with the host by the environment's socket |
//!
//! The environment's own first process, the process that handles files and every session's are forks of `spawn`. None of the roles
//! that build or serve can be seen from inside the environment: they live in a process namespace above it, and in a container also in
//! a user namespace whose ids the environment cannot name.

mod agent;
mod calls;
mod confine;
mod connect;
mod dot_sprite;
mod end;
mod environment;
mod files;
mod filter;
mod identity;
mod init;
mod jail;
mod journal;
mod kill;
mod launch;
mod log;
mod loop_device;
mod modules;
mod operation;
mod passwd;
mod policy;
mod ports;
mod process;
mod randomness;
mod screen;
mod services;
mod session;
mod sessions;
mod spawn;
mod sprite_env;
mod step;
mod sys;
mod terminal;
mod vsock;
mod walls;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some(sprite_env::NAME) => return sprite_env::main(),
        Some(sprite_env::BROWSER) => return sprite_env::browser(),
        Some(_) | None => {}
    }
    let ended = match (name.as_str(), arguments.next().as_deref()) {
        ("/init", _) if std::process::id() == 1 => init::main(),
        ("/sbin/modprobe", _) => modules::modprobe(),
        (_, Some("launch")) => launch::main(),
        (_, Some("jail")) => jail::main(),
        (_, Some("run")) => agent::main(),
        (_, Some("spawn")) => spawn::main(),
        (_, Some("--version")) => {
            println!("sprite-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        (_, Some(_) | None) => {
            eprintln!("sprite-agent is started by sprited inside a machine, not by hand");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            log::say(failure);
            ExitCode::FAILURE
        }
    }
}
