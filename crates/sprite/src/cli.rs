//! The command line as a whole; each command's own arguments are in its file.

use clap::{Parser, Subcommand};

use crate::commands::{
    api, attach, auth, check, checkpoint, completion, config, console, create, destroy, exec, file,
    fork, info, list, login, logout, org, policy, proxy, restart, restore, services, sessions,
    sleep, task, upgrade, url, usage, use_sprite,
};
use crate::context::Global;

const AFTER: &str = "\
Examples:
  sprited token create --org personal | sprite auth setup --url http://127.0.0.1:7774 --token -
  sprite create my-sprite
  sprite use my-sprite
  sprite exec -- uname -a
  sprite console

Exit codes:
  0        it worked
  1        it did not; standard error says why
  2        the command line makes no sense
  126,127  the command in the sprite cannot be run, or is not there
  128+n    signal n ended the command in the sprite

Environment:
  SPRITE_URL, SPRITES_API_URL  server to talk to
  SPRITE_TOKEN                 token to use instead of a stored one
  SPRITE_ORG                   organisation to act for
  NO_COLOR                     no colours";

/// Work with sprites: small computers that never lose their state
#[derive(Debug, Parser)]
#[command(
    name = "sprite",
    version,
    after_help = AFTER,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

// What a command does is told at its arguments, where its file documents it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Set up tokens without asking
    Auth(auth::Args),
    Login(login::Args),
    Logout(logout::Args),
    /// List, add and remove logins, one for each organisation
    #[command(visible_aliases = ["orgs", "organizations", "o"])]
    Org(org::Args),
    Create(create::Args),
    Use(use_sprite::Args),
    #[command(visible_alias = "ls")]
    List(list::Args),
    Info(info::Args),
    Destroy(destroy::Args),
    #[command(visible_alias = "x")]
    Exec(exec::Args),
    #[command(visible_alias = "c")]
    Console(console::Args),
    /// Copy files into and out of a sprite, and edit them
    File(file::Args),
    /// List, join and end sessions
    #[command(visible_alias = "s")]
    Sessions(sessions::Args),
    /// Create, start, stop and watch programs that a sprite keeps running
    #[command(visible_alias = "service")]
    Services(services::Args),
    /// Keep a sprite awake, and let it sleep
    #[command(visible_alias = "tasks")]
    Task(task::Args),
    /// Keep states of a sprite's disk, and go back to one
    #[command(visible_alias = "checkpoints")]
    Checkpoint(checkpoint::Args),
    Restore(restore::Args),
    Fork(fork::Args),
    Attach(attach::Args),
    Proxy(proxy::Args),
    Restart(restart::Args),
    Upgrade(upgrade::Args),
    Sleep(sleep::Args),
    Check(check::Args),
    Usage(usage::Args),
    /// Show and change a sprite's settings
    Config(config::Args),
    Url(url::Args),
    /// Show and change what a sprite may
    Policy(policy::Args),
    Api(api::Args),
    Completion(completion::Args),
    /// Print the reference of all commands as Markdown
    #[command(hide = true)]
    GenerateDocs,
}
