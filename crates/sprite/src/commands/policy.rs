//! `sprite policy`: what a sprite may.

use std::io::Read;
use std::{fs, io};

use clap::Subcommand;
use serde_json::Value;
use sprite_client::{
    CountLimit, MemoryLimit, NetworkPolicy, NetworkRule, PrivilegesPolicy, ResourcesPolicy,
};

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Largest policy that is read, in bytes; servers take less.
const FILE_LIMIT: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// To where a sprite may connect
    #[command(subcommand)]
    Network(Network),
    /// How much of its host a sprite may use
    #[command(subcommand)]
    Resources(Resources),
    /// What sessions of a sprite may become
    #[command(subcommand)]
    Privileges(Privileges),
}

#[derive(Debug, Subcommand)]
enum Network {
    /// Show the policy, and what holds
    Get,
    Set(NetworkSet),
}

/// Replace the policy
///
/// Any rule closes the sprite to everything, until names are told apart; no rules open it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite policy network set rules.json
  sprite policy network set --deny '*'
  sprite policy network set --allow github.com --include defaults
  sprite policy network set --open")]
struct NetworkSet {
    /// File with the policy as JSON; `-`: standard input
    #[arg(conflicts_with_all = ["allow", "deny", "include", "open"])]
    file: Option<String>,
    /// Names that are allowed (repeat for more)
    #[arg(long, value_name = "DOMAIN")]
    allow: Vec<String>,
    /// Names that are not (repeat for more)
    #[arg(long, value_name = "DOMAIN")]
    deny: Vec<String>,
    /// List of rules that has a name
    #[arg(long, value_name = "NAME")]
    include: Vec<String>,
    /// No rules
    #[arg(long, conflicts_with_all = ["allow", "deny", "include"])]
    open: bool,
}

#[derive(Debug, Subcommand)]
enum Resources {
    /// Show the policy, and what holds
    Get,
    Set(ResourcesSet),
    /// Give the sprite again what it was created with
    Delete,
}

/// Replace the policy
///
/// What is not named is as the sprite was created. Less memory than is in use may end processes.
#[derive(Debug, clap::Args)]
struct ResourcesSet {
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// CPUs
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Processes and threads
    #[arg(long, value_name = "N")]
    pids: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Privileges {
    /// Show the policy
    Get,
    Set(PrivilegesSet),
    /// Make it the default again
    Delete,
}

/// Replace the policy
///
/// It holds for sessions that start from now on.
#[derive(Debug, clap::Args)]
struct PrivilegesSet {
    /// `minimal`, `standard` or `privileged`
    #[arg(long, default_value = "", value_name = "PROFILE")]
    profile: String,
    /// Device that must be there (repeat for more)
    #[arg(long, value_name = "PATH")]
    device: Vec<String>,
    /// No program gets more than the one that started it: no sudo
    #[arg(long)]
    no_new_privileges: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let done = match args.command {
        PolicyCommand::Network(Network::Get) => {
            let policy = sprite.network_policy().await;
            let policy = policy.map_err(|error| context.failure(&error))?;
            return tell(serde_json::to_value(&policy));
        }
        PolicyCommand::Network(Network::Set(args)) => {
            sprite.set_network_policy(&network(args)?).await
        }
        PolicyCommand::Resources(Resources::Get) => {
            let policy = sprite.resources_policy().await;
            let policy = policy.map_err(|error| context.failure(&error))?;
            return tell(serde_json::to_value(&policy));
        }
        PolicyCommand::Resources(Resources::Set(args)) => {
            sprite.set_resources_policy(&resources(&args)?).await
        }
        PolicyCommand::Resources(Resources::Delete) => sprite.delete_resources_policy().await,
        PolicyCommand::Privileges(Privileges::Get) => {
            let policy = sprite.privileges_policy().await;
            let policy = policy.map_err(|error| context.failure(&error))?;
            return tell(serde_json::to_value(&policy));
        }
        PolicyCommand::Privileges(Privileges::Set(args)) => {
            let policy = PrivilegesPolicy {
                profile: args.profile,
                devices: args.device,
                no_new_privileges: args.no_new_privileges,
            };
            sprite.set_privileges_policy(&policy).await
        }
        PolicyCommand::Privileges(Privileges::Delete) => sprite.delete_privileges_policy().await,
    };
    done.map_err(|error| context.failure(&error))?;
    Ok(0)
}

/// Policies are JSON for people too: what is shown can be changed and set.
fn tell(policy: serde_json::Result<Value>) -> Result<u8, Failure> {
    let value = policy.map_err(|error| Failure::caused("cannot show the answer", &error))?;
    show::json(&value)?;
    Ok(0)
}

fn network(args: NetworkSet) -> Result<NetworkPolicy, Failure> {
    if let Some(file) = args.file {
        return read(&file);
    }
    let rules: Vec<NetworkRule> = args
        .include
        .into_iter()
        .map(NetworkRule::include)
        .chain(args.allow.into_iter().map(NetworkRule::allow))
        .chain(args.deny.into_iter().map(NetworkRule::deny))
        .collect();
    // No rules mean that everything is open: that must be said.
    if rules.is_empty() && !args.open {
        return Err(Failure::usage("no rules are given")
            .hint("name a file, or rules with --allow, --deny and --include, or say --open"));
    }
    Ok(NetworkPolicy { rules })
}

fn resources(args: &ResourcesSet) -> Result<ResourcesPolicy, Failure> {
    let policy = ResourcesPolicy {
        memory: args.memory.map(|limit_mb| MemoryLimit {
            limit_mb,
            autoscale: true,
        }),
        cpu: args.cpus.map(|limit| CountLimit { limit }),
        pids: args.pids.map(|limit| CountLimit { limit }),
    };
    if policy == ResourcesPolicy::default() {
        return Err(Failure::usage("no limit is given").hint(
            "name one with --memory, --cpus or --pids, or use: sprite policy resources delete",
        ));
    }
    Ok(policy)
}

fn read(file: &str) -> Result<NetworkPolicy, Failure> {
    let mut text = Vec::new();
    let taken = if file == "-" {
        io::stdin().lock().take(FILE_LIMIT).read_to_end(&mut text)
    } else {
        fs::File::open(file).and_then(|opened| opened.take(FILE_LIMIT).read_to_end(&mut text))
    };
    taken.map_err(|error| Failure::caused(format!("cannot read {file}"), &error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::caused(format!("{file} is not a policy"), &error))
}
