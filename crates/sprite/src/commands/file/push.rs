//! `sprite file push`: files from here into a sprite.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use futures_util::{StreamExt, TryStreamExt, stream};
use sprite_client::Fs;
use tokio::io::{AsyncRead, ReadBuf};

use super::progress::Progress;
use super::{AT_ONCE, Remote, Where, join};
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Copy a file or directory into a sprite
///
/// A file goes to REMOTE, or into it if it is a directory or ends in '/'. What a directory holds goes into REMOTE.
/// Every file takes its place at once, when all of it is on the sprite's disk. Links to files are followed, links to
/// directories are left out.
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
    let plan = if metadata.is_dir() {
        Plan::of_directory(&args.local, &args.remote)?
    } else {
        let name = args.local.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| Failure::usage(format!("{} has no name", args.local.display())))?;
        let into = args.remote.ends_with('/')
            || matches!(
                Remote::look(&fs, &args.remote, context).await?,
                Remote::Directory
            );
        let remote = if into {
            join(&args.remote, name)
        } else {
            args.remote.clone()
        };
        Plan::of_file(&args.local, remote, &metadata)?
    };
    let progress = Progress::new(Some(plan.bytes));
    let (files, bytes) = (plan.files.len(), plan.bytes);
    let directories = stream::iter(plan.empty).map(Ok);
    directories
        .try_for_each_concurrent(AT_ONCE, |directory| make(&fs, directory, context))
        .await?;
    let sent = stream::iter(plan.files).map(|file| send(&fs, file, &progress, context));
    sent.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    progress.finish();
    let shown = args.local.display();
    let files = if files == 1 {
        "1 file".to_owned()
    } else {
        format!("{files} files")
    };
    show::note(&format!(
        "copied {shown} to {} ({files}, {bytes} bytes)",
        args.remote
    ));
    Ok(0)
}

struct File {
    local: PathBuf,
    remote: String,
    mode: u32,
}

/// What is to be sent.
#[derive(Default)]
struct Plan {
    files: Vec<File>,
    /// Directories that hold no file, which nothing else would make.
    empty: Vec<String>,
    bytes: u64,
}

impl Plan {
    fn of_file(local: &Path, remote: String, metadata: &Metadata) -> Result<Self, Failure> {
        let mut plan = Self::default();
        if !metadata.is_file() {
            return Err(Failure::usage(format!(
                "{} is neither a file nor a directory",
                local.display()
            )));
        }
        plan.add(local.to_owned(), remote, metadata);
        Ok(plan)
    }

    fn add(&mut self, local: PathBuf, remote: String, metadata: &Metadata) {
        self.bytes += metadata.len();
        self.files.push(File {
            local,
            remote,
            mode: metadata.permissions().mode() & 0o777,
        });
    }

    fn of_directory(local: &Path, remote: &str) -> Result<Self, Failure> {
        let mut plan = Self::default();
        let mut left = vec![(local.to_owned(), remote.to_owned())];
        while let Some((directory, remote)) = left.pop() {
            let mut any = false;
            for entry in fs::read_dir(&directory).map_err(unreadable(&directory))? {
                let entry = entry.map_err(unreadable(&directory))?;
                let path = entry.path();
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(|| {
                    Failure::new(format!(
                        "cannot send {}: its name is not UTF-8",
                        path.display()
                    ))
                })?;
                let remote = join(&remote, name);
                let kind = entry.file_type().map_err(unreadable(&path))?;
                if kind.is_dir() {
                    left.push((path, remote));
                    any = true;
                    continue;
                }
                match fs::metadata(&path) {
                    Ok(metadata) if metadata.is_file() => {
                        plan.add(path, remote, &metadata);
                        any = true;
                    }
                    // Pipes, sockets, links to directories and links to nothing.
                    Ok(_) | Err(_) => show::note(&format!("left out {}", path.display())),
                }
            }
            if !any {
                plan.empty.push(remote);
            }
        }
        Ok(plan)
    }
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::caused(format!("cannot read {path}"), &error)
}

/// Makes a directory, by a file in it that does not stay.
async fn make(fs: &Fs, directory: String, context: &Context) -> Result<(), Failure> {
    let keep = join(&directory, ".keep");
    let made = async {
        fs.write(&keep, "").await?;
        fs.remove(&keep).await
    };
    made.await.map_err(|error| context.failure(&error))
}

async fn send(fs: &Fs, file: File, progress: &Progress, context: &Context) -> Result<(), Failure> {
    progress.at(&file.remote);
    let opened = tokio::fs::File::open(&file.local).await;
    let reader = Counted {
        inner: opened.map_err(unreadable(&file.local))?,
        progress: progress.clone(),
    };
    let write = fs.write_file(&file.remote).mode(file.mode);
    let written = write.from(reader).await;
    written.map(drop).map_err(|error| context.failure(&error))
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
