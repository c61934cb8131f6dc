//! `sprite login`: ask for a token and store it.

use std::io::{self, IsTerminal};

use crate::context::{Global, Surroundings};
use crate::failure::Failure;
use crate::show;

use super::auth;

/// Log in to a server, asking for a token
///
/// Scripts use `sprite auth setup` instead.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite login
  sprite login https://sprites.example.org")]
pub(crate) struct Args {
    /// Server to log in to [default: the one in use, or http://127.0.0.1:7774]
    #[arg(value_name = "URL")]
    url: Option<String>,
}

pub(crate) async fn run(args: Args, global: &Global) -> Result<u8, Failure> {
    let surroundings = Surroundings::read();
    let server = auth::server_or_default(args.url.as_deref(), &surroundings)?;
    let org = global.org.as_deref().unwrap_or("personal");
    if !io::stdin().is_terminal() {
        return Err(
            Failure::usage("login asks for a token, and nobody is there to be asked").hint(
                format!(
                    "sprited token create --org {org} | sprite auth setup --url {server} --token -"
                ),
            ),
        );
    }
    show::note(&format!(
        "A token for {server} is made on that server, by who runs it:\n\n    sprited token create --org {org}\n"
    ));
    let token = auth::ask_token().await?;
    auth::store(&surroundings, &server, &token, global).await
}
