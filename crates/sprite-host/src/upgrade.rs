//! Bringing a sprite to the agent and the kernel that machines get now.

use std::io;
use std::sync::Arc;

use sprite_machine::{Identity, MachineError};
use sprite_types::{SpriteId, SpriteStatus};

use crate::context::describe;
use crate::error::RestartError;
use crate::host::Host;
use crate::shared::Shared;

/// Restarts a sprite whose machine, or whose memory, is of an older server; says whether that was so. Whatever boots
/// later has the newest anyway.
pub(crate) async fn upgrade(host: &Host, sprite: SpriteId) -> Result<bool, RestartError> {
    if !is_outdated(host.shared(), sprite).await? {
        return Ok(false);
    }
    host.restart(sprite).await?;
    Ok(true)
}

async fn is_outdated(shared: &Arc<Shared>, sprite: SpriteId) -> Result<bool, RestartError> {
    let row = shared.catalog.sprite(sprite).await?;
    let row = row.ok_or(RestartError::NotFound)?;
    let of = match (row.status, row.machine) {
        (SpriteStatus::Running | SpriteStatus::Warm, Some(machine)) => Identity {
            sprite,
            machine,
            incarnation: row.incarnation,
            generation: row.generation,
        },
        (SpriteStatus::Running | SpriteStatus::Warm, None) | (SpriteStatus::Cold, _) => {
            return Ok(false);
        }
    };
    let looked = async {
        let snapshots = if shared.driver.keeps_snapshots() {
            let place = shared.disks.snapshots(sprite).await;
            Some(place.map_err(|error| MachineError::Step {
                step: "find the sprite's memory".to_owned(),
                source: io::Error::other(error),
            })?)
        } else {
            None
        };
        shared.driver.is_outdated(of, snapshots.as_deref()).await
    };
    looked.await.map_err(|error| RestartError::Failed {
        cause: describe("look at its machine", &error),
    })
}
