//! `sprite check`: look whether a sprite is well.

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Look whether a sprite is well
///
/// The exit code is 0 if it is well or asleep, 1 if not.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    let health = sprite
        .check()
        .await
        .map_err(|error| context.failure(&error))?;
    if context.global.json {
        let value = serde_json::to_value(&health)
            .map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&value)?;
    } else {
        let reason = health.reason.as_deref().filter(|reason| !reason.is_empty());
        let reason = reason
            .map(|reason| format!(": {}", show::plain(reason)))
            .unwrap_or_default();
        show::line(&format!("{}{reason}", show::plain(&health.status)))?;
    }
    Ok(u8::from(!health.is_well()))
}
