//! The commands, one a file. Each returns the process' exit code.

pub(crate) mod api;
pub(crate) mod attach;
pub(crate) mod auth;
pub(crate) mod check;
pub(crate) mod checkpoint;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod console;
pub(crate) mod create;
pub(crate) mod destroy;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod fork;
mod generate_docs;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod org;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod restart;
pub(crate) mod restore;
pub(crate) mod services;
pub(crate) mod sessions;
pub(crate) mod sleep;
pub(crate) mod task;
pub(crate) mod upgrade;
mod upload;
pub(crate) mod url;
pub(crate) mod usage;
pub(crate) mod use_sprite;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::failure::Failure;

pub(crate) async fn run(cli: Cli) -> Result<u8, Failure> {
    let global = cli.global;
    let open = || Context::open(global.clone());
    match cli.command {
        Command::Auth(args) => auth::run(args, &global).await,
        Command::Login(args) => login::run(args, &global).await,
        Command::Logout(args) => logout::run(&args, &global),
        Command::Org(args) => org::run(args, &global).await,
        Command::Create(args) => create::run(args, &open()?).await,
        Command::Use(args) => use_sprite::run(&args, &global).await,
        Command::List(args) => list::run(args, &open()?).await,
        Command::Info(args) => info::run(&args, &open()?).await,
        Command::Destroy(args) => destroy::run(&args, &open()?).await,
        Command::Exec(args) => exec::run(args, &open()?).await,
        Command::File(args) => file::run(args, &open()?).await,
        Command::Console(args) => console::run(&args, &open()?).await,
        Command::Sessions(args) => sessions::run(args, &open()?).await,
        Command::Services(args) => services::run(args, &open()?).await,
        Command::Task(args) => task::run(args, &open()?).await,
        Command::Checkpoint(args) => checkpoint::run(args, &open()?).await,
        Command::Restore(args) => restore::run(&args, &open()?).await,
        Command::Fork(args) => fork::run(args, &open()?).await,
        Command::Attach(args) => attach::run(&args, &open()?).await,
        Command::Proxy(args) => proxy::run(args, &open()?).await,
        Command::Restart(args) => restart::run(&args, &open()?).await,
        Command::Upgrade(args) => upgrade::run(&args, &open()?).await,
        Command::Sleep(args) => sleep::run(&args, &open()?).await,
        Command::Check(args) => check::run(&args, &open()?).await,
        Command::Usage(args) => usage::run(&args, &open()?).await,
        Command::Config(args) => config::run(args, &open()?).await,
        Command::Url(args) => url::run(args, &open()?).await,
        Command::Policy(args) => policy::run(args, &open()?).await,
        Command::Api(args) => api::run(args, &open()?).await,
        Command::Completion(args) => completion::run(&args),
        Command::GenerateDocs => generate_docs::run(),
    }
}
