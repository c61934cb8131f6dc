//! `sprite services`: programs that a sprite keeps running.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};
use sprite_client::{
    Service, ServiceEvent, ServiceEventKind, ServiceEvents, ServiceStatus, Signal,
};

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

/// So long `logs -f` follows; it ends before when the sprite falls asleep.
const FOLLOWED: Duration = Duration::from_secs(7 * 86_400);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ServicesCommand,
}

#[derive(Debug, Subcommand)]
enum ServicesCommand {
    /// List the services of a sprite
    #[command(visible_alias = "ls")]
    List,
    /// Show a service
    Get(Named),
    #[command(visible_alias = "put")]
    Create(Create),
    /// Start a service, and those that it needs
    Start(Watched),
    /// Replace the process of a service
    Restart(Watched),
    Stop(Stop),
    Signal(SignalArgs),
    Logs(Logs),
    /// Stop a service and forget it; its logs stay in the sprite
    #[command(visible_alias = "rm")]
    Delete(Named),
}

#[derive(Debug, clap::Args)]
struct Named {
    /// Name of the service
    name: String,
}

#[derive(Debug, clap::Args)]
struct Watched {
    /// Name of the service
    name: String,
    /// How long to show what happens
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
}

/// Create a service, or change it
///
/// It is started now, whenever the sprite boots, and again when it ends by itself. Fails if it ends while it is watched.
#[derive(Debug, clap::Args)]
struct Create {
    /// Name: letters, digits, -, _ and .
    name: String,
    /// A variable; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(long)]
    dir: Option<String>,
    /// A service that has to run before; may be repeated
    #[arg(long, value_name = "SERVICE")]
    needs: Vec<String>,
    /// The port to which the sprite's URL is to lead
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// How long to show what happens
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Stop a service until it is started again
#[derive(Debug, clap::Args)]
struct Stop {
    /// Name of the service
    name: String,
    /// How long its processes may take before they are killed
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Signal a service; one that ends by it is started again
#[derive(Debug, clap::Args)]
struct SignalArgs {
    /// Name of the service
    name: String,
    /// The signal
    signal: Signal,
}

/// Show what a service wrote
#[derive(Debug, clap::Args)]
struct Logs {
    /// Name of the service
    name: String,
    /// Only so many of the last lines
    #[arg(short = 'n', long)]
    lines: Option<u64>,
    /// Go on with what comes; keeps nothing awake, and ends when the sprite falls asleep
    #[arg(short, long)]
    follow: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let failed = |error: sprite_client::Error| context.failure(&error);
    let events = match args.command {
        ServicesCommand::List => return list(context).await,
        ServicesCommand::Get(args) => {
            let service = sprite.service(&args.name).await.map_err(failed)?;
            show::json(&value(&service)?)?;
            return Ok(0);
        }
        ServicesCommand::Signal(args) => {
            let signalled = sprite.signal_service(&args.name, &args.signal).await;
            signalled.map_err(failed)?;
            show::note(&format!(
                "service {} got SIG{}",
                args.name,
                args.signal.name()
            ));
            return Ok(0);
        }
        ServicesCommand::Delete(args) => {
            sprite.delete_service(&args.name).await.map_err(failed)?;
            show::note(&format!("service {} deleted", args.name));
            if context.global.json {
                show::json(&json!({ "deleted": args.name }))?;
            }
            return Ok(0);
        }
        ServicesCommand::Create(args) => create(&args, context).await?,
        ServicesCommand::Start(args) => sprite
            .start_service(&args.name, Some(args.duration))
            .await
            .map_err(failed)?,
        ServicesCommand::Restart(args) => sprite
            .restart_service(&args.name, Some(args.duration))
            .await
            .map_err(failed)?,
        ServicesCommand::Stop(args) => sprite
            .stop_service(&args.name, Some(args.timeout))
            .await
            .map_err(failed)?,
        ServicesCommand::Logs(args) => {
            let follow = args.follow.then_some(FOLLOWED);
            let logs = sprite.service_logs(&args.name, args.lines, follow).await;
            return tell(logs.map_err(failed)?, context).await;
        }
    };
    tell(events, context).await
}

async fn create(args: &Create, context: &Context) -> Result<ServiceEvents, Failure> {
    let (program, rest) = args
        .command
        .split_first()
        .ok_or_else(|| Failure::usage("a command is required"))?;
    let sprite = context.sprite(None)?;
    let mut put = sprite.put_service(&args.name, program).args(rest.to_vec());
    for variable in &args.env {
        let (name, value) = variable
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{variable:?} is not NAME=VALUE")))?;
        put = put.env(name, value);
    }
    for need in &args.needs {
        put = put.needs(need);
    }
    if let Some(dir) = &args.dir {
        put = put.dir(dir);
    }
    if let Some(port) = args.http_port {
        put = put.http_port(port);
    }
    let put = put.watch_for(args.duration).send().await;
    put.map_err(|error| context.failure(&error))
}

fn value(service: &Service) -> Result<Value, Failure> {
    serde_json::to_value(service).map_err(|error| Failure::caused("cannot show the answer", &error))
}

async fn list(context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let services = sprite.services().await;
    let services = services.map_err(|error| context.failure(&error))?;
    if context.global.json {
        let all: Result<Vec<Value>, Failure> = services.iter().map(value).collect();
        show::json(&Value::Array(all?))?;
        return Ok(0);
    }
    if services.is_empty() {
        show::note(&format!("{} has no services", sprite.name()));
        return Ok(0);
    }
    let mut table = Table::new([
        "NAME", "STATUS", "PID", "AGE", "RESTARTS", "PORT", "COMMAND", "ERROR",
    ]);
    for service in services {
        let state = service.state.as_ref();
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        table.row([
            service.name.clone(),
            state.map_or("", |state| word(state.status)).to_owned(),
            number(state.and_then(|state| state.pid).map(u64::from)),
            show::age(state.and_then(|state| state.started_at.as_ref())),
            number(state.map(|state| state.restart_count)),
            number(service.http_port.map(u64::from)),
            [&service.cmd]
                .into_iter()
                .chain(&service.args)
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(" "),
            state.map(|state| state.error.clone()).unwrap_or_default(),
        ]);
    }
    show::data(&table.text())?;
    Ok(0)
}

fn word(status: ServiceStatus) -> &'static str {
    match status {
        ServiceStatus::Stopped => "stopped",
        ServiceStatus::Starting => "starting",
        ServiceStatus::Running => "running",
        ServiceStatus::Stopping => "stopping",
        ServiceStatus::Failed => "failed",
        ServiceStatus::Unknown => "unknown",
    }
}

/// Shows what is told as it comes: output on standard output, the rest beside it. An error on the way is the command's.
async fn tell(mut events: ServiceEvents, context: &Context) -> Result<u8, Failure> {
    let mut error = None;
    while let Some(event) = events
        .next()
        .await
        .map_err(|error| context.failure(&error))?
    {
        if context.global.json {
            let line = serde_json::to_string(&event);
            show::line(&line.map_err(|error| Failure::caused("cannot show the answer", &error))?)?;
        } else {
            text(&event)?;
        }
        if let ServiceEventKind::Error { data } = event.what {
            error.get_or_insert(data);
        }
    }
    match error {
        None => Ok(0),
        Some(error) => Err(Failure::new(show::plain(&error))),
    }
}

fn text(event: &ServiceEvent) -> Result<(), Failure> {
    match &event.what {
        ServiceEventKind::Stdout { data } | ServiceEventKind::Stderr { data } => {
            return show::line(&show::plain(data));
        }
        ServiceEventKind::Started { pid: Some(pid) } => {
            show::note(&format!("started, process {pid}"))
        }
        ServiceEventKind::Started { pid: None } => show::note("started"),
        ServiceEventKind::Exit { exit_code } => show::note(&format!("exited with {exit_code}")),
        ServiceEventKind::Stopping => show::note("stopping"),
        ServiceEventKind::Stopped { exit_code: _ } => show::note("stopped"),
        // The first one ends the command, and is shown then.
        ServiceEventKind::Error { .. }
        | ServiceEventKind::Complete { .. }
        | ServiceEventKind::Unknown => {}
    }
    Ok(())
}
