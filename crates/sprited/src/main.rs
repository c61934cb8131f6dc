//! `sprited`: the self-hosted server of sprites. Wiring and configuration; what it does stands in the crates
//! below it.

mod cli;
mod config;
mod data_dir;
mod disks;
mod doctor;
mod drivers;
mod failure;
mod guest;
mod image;
mod listen;
mod programs;
mod progress;
mod purge;
mod serve;
mod token;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Arguments, Command, GuestCommand, ImageCommand, TokenCommand};
use crate::failure::Failure;

/// Every request makes and drops a hundred small pieces, which this does in half the time of the C library's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let well = |()| ExitCode::SUCCESS;
    let done = match arguments.command {
        Command::Serve(flags) => with_runtime(|| serve::serve(flags)).map(well),
        Command::Token(TokenCommand::Create(flags)) => {
            with_runtime(|| token::create(flags)).map(well)
        }
        Command::Token(TokenCommand::List(flags)) => with_runtime(|| token::list(flags)).map(well),
        Command::Token(TokenCommand::Revoke(flags)) => {
            with_runtime(|| token::revoke(flags)).map(well)
        }
        Command::Image(ImageCommand::Build(flags)) => image::build(&flags).map(well),
        Command::Image(ImageCommand::List(flags)) => image::list(&flags).map(well),
        Command::Guest(GuestCommand::Update(flags)) => guest::update(&flags).map(well),
        Command::Doctor(flags) => with_runtime(|| doctor::doctor(flags)),
        Command::Purge(flags) => with_runtime(|| purge::purge(flags)).map(well),
    };
    match done {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn with_runtime<T, F: Future<Output = Result<T, Failure>>>(
    work: impl FnOnce() -> F,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new("start the runtime", &error))?;
    runtime.block_on(work())
}
