//! `sprited`: the self-hosted server of sprites. Wiring and configuration; what it does stands in the crates
//! below it.

mod agent_program;
mod cli;
mod config;
mod data_dir;
mod disks;
mod failure;
mod image;
mod progress;
mod purge;
mod serve;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command, ImageCommand, TokenCommand};
use crate::failure::Failure;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Serve(flags) => with_runtime(|| serve::serve(flags)),
        Command::Token(TokenCommand::Create(flags)) => with_runtime(|| token::create(flags)),
        Command::Token(TokenCommand::List(flags)) => with_runtime(|| token::list(flags)),
        Command::Token(TokenCommand::Revoke(flags)) => with_runtime(|| token::revoke(flags)),
        Command::Image(ImageCommand::Build(flags)) => image::build(&flags),
        Command::Image(ImageCommand::List(flags)) => image::list(&flags),
        Command::Purge(flags) => with_runtime(|| purge::purge(flags)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn with_runtime<F: Future<Output = Result<(), Failure>>>(
    work: impl FnOnce() -> F,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("start the runtime", &error))?;
    runtime.block_on(work())
}
