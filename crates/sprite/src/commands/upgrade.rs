//! `sprite upgrade`: bring a sprite to the server's agent and kernel.

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Bring a sprite to the agent and the kernel of its server
///
/// A sprite that runs, or sleeps with its memory, goes on with those that it was started with, also after the server was
/// upgraded. This restarts it if they are older: its disk stays as it is, what runs in it ends. A sprite that has the
/// newest is left alone.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    let upgraded = sprite
        .upgrade()
        .await
        .map_err(|error| context.failure(&error))?;
    let name = sprite.name();
    show::note(&if upgraded.restarted {
        format!("upgraded {name} to {}, and restarted it", upgraded.version)
    } else {
        format!("{name} is up to date: {}", upgraded.version)
    });
    if context.global.json {
        show::json(&json!({
            "name": name,
            "version": upgraded.version,
            "restarted": upgraded.restarted,
        }))?;
    }
    Ok(0)
}
