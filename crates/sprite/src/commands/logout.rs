//! `sprite logout`: forget tokens.

use crate::config::SpritesFile;
use crate::context::{Global, Surroundings};
use crate::failure::Failure;
use crate::show;

use super::auth;

/// Forget the tokens of a server
///
/// The tokens stay valid on the server: revoke them there if they may have been seen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Server to log out of [default: the one in use]
    #[arg(value_name = "URL", conflicts_with = "all")]
    url: Option<String>,
    /// Forget the tokens of every server
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<u8, Failure> {
    let surroundings = Surroundings::read();
    let path = surroundings.logins_path()?;
    let servers = if args.all {
        let logins = SpritesFile::read(&path)?.logins();
        logins
            .iter()
            .filter_map(|login| login.url.parse().ok())
            .collect()
    } else {
        vec![auth::server_or_default(args.url.as_deref(), &surroundings)?]
    };
    let org = global.org.as_deref();
    let forgotten = SpritesFile::change(&path, |file| {
        let of_server = |server| {
            let orgs = file.forget(server, org);
            orgs.into_iter()
                .map(|org| format!("{server} ({org})"))
                .collect::<Vec<_>>()
        };
        servers.iter().flat_map(of_server).collect::<Vec<_>>()
    })?;
    if forgotten.is_empty() {
        show::note("there was no login to forget");
    } else {
        show::note(&format!("logged out of {}", forgotten.join(", ")));
    }
    Ok(0)
}
