//! From a request to a stream on which the machine has answered.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use sprite_agent_api::message::{Input, Reply, Request, SessionStarted};
use sprite_agent_api::{Frame, MAX_FRAME, link};
use sprite_api::ErrorKind;
use sprite_host::{Awake, Hold, Sprite};
use sprite_types::SpriteStatus;
use tokio::time::timeout;

use super::params::Wanted;
use crate::problem::{Answer, Problem};
use crate::routes::App;

/// How long a machine that is awake may take for its first answer.
const FIRST_REPLY_WITHIN: Duration = Duration::from_secs(30);

/// How long letting go of a session may take: the machine is told, and says that it knows.
const DETACH_WITHIN: Duration = Duration::from_secs(5);

/// An operation that the machine has begun, and the hold that keeps its sprite awake.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) stream: link::Stream,
    pub(crate) awake: Awake,
}

/// A session that a client is attached to.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) operation: Operation,
    pub(crate) started: SessionStarted,
}

impl Operation {
    /// Wakes the sprite, asks its agent, and waits for the first answer.
    ///
    /// # Errors
    /// The sprite does not wake, or its agent does not answer.
    ///
    /// # Cancel safety
    /// Cancelled, nothing is held; a session that was started runs on as one whose client is gone.
    pub(crate) async fn begin(
        app: &App,
        sprite: &Sprite,
        request: &Request,
    ) -> Answer<(Self, Reply)> {
        Self::ask(app, sprite, request).await
    }

    /// As [`begin`](Self::begin), for operations with answers of their own.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    pub(crate) async fn ask<T: DeserializeOwned>(
        app: &App,
        sprite: &Sprite,
        request: &Request,
    ) -> Answer<(Self, T)> {
        check_size(request)?;
        let awake = app.host.awake(sprite.id).await;
        let awake = awake.map_err(|error| Problem::waking(error, sprite.id, &sprite.name))?;
        let stream = awake.open(request);
        let mut operation = Self { stream, awake };
        let reply = timeout(FIRST_REPLY_WITHIN, operation.reply())
            .await
            .map_err(|_| Problem::machine_lost("the machine did not answer in time"))??;
        Ok((operation, reply))
    }

    /// The next control message.
    ///
    /// # Errors
    /// The machine is gone, or said something else.
    pub(crate) async fn reply<T: DeserializeOwned>(&mut self) -> Answer<T> {
        match self.stream.receiver.recv().await? {
            Some(frame) => frame
                .message()
                .map_err(|_| Problem::machine_lost("the machine answered nonsense")),
            None => Err(Problem::machine_lost(
                "the machine ended before it answered",
            )),
        }
    }
}

/// A request that does not fit a frame would break the stream instead of being refused.
fn check_size(request: &Request) -> Answer<()> {
    let size = Frame::control(request).payload.len();
    if size < MAX_FRAME {
        return Ok(());
    }
    let message =
        format!("command and environment are {size} bytes long, at most {MAX_FRAME} are allowed");
    Err(Problem::new(ErrorKind::TooLarge, message))
}

impl Session {
    /// Starts a session or attaches to one.
    ///
    /// # Errors
    /// The session cannot be had; the reason is the answer to the client.
    pub(crate) async fn open(app: &App, sprite: &Sprite, wanted: Wanted) -> Answer<Self> {
        let (request, id) = match wanted {
            Wanted::Start(spec) => (Request::Exec(spec), None),
            Wanted::Attach(id, _) if sprite.status == SpriteStatus::Cold => {
                // Sessions end with their machine: there is nothing to wake it for.
                return Err(Problem::no_session(&id));
            }
            Wanted::Attach(id, spec) => (Request::Attach(spec), Some(id)),
        };
        let (operation, reply) = Operation::begin(app, sprite, &request).await?;
        match reply {
            Reply::Started(started) => Ok(Self { operation, started }),
            Reply::Failed(failure) => Err(Problem::refused(failure, id.as_deref())),
            Reply::Ready(_)
            | Reply::Exited { .. }
            | Reply::Sessions { .. }
            | Reply::Kill(_)
            | Reply::Synced
            | Reply::Port(_) => Err(Problem::machine_lost("the machine answered something else")),
        }
    }

    /// From now on it is not this request that keeps the sprite awake, but who is attached: to a terminal by what
    /// goes to and fro. Source: behaviour reference §4.1.
    pub(crate) fn attached(&mut self) {
        self.operation.awake.lasts(match self.started.tty {
            true => Hold::Presence,
            false => Hold::Session,
        });
    }

    /// Lets go of a session whose client is gone. It lives on under its own rules.
    pub(crate) async fn detach(self) {
        let Operation {
            stream: link::Stream { sender, receiver },
            awake,
        } = self.operation;
        detach(Arc::new(sender), receiver, awake).await;
    }
}

/// Tells the machine that the client is gone, and waits until it knows. If that takes too long, dropping the
/// stream tells it as well, only less politely. One that sleeps is not woken for it.
pub(crate) async fn detach(sender: Arc<link::Sender>, mut receiver: link::Receiver, awake: Awake) {
    if awake.sleeps() {
        return;
    }
    let told = async {
        sender.send(Frame::control(&Input::Detach)).await?;
        sender.finish();
        while receiver.recv().await?.is_some() {}
        Ok::<_, link::LinkError>(())
    };
    match timeout(DETACH_WITHIN, told).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "session's stream ended before its client was detached")
        }
        Err(_) => tracing::debug!("session did not take note of its client's end in time"),
    }
    drop(awake);
}
