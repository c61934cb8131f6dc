//! `sprite auth setup`: store a token without asking.

use std::io::{self, IsTerminal, Read};

use clap::Subcommand;
use sprite_client::{Error, ServerUrl};

use crate::config::SpritesFile;
use crate::context::{self, Global, Surroundings};
use crate::failure::{self, Failure};
use crate::show;
use crate::stream::hidden_line;

/// Longest token that is read: they have some hundred characters.
const TOKEN_LIMIT: u64 = 16 << 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: AuthCommand,
}

#[derive(Debug, Subcommand)]
enum AuthCommand {
    /// Store a token for a server
    ///
    /// The server is asked whether it knows the token; one that it refuses is not stored. The token is sent to
    /// that server and to no other, now and later.
    #[command(after_help = "\
Examples:
  sprited token create --org personal | sprite auth setup --url http://127.0.0.1:7774 --token -
  sprite auth setup --url https://sprites.example.org --token - < token.txt")]
    Setup(Setup),
}

#[derive(Debug, clap::Args)]
struct Setup {
    /// Server that the token is for [default: the one in use, or http://127.0.0.1:7774]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The token; `-` reads it from standard input, where neither `ps` nor the shell's history shows it
    #[arg(long, value_name = "-|TOKEN")]
    token: String,
}

pub(crate) async fn run(args: Args, global: &Global) -> Result<u8, Failure> {
    let AuthCommand::Setup(Setup { url, token }) = args.command;
    let surroundings = Surroundings::read();
    let server = server_or_default(url.as_deref(), &surroundings)?;
    let token = match token.as_str() {
        "-" => read_token().await?,
        other => {
            show::note(
                "note: a token in an argument is seen by `ps` and the shell's history; `--token -` hides it",
            );
            other.to_owned()
        }
    };
    store(&surroundings, &server, &token, global).await
}

/// The server that an argument names, or the one that is in use.
pub(super) fn server_or_default(
    url: Option<&str>,
    surroundings: &Surroundings,
) -> Result<ServerUrl, Failure> {
    match url {
        Some(url) => url.parse().map_err(|error| {
            Failure::caused("the server's address", &error)
                .hint("an address looks like https://sprites.example.org or http://127.0.0.1:7774")
        }),
        None => surroundings.server(&surroundings.logins()?),
    }
}

async fn read_token() -> Result<String, Failure> {
    if io::stdin().is_terminal() {
        return ask_token().await;
    }
    let mut text = String::new();
    io::stdin()
        .lock()
        .take(TOKEN_LIMIT)
        .read_to_string(&mut text)
        .map_err(|error| Failure::caused("cannot read the token from standard input", &error))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::new("there is no token on standard input")
            .hint("did the command before the pipe fail?"));
    }
    Ok(token.to_owned())
}

/// Asks for a token without showing it.
pub(super) async fn ask_token() -> Result<String, Failure> {
    let token = hidden_line("Token: ")
        .await
        .map_err(|error| Failure::caused("cannot read the token", &error))?;
    if token.is_empty() {
        Err(Failure::new("no token was given"))
    } else {
        Ok(token)
    }
}

/// Checks a token with its server and stores it.
pub(super) async fn store(
    surroundings: &Surroundings,
    server: &ServerUrl,
    token: &str,
    global: &Global,
) -> Result<u8, Failure> {
    if !server.is_tls() && !server.is_loopback() {
        show::note(&format!(
            "warning: {server} is not encrypted: who is in between can read the token"
        ));
    }
    let told = match context::client(server, token)?.organization().await {
        Ok(organization) => Some(organization.slug),
        // A refusal of the token itself; everything else says nothing about it.
        Err(Error::Refused(refusal)) if matches!(refusal.status, 401 | 403) => {
            return Err(failure::api(&Error::Refused(refusal), server));
        }
        Err(error) => {
            let failure = failure::api(&error, server);
            show::note(&format!(
                "warning: the token is stored unchecked\n{failure}"
            ));
            None
        }
    };
    let org = told.or_else(|| context::org_in_token(token).map(str::to_owned));
    let org = match (org, global.org.clone()) {
        (Some(org), Some(wanted)) if org != wanted => {
            return Err(Failure::usage(format!(
                "the token is of the organisation {org}, not of {wanted}"
            )));
        }
        (Some(org), _) | (None, Some(org)) => org,
        (None, None) => {
            return Err(
                Failure::usage("which organisation the token is of is not known")
                    .hint("name it with -o"),
            );
        }
    };
    SpritesFile::change(&surroundings.logins_path()?, |file| {
        file.store(server, &org, token);
        file.select(server, &org);
    })?;
    show::note(&format!("logged in to {server} as {org}"));
    Ok(0)
}
