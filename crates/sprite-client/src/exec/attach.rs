//! Joining a session that is there already.

use sprite_types::SessionId;

use super::child::{Child, Joining};
use super::command::Stdio;
use super::{ExecError, TtySize, upgrade};
use crate::sprite::Sprite;

/// A session to join.
///
/// Without an offset a terminal first shows what its screen shows now, drawn for the size of the terminal that joins
/// ([`size`](Self::size)); a session without a terminal first repeats all that it wrote, as far as that is kept. With
/// an offset the output goes on at that byte, so that two readings laid together are one:
///
/// ```no_run
/// # async fn example(sprite: sprite_client::Sprite) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncReadExt;
///
/// let build = sprite.command("make").detachable();
/// let mut child = build.spawn().await?;
/// let id = child.id().expect("servers tell it");
/// let mut log = vec![0; 1000];
/// child.stdout.as_mut().expect("joined by default").read_exact(&mut log).await?;
/// child.detach().await; // the build goes on
///
/// let again = sprite.attach(id).stdout_offset(1000).spawn().await?;
/// let rest = again.wait_with_output().await?;
/// log.extend_from_slice(&rest.stdout);
/// assert!(rest.status.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is joined before `spawn`"]
pub struct Attach {
    sprite: Sprite,
    session: SessionId,
    stdin: Option<Stdio>,
    stdout_offset: Option<u64>,
    stderr_offset: Option<u64>,
    size: Option<TtySize>,
    takes_urls: bool,
}

impl Attach {
    pub(crate) fn new(sprite: Sprite, session: SessionId) -> Self {
        Self {
            sprite,
            session,
            stdin: None,
            stdout_offset: None,
            stderr_offset: None,
            size: None,
            takes_urls: false,
        }
    }

    /// The first byte wanted of standard output, or of what the terminal was sent; 0 is the first of all.
    ///
    /// Servers keep a bounded part of the output. Where it really begins is told in
    /// [`SessionInfo::stdout_offset`](super::SessionInfo::stdout_offset).
    pub fn stdout_offset(mut self, offset: u64) -> Self {
        self.stdout_offset = Some(offset);
        self
    }

    /// The first byte wanted of standard error.
    pub fn stderr_offset(mut self, offset: u64) -> Self {
        self.stderr_offset = Some(offset);
        self
    }

    /// The size of the terminal that joins; the session's terminal gets it. Nothing without a terminal.
    pub fn size(mut self, rows: u16, cols: u16) -> Self {
        self.size = Some(TtySize { rows, cols });
        self
    }

    /// Whether to join the session's input too. By default that is done for a session with a terminal only:
    /// without one, letting go of the input would close it for the command.
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// Says that URLs are taken which programs in the sprite want opened in a browser: see [`Child::urls`].
    pub fn take_urls(mut self) -> Self {
        self.takes_urls = true;
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
        let number = |offset: Option<u64>| offset.map(|offset| offset.to_string());
        let mut target = target
            .param_opt("stdout_offset", number(self.stdout_offset).as_deref())
            .param_opt("stderr_offset", number(self.stderr_offset).as_deref());
        if let Some(TtySize { rows, cols }) = self.size {
            target = target
                .param("rows", &rows.to_string())
                .param("cols", &cols.to_string());
        }
        if self.takes_urls {
            target = target.param("browser", "true");
        }
        let upgraded = upgrade::upgrade(self.sprite.client(), target).await?;
        let joining = Joining {
            sprite: self.sprite.clone(),
            signals: upgraded.can(upgrade::SIGNAL),
            socket: upgraded.socket,
            tty: None,
            stdin: self.stdin,
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
            takes_urls: self.takes_urls,
        };
        joining.join().await
    }
}
