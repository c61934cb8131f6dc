//! `sprite file edit`: a file of a sprite in the editor of the one who sits here.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::progress::Progress;
use super::pull::fetch;
use super::{Remote, Where, name_of};
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Edit a file of a sprite
///
/// With $VISUAL, $EDITOR or vi. What was saved goes back when the editor has ended; the file keeps its mode. A file that
/// is not there is made.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// File in the sprite, absolute or below /home/sprite
    remote: String,
    #[command(flatten)]
    place: Where,
}

/// A directory of our own, gone at the end unless it holds what could not be sent.
struct Desk {
    directory: PathBuf,
    keep: bool,
}

impl Drop for Desk {
    fn drop(&mut self) {
        if !self.keep {
            // A copy in the directory for what is temporary.
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let name = match name_of(&args.remote) {
        "" | "." | ".." => {
            return Err(Failure::usage(format!(
                "{:?} is not the name of a file",
                args.remote
            )));
        }
        name => name,
    };
    let remote_fs = args.place.fs(context)?;
    let directory = std::env::temp_dir().join(format!("sprite-edit-{}", Uuid::new_v4()));
    let cannot = |error: io::Error| Failure::caused("cannot keep a copy to edit", &error);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&directory)
        .map_err(cannot)?;
    let local = directory.join(name);
    let mut desk = Desk {
        directory,
        keep: false,
    };
    match Remote::look(&remote_fs, &args.remote, context).await? {
        Remote::Directory => {
            return Err(Failure::usage(format!("{} is a directory", args.remote)));
        }
        Remote::File(entry) => {
            let progress = Progress::new(Some(entry.size));
            fetch(&remote_fs, &args.remote, &local, 0o600, &progress, context).await?;
            progress.finish();
        }
        Remote::Nothing => fs::write(&local, "").map_err(cannot)?,
    }
    let before = fs::read(&local).map_err(cannot)?;
    edit(&local)?;
    let after = fs::read(&local).map_err(cannot)?;
    if before == after {
        show::note("nothing was changed");
        return Ok(0);
    }
    let written = remote_fs.write(&args.remote, after).await;
    if let Err(error) = written {
        desk.keep = true;
        let kept = format!("what you wrote is kept in {}", local.display());
        return Err(context.failure(&error).hint(kept));
    }
    show::note(&format!("saved {}", args.remote));
    Ok(0)
}

/// Runs the editor on the terminal. It may be a command with arguments.
fn edit(local: &Path) -> Result<(), Failure> {
    let editor = ["VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let status = std::process::Command::new("sh")
        .args(["-c", &format!("{editor} \"$1\""), "sh"])
        .arg(local)
        .status()
        .map_err(|error| Failure::caused(format!("cannot run {editor}"), &error))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{editor} ended with {status}; nothing was changed"
    )))
}
