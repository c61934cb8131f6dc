//! `sprite attach`: join a session that runs.

use sprite_client::SessionId;

use crate::context::Context;
use crate::failure::Failure;
use crate::stream::{Quit, relay, relay_tty};

use super::exec;

/// Join a session that runs
///
/// What it showed before comes first. Ctrl-\ lets go of it again; it runs on. A session that ended within the
/// last minutes shows its output and ends with its exit code.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite sessions list
  sprite attach 1234")]
pub(crate) struct Args {
    /// Session to join
    pub(crate) session: SessionId,
}

pub(crate) async fn run(session: SessionId, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let joined = sprite.attach(session).spawn().await;
    let mut child = joined.map_err(|error| context.exec_failure(&error, &sprite))?;
    let tty = child.session().is_some_and(|info| info.tty);
    let ended = if tty {
        relay_tty(&mut child, None).await
    } else {
        // Our input is not the session's: its end here would close the session's own.
        relay(&mut child, None, Quit::Detach).await
    };
    exec::conclude(context, &sprite, child, ended).await
}
