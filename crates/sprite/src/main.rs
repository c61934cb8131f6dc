//! `sprite`: the command line of sprites.
//!
//! One file per command under `commands/`. Data goes to standard output, everything else to standard error; a
//! failure ends in a hint. Exit codes: 0; 1 for a failure; 2 for a command line that makes no sense; what a
//! command in a sprite ended with, 128 + n for signal n.

mod attend;
mod browser;
mod cli;
mod commands;
mod config;
mod context;
mod failure;
mod forward;
mod holder;
mod show;
mod stream;

use std::io::Write as _;

use clap::Parser;

fn main() {
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let code = match runtime {
        Ok(runtime) => match runtime.block_on(commands::run(cli)) {
            Ok(code) => code,
            Err(failure) => {
                show::note(&failure.to_string());
                failure.code()
            }
        },
        Err(error) => {
            show::note(&failure::Failure::caused("cannot start", &error).to_string());
            1
        }
    };
    let _ = std::io::stdout().flush();
    // Not by returning: the thread that reads standard input may be waiting for keys and cannot be joined.
    std::process::exit(i32::from(code));
}
