//! `sprite sessions`: the sessions of a sprite.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use sprite_client::{Killed, SessionId, Signal};

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

use super::attach;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: SessionsCommand,
}

#[derive(Debug, Subcommand)]
enum SessionsCommand {
    /// List the sessions that run
    #[command(visible_alias = "ls")]
    List,
    Attach(attach::Args),
    Kill(Kill),
}

/// End a session
///
/// Its processes get the signal; if they have not ended when the time is up, they are killed.
#[derive(Debug, clap::Args)]
struct Kill {
    /// Session to end
    session: SessionId,
    /// Signal to send first
    #[arg(long, default_value = "TERM")]
    signal: Signal,
    /// Seconds until they are killed
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    timeout: u32,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    match args.command {
        SessionsCommand::List => list(context).await,
        SessionsCommand::Attach(args) => attach::run(&args, context).await,
        SessionsCommand::Kill(args) => kill(&args, context).await,
    }
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let sessions = sprite
        .sessions()
        .await
        .map_err(|error| context.failure(&error))?;
    if context.global.json {
        let all: Result<Vec<Value>, _> = sessions.iter().map(serde_json::to_value).collect();
        let all = all.map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&Value::Array(all))?;
        return Ok(0);
    }
    if sessions.is_empty() {
        show::note(&format!("no session runs in {}", sprite.name()));
        return Ok(0);
    }
    let mut table = Table::new(["ID", "TTY", "ACTIVE", "AGE", "COMMAND"]);
    for session in sessions {
        let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
        table.row([
            session.id.to_string(),
            yes(session.tty),
            yes(session.is_active),
            show::age(session.created.as_ref()),
            session.command,
        ]);
    }
    show::data(&table.text())?;
    Ok(0)
}

async fn kill(args: &Kill, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let patience = Duration::from_secs(u64::from(args.timeout));
    let killed = sprite.kill(args.session, &args.signal, patience).await;
    let killed = killed.map_err(|error| context.failure(&error))?;
    let (text, code) = match killed {
        Killed::Ended(Some(status)) => (format!("ended with {status}"), Some(status.code())),
        Killed::Ended(None) => ("ended".to_owned(), None),
        Killed::AlreadyEnded => ("had ended before".to_owned(), None),
    };
    show::note(&format!("session {} {text}", args.session));
    if context.global.json {
        show::json(&json!({"session": args.session.to_string(), "exit_code": code}))?;
    }
    Ok(0)
}
