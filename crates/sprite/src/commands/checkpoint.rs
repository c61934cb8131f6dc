//! `sprite checkpoint`: states of a sprite's disk to go back to.

use clap::Subcommand;
use serde_json::{Value, json};
use sprite_client::{Checkpoint, CheckpointEventKind};

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

use super::restore;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: CheckpointCommand,
}

#[derive(Debug, Subcommand)]
enum CheckpointCommand {
    Create(Create),
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a checkpoint
    Info(Named),
    Restore(restore::Args),
    /// Delete a checkpoint; the one that was made or restored last stays
    #[command(visible_alias = "rm")]
    Delete(Named),
}

/// Keep the state of a sprite's disk as a checkpoint
///
/// The sprite runs on meanwhile. Processes and memory are not part of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite checkpoint create --comment 'before the upgrade'
  id=$(sprite checkpoint create --json | jq -r .id)")]
struct Create {
    /// What it is for, at most 1024 bytes
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

/// List the checkpoints of a sprite, the newest first
///
/// `Current` is the sprite as it is now. This never wakes it.
#[derive(Debug, clap::Args)]
struct List {
    /// Only this checkpoint and those that it goes back to
    #[arg(long, value_name = "ID")]
    history: Option<String>,
    /// Those too that were made by themselves
    #[arg(long)]
    include_auto: bool,
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Id of the checkpoint
    id: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    match args.command {
        CheckpointCommand::Create(args) => create(&args, context).await,
        CheckpointCommand::List(args) => list(args, context).await,
        CheckpointCommand::Info(args) => info(&args, context).await,
        CheckpointCommand::Restore(args) => restore::run(&args, context).await,
        CheckpointCommand::Delete(args) => delete(&args, context).await,
    }
}

fn value(checkpoint: &Checkpoint) -> Result<Value, Failure> {
    serde_json::to_value(checkpoint)
        .map_err(|error| Failure::caused("cannot show the answer", &error))
}

async fn create(args: &Create, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let failed = |error: sprite_client::Error| context.failure(&error);
    let events = sprite.create_checkpoint(args.comment.as_deref()).await;
    let mut events = events.map_err(failed)?;
    while let Some(event) = events.next().await.map_err(failed)? {
        match event.what {
            CheckpointEventKind::Info { data } => show::note(&show::plain(&data)),
            // How it ended is told below.
            CheckpointEventKind::Error { .. }
            | CheckpointEventKind::Complete { .. }
            | CheckpointEventKind::Unknown => {}
        }
    }
    let id = events.done().await.map_err(failed)?;
    if context.global.json {
        let checkpoint = sprite.checkpoint_info(&id).await.map_err(failed)?;
        show::json(&value(&checkpoint)?)?;
        return Ok(0);
    }
    show::line(&format!("Checkpoint created: {id}"))?;
    Ok(0)
}

async fn list(args: List, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let mut wanted = sprite.checkpoints();
    if args.include_auto {
        wanted = wanted.with_automatic();
    }
    if let Some(id) = &args.history {
        wanted = wanted.history(id);
    }
    let checkpoints = wanted.send().await;
    let checkpoints = checkpoints.map_err(|error| context.failure(&error))?;
    if context.global.json {
        let all: Result<Vec<Value>, Failure> = checkpoints.iter().map(value).collect();
        show::json(&Value::Array(all?))?;
        return Ok(0);
    }
    if checkpoints.iter().all(Checkpoint::is_current) {
        let history = args.history.map(|id| format!(" in the history of {id}"));
        let history = history.unwrap_or_default();
        show::note(&format!("{} has no checkpoints{history}", sprite.name()));
        return Ok(0);
    }
    let mut table = Table::new(["ID", "AGE", "SOURCE", "COMMENT"]);
    for checkpoint in checkpoints {
        table.row([
            checkpoint.id,
            show::age(checkpoint.create_time.as_ref()),
            checkpoint.source_id,
            checkpoint.comment,
        ]);
    }
    show::data(&table.text())?;
    Ok(0)
}

async fn info(args: &Named, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let checkpoint = sprite.checkpoint_info(&args.id).await;
    let checkpoint = checkpoint.map_err(|error| context.failure(&error))?;
    if context.global.json {
        show::json(&value(&checkpoint)?)?;
        return Ok(0);
    }
    let created = checkpoint.create_time.map(|at| at.to_string());
    let rows = [
        ("id", checkpoint.id),
        ("created", created.unwrap_or_default()),
        ("comment", checkpoint.comment),
        ("source", checkpoint.source_id),
        ("history", checkpoint.history.join(", ")),
        ("health", checkpoint.health),
    ];
    // What is empty is not worth a line.
    for (key, text) in rows.iter().filter(|(_, text)| !text.is_empty()) {
        show::line(&format!("{:16} {}", format!("{key}:"), show::plain(text)))?;
    }
    Ok(0)
}

async fn delete(args: &Named, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let deleted = sprite.delete_checkpoint(&args.id).await;
    deleted.map_err(|error| context.failure(&error))?;
    show::note(&format!("checkpoint {} deleted", args.id));
    if context.global.json {
        show::json(&json!({ "deleted": args.id }))?;
    }
    Ok(0)
}
