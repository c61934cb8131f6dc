//! `sprite task`: what keeps a sprite awake.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use sprite_client::Task;

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, Subcommand)]
enum TaskCommand {
    /// List the tasks that have not ended
    #[command(visible_alias = "ls")]
    List,
    Create(Create),
    #[command(visible_alias = "rm")]
    Delete(Delete),
}

/// Keep a sprite awake
///
/// Wakes it. A task ends by itself after the time given, at most an hour.
#[derive(Debug, clap::Args)]
struct Create {
    /// Name: lowercase letters, digits and -
    name: String,
    /// How long it lasts, at most 1h
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    expire: Duration,
    /// Give a task of that name that there is another end
    #[arg(long)]
    extend: bool,
}

/// Let a sprite sleep again
#[derive(Debug, clap::Args)]
struct Delete {
    /// Name of the task
    name: String,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    match args.command {
        TaskCommand::List => list(context).await,
        TaskCommand::Create(args) => create(&args, context).await,
        TaskCommand::Delete(args) => delete(&args, context).await,
    }
}

fn value(task: &Task) -> Result<Value, Failure> {
    serde_json::to_value(task).map_err(|error| Failure::caused("cannot show the answer", &error))
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let tasks = sprite.tasks().await;
    let tasks = tasks.map_err(|error| context.failure(&error))?;
    if context.global.json {
        let all: Result<Vec<Value>, Failure> = tasks.iter().map(value).collect();
        show::json(&Value::Array(all?))?;
        return Ok(0);
    }
    if tasks.is_empty() {
        show::note(&format!("no task keeps {} awake", sprite.name()));
        return Ok(0);
    }
    let mut table = Table::new(["NAME", "AGE", "ENDS"]);
    for task in tasks {
        let ends = task.expires_at.map(|at| at.to_string());
        table.row([
            task.name,
            show::age(task.started_at.as_ref()),
            ends.unwrap_or_default(),
        ]);
    }
    show::data(&table.text())?;
    Ok(0)
}

async fn create(args: &Create, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let task = if args.extend {
        sprite.put_task(&args.name, args.expire).await
    } else {
        sprite.create_task(&args.name, args.expire).await
    };
    let task = task.map_err(|error| context.failure(&error))?;
    if context.global.json {
        show::json(&value(&task)?)?;
        return Ok(0);
    }
    let ends = task.expires_at.map(|at| at.to_string()).unwrap_or_default();
    show::note(&format!(
        "task {} keeps {} awake until {ends}",
        task.name,
        sprite.name()
    ));
    Ok(0)
}

async fn delete(args: &Delete, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let deleted = sprite.delete_task(&args.name).await;
    deleted.map_err(|error| context.failure(&error))?;
    show::note(&format!("task {} ended", args.name));
    if context.global.json {
        show::json(&json!({ "deleted": args.name }))?;
    }
    Ok(0)
}
