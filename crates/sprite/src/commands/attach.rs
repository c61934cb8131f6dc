//! `sprite attach`: join a session that runs.

use std::io::{self, IsTerminal};

use sprite_client::SessionId;

use crate::attend::{self, Lines, Wanted};
use crate::browser::{BrowserArgs, Consent, questions};
use crate::context::Context;
use crate::failure::Failure;
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
    session: SessionId,
    #[command(flatten)]
    browser: BrowserArgs,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let size = io::stdout().is_terminal().then(size_or_default);
    let mut attach = sprite.attach(args.session);
    // Whether it has a terminal is only known afterwards; without one nobody is asked, and so nothing opened.
    let consent = args.browser.consent(true);
    if consent != Consent::Never {
        attach = attach.take_urls();
    }
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
    let wanted = Wanted {
        ports: true,
        browser: args.browser.consent(tty),
    };
    let (asker, asked) = questions();
    let _attending = attend::start(&sprite, &mut child, wanted, lines, Some(asker));
    let ended = if tty {
        // Told by a message as well: servers that are not ours do not read the size in the request.
        relay_tty(&mut child, None, asked).await
    } else {
        // Our input is not the session's: its end here would close the session's own.
        relay(&mut child, None, Quit::Detach).await
    };
    exec::conclude(context, &sprite, child, ended).await
}
