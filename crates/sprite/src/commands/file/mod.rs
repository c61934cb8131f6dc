//! `sprite file`: files between here and a sprite.

mod edit;
mod progress;
mod pull;
mod push;

use clap::Subcommand;
use sprite_client::{Entry, EntryKind, Fs};

use crate::context::Context;
use crate::failure::Failure;

/// Files on their way at once: enough that a slow line is full, few enough that a sprite does other things too.
const AT_ONCE: usize = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: FileCommand,
}

#[derive(Debug, Subcommand)]
enum FileCommand {
    Push(push::Args),
    Pull(pull::Args),
    Edit(edit::Args),
}

/// What all of them are told.
#[derive(Debug, clap::Args)]
struct Where {
    /// As root of the sprite
    #[arg(long)]
    root: bool,
}

impl Where {
    fn fs(&self, context: &Context) -> Result<Fs, Failure> {
        let fs = context.sprite(None)?.fs();
        Ok(if self.root { fs.as_root() } else { fs })
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    match args.command {
        FileCommand::Push(args) => push::run(&args, context).await,
        FileCommand::Pull(args) => pull::run(&args, context).await,
        FileCommand::Edit(args) => edit::run(&args, context).await,
    }
}

/// What a path in a sprite is.
enum Remote {
    Nothing,
    File(Entry),
    Directory,
}

impl Remote {
    async fn look(fs: &Fs, path: &str, context: &Context) -> Result<Self, Failure> {
        let mut entries = match fs.list(path).await {
            Ok(entries) => entries,
            Err(error)
                if error
                    .refusal()
                    .is_some_and(|r| r.file_code.as_deref() == Some("ENOENT")) =>
            {
                return Ok(Self::Nothing);
            }
            Err(error) => return Err(context.failure(&error)),
        };
        let first = entries
            .next()
            .await
            .map_err(|error| context.failure(&error))?;
        // A file lists itself, and a directory what it holds.
        Ok(match first {
            Some(entry)
                if entry.kind != EntryKind::Directory && entries.path() == Some(&entry.path) =>
            {
                Self::File(entry)
            }
            Some(_) | None => Self::Directory,
        })
    }
}

/// The last name of a path in a sprite.
fn name_of(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

fn join(directory: &str, name: &str) -> String {
    format!("{}/{name}", directory.trim_end_matches('/'))
}
