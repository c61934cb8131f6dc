//! `sprite file push`: files from here into a sprite.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use sprite_client::{Copied, Fs};
use tokio::io::{AsyncRead, ReadBuf};

use super::progress::Progress;
use super::{Remote, Where, failure, hear, join, tell};
use crate::context::Context;
use crate::failure::Failure;

/// Copy a file or directory into a sprite
///
/// A file goes to REMOTE, or into it if it is a directory or ends in '/'. What a directory holds goes into REMOTE, as
/// one stream: with modes, times and links, which are not followed. Every file takes its place at once, when all of it
/// is there; the command ends when all is on the sprite's disk.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File or directory here
    local: PathBuf,
    /// Its place in the sprite, absolute or below /home/sprite
    remote: String,
    #[command(flatten)]
    place: Where,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let fs = args.place.fs(context)?;
    let metadata = fs::metadata(&args.local).map_err(unreadable(&args.local))?;
    let copied = if metadata.is_dir() {
        let progress = Progress::new(None);
        let push = fs.push_dir(&args.local, &args.remote);
        let copied = push.on_progress(hear(&progress)).send().await;
        progress.finish();
        copied.map_err(|error| failure(&error, context))?
    } else {
        file(&fs, args, &metadata, context).await?
    };
    let shown = args.local.display().to_string();
    tell(&copied, &shown, &args.remote, context)?;
    Ok(0)
}

async fn file(
    fs: &Fs,
    args: &Args,
    metadata: &fs::Metadata,
    context: &Context,
) -> Result<Copied, Failure> {
    let name = args.local.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| Failure::usage(format!("{} has no name", args.local.display())))?;
    if !metadata.is_file() {
        return Err(Failure::usage(format!(
            "{} is neither a file nor a directory",
            args.local.display()
        )));
    }
    let into = args.remote.ends_with('/')
        || matches!(
            Remote::look(fs, &args.remote, context).await?,
            Remote::Directory
        );
    let remote = if into {
        join(&args.remote, name)
    } else {
        args.remote.clone()
    };
    let progress = Progress::new(Some(metadata.len()));
    progress.at(&remote);
    let opened = tokio::fs::File::open(&args.local).await;
    let reader = Counted {
        inner: opened.map_err(unreadable(&args.local))?,
        progress: progress.clone(),
    };
    let write = fs
        .write_file(&remote)
        .mode(metadata.permissions().mode() & 0o777);
    let written = write.from(reader).await;
    progress.finish();
    let written = written.map_err(|error| context.failure(&error))?;
    Ok(Copied {
        files: 1,
        bytes: written.size,
        ..Copied::default()
    })
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::caused(format!("cannot read {path}"), &error)
}

struct Counted<R> {
    inner: R,
    progress: Progress,
}

impl<R: AsyncRead + Unpin> AsyncRead for Counted<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.progress.moved((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}
