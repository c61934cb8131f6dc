//! `sprite org`: the logins, one for each organisation of each server.

use clap::Subcommand;
use serde_json::json;

use crate::config::SpritesFile;
use crate::context::{Context, Global, Surroundings};
use crate::failure::Failure;
use crate::show::{self, Table};

use super::{auth, login, logout};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: OrgCommand,
}

#[derive(Debug, Subcommand)]
enum OrgCommand {
    /// List the logins
    #[command(visible_alias = "ls")]
    List,
    /// Show what the server knows about the organisation
    Info,
    /// Add a login, asking for its token
    Auth(login::Args),
    /// Put another login into use
    Use(Use),
    /// Forget a login
    Logout(Logout),
}

#[derive(Debug, clap::Args)]
struct Use {
    /// Organisation to act for from now on
    name: String,
    /// Its server [default: the one in use]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Logout {
    #[command(flatten)]
    logout: logout::Args,
    /// Accepted for scripts: nothing is asked here
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: Args, global: &Global) -> Result<u8, Failure> {
    match args.command {
        OrgCommand::List => list(global),
        OrgCommand::Info => info(Context::open(global.clone())?).await,
        OrgCommand::Auth(args) => login::run(args, global).await,
        OrgCommand::Use(args) => use_org(&args),
        OrgCommand::Logout(args) => logout::run(&args.logout, global),
    }
}

fn list(global: &Global) -> Result<u8, Failure> {
    let logins = Surroundings::read().logins()?.logins();
    if global.json {
        let all = logins.iter().map(|login| {
            json!({"organization": login.org, "url": login.url, "current": login.current, "has_token": login.has_token})
        });
        show::json(&all.collect())?;
        return Ok(0);
    }
    if logins.is_empty() {
        show::note("there are no logins; add one: sprite login");
        return Ok(0);
    }
    let mut table = Table::new(["", "ORGANISATION", "SERVER", "TOKEN"]);
    for login in logins {
        let mark = if login.current { "*" } else { "" };
        let token = if login.has_token { "yes" } else { "no" };
        table.row([mark.to_owned(), login.org, login.url, token.to_owned()]);
    }
    show::data(&table.text())?;
    Ok(0)
}

async fn info(context: Context) -> Result<u8, Failure> {
    let organization = context
        .client()
        .organization()
        .await
        .map_err(|error| context.failure(&error))?;
    if context.global.json {
        let value = serde_json::to_value(&organization)
            .map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&value)?;
        return Ok(0);
    }
    show::line(&format!(
        "organisation: {}",
        show::plain(&organization.slug)
    ))?;
    for (key, value) in &organization.other {
        show::line(&format!(
            "{}: {}",
            show::plain(key),
            show::plain(&value.to_string())
        ))?;
    }
    Ok(0)
}

fn use_org(args: &Use) -> Result<u8, Failure> {
    let surroundings = Surroundings::read();
    let server = auth::server_or_default(args.url.as_deref(), &surroundings)?;
    let known = SpritesFile::change(&surroundings.logins_path()?, |file| {
        let known = file.org_names(&server).contains(&args.name.as_str());
        if known {
            file.select(&server, &args.name);
        }
        known
    })?;
    if !known {
        return Err(
            Failure::new(format!("there is no login for {} on {server}", args.name))
                .hint("see what there is: sprite org list"),
        );
    }
    show::note(&format!("acting for {} on {server}", args.name));
    Ok(0)
}
