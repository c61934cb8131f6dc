//! `sprite restart`: end everything that runs in a sprite and start it anew.

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// End everything that runs in a sprite and start it anew
///
/// Its disk stays as it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    sprite
        .restart()
        .await
        .map_err(|error| context.failure(&error))?;
    show::note(&format!("restarted {}", sprite.name()));
    if context.global.json {
        show::json(&json!({"name": sprite.name(), "restarted": true}))?;
    }
    Ok(0)
}
