//! The agent of a machine.
//!
//! One program, several roles, chosen by its first argument:
//!
//! | role | runs as | does |
//! |---|---|---|
//! | `launch` | root of the host (container driver) | builds the machine's walls, then becomes `run` inside them |
//! | `run` | root of the machine | accepts the host's streams, keeps sessions and their output |
//! | `spawn` | root of the machine, in the environment's cgroups | builds the environment, starts its processes |
//!
//! The environment's own first process and every session's process are forks of `spawn`. None of the roles
//! can be seen from inside the environment: they live in a process namespace above it, and in a user
//! namespace whose ids the environment cannot name.

mod agent;
mod confine;
mod environment;
mod filter;
mod identity;
mod journal;
mod kill;
mod launch;
mod log;
mod loop_device;
mod operation;
mod passwd;
mod process;
mod session;
mod sessions;
mod spawn;
mod step;
mod sys;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    let role = std::env::args().nth(1);
    let ended = match role.as_deref() {
        Some("launch") => launch::main(),
        Some("run") => agent::main(),
        Some("spawn") => spawn::main(),
        Some("--version") => {
            println!("sprite-agent {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Some(_) | None => {
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
