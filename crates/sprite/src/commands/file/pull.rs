//! `sprite file pull`: files from a sprite to here.
//!
//! What a sprite says is not believed: no name of it leads out of the directory that was asked for, and links are
//! made when all files are there, so that no file is written through one.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use sprite_client::{Entry, EntryKind, Fs};
use tokio::io::AsyncReadExt;
use uuid::Uuid;

use super::progress::Progress;
use super::{AT_ONCE, Remote, Where, name_of};
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Bytes read and written at once.
const PIECE: usize = 128 << 10;

/// Copy a file or directory out of a sprite
///
/// A file goes to LOCAL, or into it if it is a directory. What a directory holds goes into LOCAL. Every file takes its
/// place when all of it has come.
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
    let progress = match Remote::look(&fs, &args.remote, context).await? {
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
            progress
        }
        Remote::Directory => tree(&fs, args, context).await?,
    };
    progress.finish();
    let (remote, local) = (&args.remote, args.local.display());
    show::note(&format!(
        "copied {remote} to {local} ({} bytes)",
        progress.bytes()
    ));
    Ok(0)
}

async fn tree(fs: &Fs, args: &Args, context: &Context) -> Result<Progress, Failure> {
    let mut entries = fs
        .list_all(&args.remote)
        .await
        .map_err(|error| context.failure(&error))?;
    let mut found: Vec<(PathBuf, Entry)> = Vec::new();
    let mut top = None;
    while let Some(entry) = entries
        .next()
        .await
        .map_err(|error| context.failure(&error))?
    {
        if top.is_none() {
            top = entries.path().map(str::to_owned);
        }
        if let Some(error) = &entry.error {
            return Err(
                Failure::new(format!("cannot list {}: {error}", show::plain(&entry.path)))
                    .hint("add --root to read it as root of the sprite"),
            );
        }
        let below = below(top.as_deref().unwrap_or("/"), &entry.path)?;
        found.push((args.local.join(below), entry));
    }
    fs::create_dir_all(&args.local).map_err(unwritable(&args.local))?;
    for (local, _) in found
        .iter()
        .filter(|(_, entry)| entry.kind == EntryKind::Directory)
    {
        fs::create_dir_all(local).map_err(unwritable(local))?;
    }
    let files = found
        .iter()
        .filter(|(_, entry)| entry.kind == EntryKind::File);
    let progress = Progress::new(Some(files.clone().map(|(_, entry)| entry.size).sum()));
    let all = stream::iter(files.clone())
        .map(|(local, entry)| fetch(fs, &entry.path, local, entry.mode(), &progress, context));
    all.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    for (local, entry) in &found {
        match (entry.kind, &entry.target) {
            (EntryKind::File | EntryKind::Directory, _) => {}
            (EntryKind::Symlink, Some(target)) => link(target, local)?,
            _ => show::note(&format!("left out {}", show::plain(&entry.path))),
        }
    }
    Ok(progress)
}

/// The part of a path below the directory that was listed.
fn below(top: &str, path: &str) -> Result<PathBuf, Failure> {
    let rest = path.strip_prefix(top.trim_end_matches('/'));
    let rest = rest.and_then(|rest| rest.strip_prefix('/')).map(Path::new);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    match rest {
        Some(rest) if !rest.as_os_str().is_empty() && rest.components().all(plain) => {
            Ok(rest.to_owned())
        }
        Some(_) | None => Err(Failure::new(format!(
            "the sprite lists {} below {}",
            show::plain(path),
            show::plain(top)
        ))),
    }
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

fn link(target: &str, local: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(local) {
        Ok(there) if there.is_symlink() => fs::remove_file(local).map_err(unwritable(local))?,
        Ok(_) => {
            return Err(Failure::new(format!(
                "{} is in the way of a link",
                local.display()
            )));
        }
        Err(_) => {}
    }
    symlink(target, local).map_err(unwritable(local))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_directory() {
        for (top, path, expected) in [
            ("/srv", "/srv/a/b", Some("a/b")),
            ("/", "/a", Some("a")),
            ("/srv", "/srv", None),
            ("/srv", "/srv/", None),
            ("/srv", "/srvx/a", None),
            ("/srv", "/srv/../etc/passwd", None),
            ("/srv", "/srv/a/../../b", None),
            ("/srv", "/srv//etc/passwd", None),
            ("/srv", "/etc/passwd", None),
        ] {
            let found = below(top, path).ok();
            assert_eq!(found.as_deref(), expected.map(Path::new), "{path}");
        }
    }
}
