//! `sprite file pull`: files from a sprite to here.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sprite_client::{Copied, Fs};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::progress::Progress;
use super::{Remote, Where, failure, hear, name_of, tell};
use crate::context::Context;
use crate::failure::Failure;

/// Bytes read and written at once.
const PIECE: usize = 128 << 10;

/// Copy a file or directory out of a sprite
///
/// A file goes to LOCAL, or into it if it is a directory. What a directory holds goes into LOCAL, as one stream: with
/// modes, times and links. Every file takes its place when all of it has come. Nothing that the sprite sends reaches
/// anything outside of LOCAL.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File or directory in the sprite, absolute or below /home/sprite
    remote: String,
    /// Its place here
    local: PathBuf,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let fs = args.place.fs(context)?;
    let copied = match Remote::look(&fs, &args.remote, context).await? {
        Remote::Nothing => {
            return Err(Failure::new(format!(
                "there is no {} in the sprite",
                args.remote
            )));
        }
        Remote::File(entry) => {
            let progress = Progress::new(Some(entry.size));
            let local = if args.local.is_dir() {
                args.local.join(safe_name(name_of(&args.remote))?)
            } else {
                args.local.clone()
            };
            fetch(&fs, &args.remote, &local, entry.mode(), &progress, context).await?;
            progress.finish();
            Copied {
                files: 1,
                bytes: progress.bytes(),
                ..Copied::default()
            }
        }
        Remote::Directory => {
            let progress = Progress::new(None);
            let pull = fs.pull_dir(&args.remote, &args.local);
            let copied = pull.on_progress(hear(&progress)).receive().await;
            progress.finish();
            copied.map_err(|error| failure(&error, context))?
        }
    };
    let shown = args.local.display().to_string();
    tell(&copied, &args.remote, &shown, context)?;
    Ok(0)
}

fn safe_name(name: &str) -> Result<&str, Failure> {
    match name {
        "" | "." | ".." => Err(Failure::usage(format!(
            "{name:?} is not the name of a file"
        ))),
        name => Ok(name),
    }
}

fn unwritable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::caused(format!("cannot write {path}"), &error)
}

/// Copies one file: beside its place first.
pub(super) async fn fetch(
    fs: &Fs,
    remote: &str,
    local: &Path,
    mode: u32,
    progress: &Progress,
    context: &Context,
) -> Result<(), Failure> {
    progress.at(remote);
    let mut reader = fs
        .open(remote)
        .await
        .map_err(|error| context.failure(&error))?;
    let part = local.with_file_name(format!(".sprite-pull-{}", Uuid::new_v4()));
    let fetched = async {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)
            .map_err(unwritable(&part))?;
        let mut piece = vec![0; PIECE];
        loop {
            let read = reader.read(&mut piece).await;
            let read = read
                .map_err(|error| Failure::caused(format!("cannot read all of {remote}"), &error))?;
            if read == 0 {
                break;
            }
            file.write_all(&piece[..read]).map_err(unwritable(&part))?;
            progress.moved(read as u64);
        }
        let permissions = fs::Permissions::from_mode(mode & 0o777);
        file.set_permissions(permissions)
            .map_err(unwritable(&part))?;
        fs::rename(&part, local).map_err(unwritable(local))
    };
    let fetched = fetched.await;
    if fetched.is_err() {
        // What failed is told already.
        let _ = fs::remove_file(&part);
    }
    fetched
}
