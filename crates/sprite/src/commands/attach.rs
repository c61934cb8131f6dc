//! `sprite attach`: join a session that runs.

use std::io::{self, IsTerminal};

use sprite_client::SessionId;

use crate::context::Context;
use crate::failure::Failure;
use crate::forward::Lines;
use crate::stream::{Quit, relay, relay_tty, size_or_default};

use super::exec;

/// Join a session that runs
///
/// What its terminal shows comes first, drawn for the size of this one; of a session without a terminal, all that it
/// wrote so far. Ctrl-\ lets go of it again; it runs on. A session that ended within the
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
    let size = io::stdout().is_terminal().then(size_or_default);
    let mut attach = sprite.attach(session);
    if let Some(size) = size {
        attach = attach.size(size.rows, size.cols);
    }
    let joined = attach.spawn().await;
    let mut child = joined.map_err(|error| context.exec_failure(&error, &sprite))?;
    let tty = child.session().is_some_and(|info| info.tty);
    let lines = if tty {
        Lines::of_terminal()
    } else {
        Lines::Plain
    };
    let _forwarding = exec::forwarding(&sprite, &mut child, true, lines);
    let ended = if tty {
        // Told by a message as well: servers that are not ours do not read the size in the request.
        relay_tty(&mut child, None).await
    } else {
        // Our input is not the session's: its end here would close the session's own.
        relay(&mut child, None, Quit::Detach).await
    };
    exec::conclude(context, &sprite, child, ended).await
}
