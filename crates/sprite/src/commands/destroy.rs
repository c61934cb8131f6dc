//! `sprite destroy`: destroy a sprite and everything on its disk.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Destroy a sprite and everything on its disk
///
/// There is no way back. Without --force you are asked; where nobody can be asked, --force is needed.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite destroy my-sprite
  sprite destroy my-sprite --force")]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
    /// Do not ask
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    if !args.force && !confirmed(sprite.name())? {
        return Err(Failure::new(format!("{} was not destroyed", sprite.name())));
    }
    sprite
        .destroy()
        .await
        .map_err(|error| context.failure(&error))?;
    show::note(&format!("destroyed {}", sprite.name()));
    if context.global.json {
        show::json(&json!({"name": sprite.name(), "destroyed": true}))?;
    }
    Ok(0)
}

fn confirmed(name: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "nobody is there to be asked whether {name} may be destroyed"
        ))
        .hint(format!("sprite destroy {name} --force")));
    }
    let _ = write!(
        io::stderr(),
        "Destroy {name} and everything on its disk? [y/N] "
    );
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::caused("cannot read the answer", &error))?;
    Ok(matches!(
        line.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
