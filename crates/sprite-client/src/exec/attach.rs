//! Joining a session that is there already.

use sprite_types::SessionId;

use super::child::{Child, Joining};
use super::command::Stdio;
use super::{ExecError, upgrade};
use crate::sprite::Sprite;

/// A session to join. What it wrote before comes first, as far as the server kept it.
#[derive(Debug, Clone)]
#[must_use = "nothing is joined before `spawn`"]
pub struct Attach {
    sprite: Sprite,
    session: SessionId,
    stdin: Option<Stdio>,
}

impl Attach {
    pub(crate) fn new(sprite: Sprite, session: SessionId) -> Self {
        Self {
            sprite,
            session,
            stdin: None,
        }
    }

    /// Whether to join the session's input too. By default that is done for a session with a terminal only:
    /// without one, letting go of the input would close it for the command.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Joins the session. One that ended lately replays its output and its true exit.
    ///
    /// # Errors
    /// [`Error::is_not_found`](crate::Error::is_not_found) when there is no such session.
    ///
    /// # Cancel safety
    /// Safe: the session does not depend on who is joined to it.
    pub async fn spawn(&self) -> Result<Child, ExecError> {
        let target = self
            .sprite
            .target()?
            .path("/exec")
            .segment(&self.session.to_string())?;
        let upgraded = upgrade::upgrade(self.sprite.client(), target).await?;
        let joining = Joining {
            sprite: self.sprite.clone(),
            socket: upgraded.socket,
            signals: upgraded.signals,
            tty: None,
            stdin: self.stdin,
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
        };
        joining.join().await
    }
}
