//! `sprite file`: files between here and a sprite.

mod edit;
mod progress;
mod pull;
mod push;
mod watch;

use clap::Subcommand;
use sprite_client::{Copied, Entry, EntryKind, Fs, Moved, TransferError};

use self::progress::Progress;
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

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
    Watch(watch::Args),
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
        FileCommand::Watch(args) => watch::run(&args, context).await,
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

/// Tells what was copied: for people, or as JSON for programs.
fn tell(copied: &Copied, from: &str, to: &str, context: &Context) -> Result<(), Failure> {
    if context.global.json {
        let value = serde_json::to_value(copied);
        return show::json(&value.expect("numbers are JSON"));
    }
    let files = match copied.files {
        1 => "1 file".to_owned(),
        files => format!("{files} files"),
    };
    show::note(&format!(
        "copied {from} to {to} ({files}, {} bytes)",
        copied.bytes
    ));
    Ok(())
}

/// What is told while a directory is copied.
fn hear(progress: &Progress) -> impl Fn(Moved) + Send + Sync + 'static {
    let progress = progress.clone();
    move |moved| match moved {
        Moved::Bytes(bytes) => progress.moved(bytes),
        Moved::Entry(name) => progress.at(&name),
        Moved::LeftOut(path) => progress.note(&format!("left out {}", show::plain(&path))),
        Moved::Padded(path) => progress.note(&format!(
            "{} got shorter while it was read: the copy ends in zeroes",
            show::plain(&path)
        )),
        _later => {}
    }
}

/// Puts into words why a directory was not copied.
fn failure(error: &TransferError, context: &Context) -> Failure {
    match error {
        TransferError::Call(error) => context.failure(error),
        TransferError::Here { step, path, source } => {
            let path = path.display().to_string();
            Failure::caused(format!("cannot {step} {}", show::plain(&path)), source)
        }
        TransferError::There(why) => {
            Failure::new(format!("the sprite cannot go on: {}", show::plain(why)))
                .hint("add --root to read it as root of the sprite")
        }
        other => Failure::new(show::plain(&other.to_string())),
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
