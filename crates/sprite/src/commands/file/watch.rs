//! `sprite file watch`: what happens to files of a sprite, a line each.

use serde_json::{Value, json};
use sprite_client::{FileEvent, FileEventKind, FileNotice};

use super::Where;
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Tell what happens to files of a sprite
///
/// Until it is interrupted, or the sprite falls asleep: watching does not keep it awake. With --json, an object a line.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files and directories in the sprite, absolute or below /home/sprite
    #[arg(required = true)]
    paths: Vec<String>,
    /// Directories below them too
    #[arg(short, long)]
    recursive: bool,
}

pub(super) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let fs = Where { root: false }.fs(context)?;
    let (first, others) = args.paths.split_first().expect("one is required");
    let mut watch = others
        .iter()
        .fold(fs.watch(first), |watch, path| watch.also(path));
    if args.recursive {
        watch = watch.recursive();
    }
    let begun = watch.begin().await;
    let mut watch = begun.map_err(|error| context.failure(&error))?;
    while let Some(notice) = watch
        .next()
        .await
        .map_err(|error| context.failure(&error))?
    {
        match notice {
            FileNotice::Happened(event) => tell(&event, context)?,
            FileNotice::Missed { message, path } if context.global.json => {
                line(&json!({ "type": "error", "message": message, "path": path }))?;
            }
            FileNotice::Missed { message, path } => {
                show::note(show::plain(&format!("{message} {path}")).trim_end());
            }
            _later => {}
        }
    }
    show::note("the sprite fell asleep, or the server ended the watch");
    Ok(0)
}

fn tell(event: &FileEvent, context: &Context) -> Result<(), Failure> {
    if context.global.json {
        let mut value = serde_json::to_value(event).expect("texts and numbers are JSON");
        value["type"] = json!("event");
        return line(&value);
    }
    let what = match event.event {
        FileEventKind::Write => "write",
        FileEventKind::Create => "create",
        FileEventKind::Remove => "remove",
        FileEventKind::Rename => "rename",
        FileEventKind::Chmod => "chmod",
        _later => "change",
    };
    let path = show::plain(&event.path);
    match &event.dest {
        Some(dest) => show::line(&format!("{what}  {path} -> {}", show::plain(dest))),
        None => show::line(&format!("{what}  {path}")),
    }
}

fn line(value: &Value) -> Result<(), Failure> {
    show::line(&value.to_string())
}
