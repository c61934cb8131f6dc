//! Looking how a sprite is, without waking it.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::message::Request;
use sprite_types::SpriteId;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::agent;
use crate::context::describe;
use crate::error::CheckError;
use crate::registry::{Look, Message};
use crate::shared::Shared;
use crate::sprite::{Check, CheckStatus};

/// How long an agent may take to say that it is there: a thousand times what it takes when all is well.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

pub(crate) async fn check(shared: &Arc<Shared>, sprite: SpriteId) -> Result<Check, CheckError> {
    let began = Instant::now();
    let row = shared
        .catalog
        .sprite(sprite)
        .await?
        .ok_or(CheckError::NotFound)?;
    let (status, reason) = match look(shared, sprite).await {
        Some(Look::Awake(machine)) => {
            let asked = agent::ask(&machine, shared.epoch, &Request::Ping, ANSWER_WITHIN).await;
            match asked {
                Ok(_) => (CheckStatus::Healthy, "agent answers".to_owned()),
                Err(error) => (CheckStatus::Unhealthy, describe("ask the agent", &error)),
            }
        }
        Some(Look::Failed(cause)) => (CheckStatus::Error, cause),
        Some(Look::Busy) => (
            CheckStatus::Healthy,
            "machine is starting or stopping".to_owned(),
        ),
        Some(Look::Asleep) | None => match row.failure {
            Some(cause) => (CheckStatus::Error, cause),
            None => (CheckStatus::Hibernated, "sprite is asleep".to_owned()),
        },
    };
    Ok(Check {
        status,
        reason,
        checked_at: shared.time(),
        elapsed: began.elapsed(),
    })
}

/// Where the sprite's task stands, if it has one.
pub(crate) async fn look(shared: &Shared, sprite: SpriteId) -> Option<Look> {
    let (reply, answer) = oneshot::channel();
    match shared.registry.send_if_active(sprite, Message::Look(reply)) {
        Ok(true) => answer.await.ok(),
        Ok(false) => None,
        Err(_) => Some(Look::Busy),
    }
}
