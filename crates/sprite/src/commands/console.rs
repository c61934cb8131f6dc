//! `sprite console`: a shell in a sprite.

use std::env;
use std::io::{self, IsTerminal};
use std::path::Path;

use sprite_client::{Command, Sprite};

use crate::attend::{self, Lines, Wanted};
use crate::browser::{BrowserArgs, Consent, questions};
use crate::context::Context;
use crate::failure::Failure;
use crate::show;
use crate::stream::{relay_tty, size_or_default};

use super::exec;

/// Open a shell in a sprite
///
/// It is the login shell that you use here, if the sprite has it, else bash. Ctrl-\ lets go of it: it runs on and
/// can be joined again with `sprite attach`. Ports that open in the sprite meanwhile can be reached at 127.0.0.1 here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite console
  sprite console -s my-sprite
  sprite sessions list && sprite attach ID")]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
    /// Do not forward the ports that are opened in it
    #[arg(long)]
    no_port_forward: bool,
    #[command(flatten)]
    browser: BrowserArgs,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(Failure::usage("a console needs a terminal")
            .hint("without one, run a command: sprite exec -- sh -c '…'"));
    }
    let sprite = context.sprite(args.name.as_deref())?;
    let wanted = Wanted {
        ports: !args.no_port_forward,
        browser: args.browser.consent(true),
    };
    open(context, &sprite, wanted).await
}

/// Opens a console in a sprite. There is a terminal.
pub(super) async fn open(
    context: &Context,
    sprite: &Sprite,
    wanted: Wanted,
) -> Result<u8, Failure> {
    let size = size_or_default();
    let mut command = shell(sprite)
        .tty(size.rows, size.cols)
        .envs(exec::terminal_env());
    if wanted.browser != Consent::Never {
        command = command.take_urls();
    }
    show::note("Ctrl-\\ lets go of the console; it runs on.");
    let opened = command.spawn().await;
    let mut child = opened.map_err(|error| context.exec_failure(&error, sprite))?;
    let (asker, asked) = questions();
    let lines = Lines::of_terminal();
    let _attending = attend::start(sprite, &mut child, wanted, lines, Some(asker));
    let ended = relay_tty(&mut child, Some(size), asked).await;
    exec::conclude(context, sprite, child, ended).await
}

/// The shell to open. Source: behaviour reference §3.
fn shell(sprite: &Sprite) -> Command {
    let here = env::var("SHELL").unwrap_or_default();
    let name = Path::new(&here)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    match name {
        // A sprite need not have the shell of whoever works with it.
        "zsh" | "fish" | "tcsh" | "ksh" => {
            let line = format!("exec \"$(command -v {name} || command -v bash)\" -l");
            sprite.command("sh").arg("-c").arg(line)
        }
        _ => sprite.command("bash").arg("-l"),
    }
}
