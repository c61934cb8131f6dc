//! `sprite restore`: take a sprite's disk back to a checkpoint.

use serde_json::json;
use sprite_client::CheckpointEventKind;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Take a sprite's disk back to a checkpoint
///
/// The sprite's machine restarts, and its sessions end. The state that is replaced is kept as an automatic checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite checkpoint list
  sprite restore v1
  sprite checkpoint list --include-auto")]
pub(crate) struct Args {
    /// Id of the checkpoint
    id: String,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let failed = |error: sprite_client::Error| context.failure(&error);
    let mut events = sprite.restore(&args.id).await.map_err(failed)?;
    while let Some(event) = events.next().await.map_err(failed)? {
        match event.what {
            CheckpointEventKind::Info { data } | CheckpointEventKind::Complete { data } => {
                show::note(&show::plain(&data));
            }
            // An error is the command's, and shown then.
            CheckpointEventKind::Error { .. } | CheckpointEventKind::Unknown => {}
        }
    }
    let restored = events.done().await.map_err(failed)?;
    if context.global.json {
        show::json(&json!({ "restored": restored }))?;
    }
    Ok(0)
}
