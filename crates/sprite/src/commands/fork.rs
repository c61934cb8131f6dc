//! `sprite fork`: make another sprite with the same disk.

use crate::context::Context;
use crate::failure::Failure;

use super::create;

/// Make another sprite with the same disk
///
/// Everything that was written before is in it; the sprite runs on meanwhile, or sleeps on. Environment variables,
/// services and policies are taken over too; checkpoints, labels and domains are not. The name is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite fork experiment
  sprite fork experiment --checkpoint v1 --label team-a
  sprite fork -s my-sprite experiment --json | jq -r .url")]
pub(crate) struct Args {
    /// Name of the new sprite: 1 to 56 characters of a-z, 0-9 and '-'
    new: String,
    /// Checkpoint to begin with [default: the disk as it is now]
    #[arg(long, value_name = "ID")]
    checkpoint: Option<String>,
    /// Label to put on it (repeat for more)
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let mut fork = sprite.fork(args.new);
    if let Some(id) = &args.checkpoint {
        fork = fork.fork_of_checkpoint(sprite.name(), id);
    }
    for label in args.label {
        fork = fork.label(label);
    }
    let made = create::make(fork).await.map_err(|error| {
        let failure = context.failure(&error);
        // The request names no checkpoint in its path: only here it is known that one was asked for.
        if args.checkpoint.is_some() && error.is_not_found() {
            let name = sprite.name();
            return failure.hint(format!(
                "see which there are: sprite checkpoint list --include-auto -s {name}"
            ));
        }
        failure
    })?;
    create::print(&made, context)
}
