//! `sprite completion`: what a shell needs to complete our commands.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::show;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite completion bash > ~/.local/share/bash-completion/completions/sprite
  sprite completion zsh > ~/.zfunc/_sprite
  sprite completion fish > ~/.config/fish/completions/sprite.fish")]
pub(crate) struct Args {
    /// Shell to print them for
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let mut text = Vec::new();
    generate(args.shell, &mut Cli::command(), "sprite", &mut text);
    show::data(&String::from_utf8_lossy(&text))?;
    Ok(0)
}
