//! A command before it runs.

use std::time::Duration;

use super::child::{Child, Joining, Output};
use super::post::{PostBody, PostExec};
use super::{ExecError, ExitStatus, TtySize, upgrade};
use crate::error::Error;
use crate::sessions;
use crate::sprite::Sprite;
use crate::url::Target;

/// What becomes of one of a command's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdio {
    /// Input: at its end from the start. Output: thrown away.
    Null,
    /// Joined to the [`Child`].
    Piped,
}

/// A command to run in a sprite, as [`std::process::Command`].
///
/// The program is looked up on the sprite's `PATH`; it runs as the user `sprite` in its home directory unless
/// told otherwise. No shell is involved: arguments arrive as they are.
///
/// ```no_run
/// # async fn example(client: sprite_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use sprite_client::Stdio;
///
/// let mut child = client
///     .sprite("builder")
///     .command("sort")
///     .arg("-r")
///     .env("LC_ALL", "C")
///     .current_dir("/tmp")
///     .stdin(Stdio::Piped)
///     .spawn()
///     .await?;
/// let mut stdin = child.stdin.take().expect("asked for");
/// stdin.write_all(b"a\nb\n").await?;
/// drop(stdin); // end of input
/// let mut sorted = String::new();
/// child.stdout.take().expect("piped by default").read_to_string(&mut sorted).await?;
/// assert!(child.wait().await?.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing runs before `spawn`, `output`, `status` or `post`"]
pub struct Command {
    sprite: Sprite,
    program: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<String>,
    tty: Option<TtySize>,
    stdin: Option<Stdio>,
    stdout: Stdio,
    stderr: Stdio,
    after_disconnect: Option<Duration>,
    takes_urls: bool,
}

impl Command {
    pub(crate) fn new(sprite: Sprite, program: String) -> Self {
        Self {
            sprite,
            program,
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            tty: None,
            stdin: None,
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
            after_disconnect: None,
            takes_urls: false,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of the environment, over the sprite's own.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Sets variables of the environment, over the sprite's own.
    pub fn envs<K: Into<String>, V: Into<String>>(
        mut self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        self.env.extend(
            vars.into_iter()
                .map(|(key, value)| (key.into(), value.into())),
        );
        self
    }

    /// Sets the directory to run in.
    pub fn current_dir(mut self, dir: impl Into<String>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// Gives the command a terminal of this size. Its input is joined unless told otherwise, and all its output
    /// comes as standard output.
    pub fn tty(mut self, rows: u16, cols: u16) -> Self {
        self.tty = Some(TtySize { rows, cols });
        self
    }

    /// What the command reads; by default nothing, with a terminal what is written to the [`Child`].
    pub fn stdin(mut self, stdin: Stdio) -> Self {
        self.stdin = Some(stdin);
        self
    }

    /// What becomes of its standard output; joined by default.
    pub fn stdout(mut self, stdout: Stdio) -> Self {
        self.stdout = stdout;
        self
    }

    /// What becomes of its standard error; joined by default.
    pub fn stderr(mut self, stderr: Stdio) -> Self {
        self.stderr = stderr;
        self
    }

    /// Says that URLs are taken which programs in the sprite want opened in a browser: see [`Child::urls`].
    pub fn take_urls(mut self) -> Self {
        self.takes_urls = true;
        self
    }

    /// How long the command may run on when the connection is gone. Without this the server decides: for ever
    /// with a terminal, 10 s without. Zero means for ever.
    pub fn max_run_after_disconnect(mut self, limit: Duration) -> Self {
        self.after_disconnect = Some(limit);
        self
    }

    /// Lets the command run on for as long as it likes when the connection is gone, as
    /// [`max_run_after_disconnect`](Self::max_run_after_disconnect) with zero.
    pub fn detachable(self) -> Self {
        self.max_run_after_disconnect(Duration::ZERO)
    }

    fn stdin_or_default(&self) -> Stdio {
        let default = if self.tty.is_some() {
            Stdio::Piped
        } else {
            Stdio::Null
        };
        self.stdin.unwrap_or(default)
    }

    fn common_target(&self) -> Result<Target, Error> {
        let mut target = self
            .sprite
            .target()?
            .path("/exec")
            .param("cmd", &self.program);
        for arg in &self.args {
            target = target.param("cmd", arg);
        }
        target = target.param("path", &self.program);
        for (key, value) in &self.env {
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(Error::Unwritable {
                    reason: format!("{key:?} cannot name a variable"),
                });
            }
            target = target.param("env", &format!("{key}={value}"));
        }
        Ok(target.param_opt("dir", self.dir.as_deref()))
    }

    fn socket_target(&self) -> Result<Target, Error> {
        let mut target = self.common_target()?;
        let stdin = match self.stdin_or_default() {
            Stdio::Piped => "true",
            Stdio::Null => "false",
        };
        target = target.param("stdin", stdin);
        if let Some(TtySize { rows, cols }) = self.tty {
            target = target.param("tty", "true");
            target = target
                .param("rows", &rows.to_string())
                .param("cols", &cols.to_string());
        }
        if self.takes_urls {
            target = target.param("browser", "true");
        }
        let limit = self.after_disconnect.map(sessions::duration);
        Ok(target.param_opt("max_run_after_disconnect", limit.as_deref()))
    }

    /// Starts the command and joins its streams.
    ///
    /// # Errors
    /// [`ExecError::Start`] when there is no such sprite, the request makes no sense or the call fails. A
    /// program that does not exist is no error: it ends with status 127.
    ///
    /// # Cancel safety
    /// When the future is dropped, the command may have been started; it then runs without a connection.
    pub async fn spawn(&self) -> Result<Child, ExecError> {
        let upgraded = upgrade::upgrade(self.sprite.client(), self.socket_target()?).await?;
        let joining = Joining {
            sprite: self.sprite.clone(),
            signals: upgraded.can(upgrade::SIGNAL),
            socket: upgraded.socket,
            tty: Some(self.tty.is_some()),
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            takes_urls: self.takes_urls,
        };
        joining.join().await
    }

    /// Runs the command to its end and collects what it writes.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    pub async fn output(&self) -> Result<Output, ExecError> {
        self.spawn().await?.wait_with_output().await
    }

    /// Runs the command to its end and throws away what it writes.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn) and [`Child::wait`].
    pub async fn status(&self) -> Result<ExitStatus, ExecError> {
        let command = self.clone().stdout(Stdio::Null).stderr(Stdio::Null);
        command.spawn().await?.wait().await
    }

    /// Runs the command over one HTTP request: no terminal, no signals, no attaching, but nothing in between
    /// needs to know WebSockets. `body` is what the command reads.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); also for a command with a terminal.
    pub async fn post(&self, body: PostBody) -> Result<PostExec, ExecError> {
        if self.tty.is_some() {
            let reason = "a command over HTTP has no terminal".to_owned();
            return Err(Error::Unwritable { reason }.into());
        }
        let stdin = !matches!(body, PostBody::Empty);
        let mut target = self.common_target()?;
        if stdin {
            target = target.param("stdin", "true");
        }
        PostExec::start(self.sprite.client(), target, body).await
    }
}
