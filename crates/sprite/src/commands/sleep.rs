//! `sprite sleep`: put a sprite to sleep now.

use serde_json::json;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Put a sprite to sleep now
///
/// It wakes with the next use. Sessions and connections stay open and stand still until then; what is sent on one of
/// them is a use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    sprite
        .sleep()
        .await
        .map_err(|error| context.failure(&error))?;
    show::note(&format!("{} sleeps", sprite.name()));
    if context.global.json {
        show::json(&json!({"name": sprite.name(), "asleep": true}))?;
    }
    Ok(0)
}
