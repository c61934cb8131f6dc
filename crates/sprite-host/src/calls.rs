//! Calls from inside: connections to the environment's own socket, handed to whoever serves them.
//!
//! While a sprite runs its task keeps one standing stream to the agent, which names every connection. Each is taken
//! with a stream of its own and comes out of [`Calls`], as from a listener, with the one thing that is known of its
//! other end: which sprite it is in. The standing stream is no hold, and neither is a call.
//!
//! A machine is hostile: it has at most [`MOST_CALLS`] calls at once and takes turns at a bounded rate, whatever its
//! agent says.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use sprite_agent_api::calls::{CallReply, MOST_CALLS};
use sprite_agent_api::link::{Receiver, Sender, Stream};
use sprite_agent_api::message::Request;
use sprite_agent_api::{Frame, FrameKind, MAX_DATA};
use sprite_machine::Machine;
use sprite_types::SpriteId;
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::awake::open_stream;
use crate::shared::Shared;

/// Calls of all sprites that nobody has accepted yet.
pub(crate) const WAITING: usize = 256;

/// Bytes under way in a call in each direction.
const BUFFER: usize = 64 << 10;

/// How long the other end may go on after this one has said all.
const LINGER: Duration = Duration::from_secs(2);

/// How long an agent may take to say that a call is taken.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);

/// Pause before the standing stream of a machine that runs is opened again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a sprite has a turn, on average: each may write to the catalog, which takes milliseconds.
const EACH: Duration = Duration::from_millis(20);
/// What it may use at once after it was quiet: a hundred turns.
const BURST: Duration = Duration::from_secs(2);

/// Turns of one machine. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Mutex<Instant>>);

impl Pace {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Waits for the next turn: a hundred at once, fifty a second.
    ///
    /// # Cancel safety
    /// Cancelled, the turn is lost.
    pub async fn turn(&self) {
        let mut used = self.0.lock().await;
        let now = Instant::now();
        let earliest = now.checked_sub(BURST).unwrap_or(*used);
        *used = (*used).max(earliest) + EACH;
        // Whoever comes next waits behind this one.
        sleep_until(*used).await;
    }
}

/// A connection that a process of a sprite made to its environment's socket.
#[derive(Debug)]
pub struct Call {
    /// The sprite that it is in.
    pub sprite: SpriteId,
    /// Its bytes.
    pub stream: CallStream,
    /// The turns of its machine.
    pub pace: Pace,
    /// Cancelled when the connection has ended; cancel it, and it ends at once.
    pub over: CancellationToken,
}

/// The bytes of a [`Call`], both ways. Dropped, the connection ends.
#[derive(Debug)]
pub struct CallStream(DuplexStream);

impl AsyncRead for CallStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for CallStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Where the calls of all sprites come in.
#[derive(Debug)]
pub struct Calls {
    pub(crate) incoming: mpsc::Receiver<Call>,
}

impl Calls {
    /// The next call; `None` when the host has closed.
    ///
    /// # Cancel safety
    /// Safe: cancelled, no call was taken.
    pub async fn next(&mut self) -> Option<Call> {
        self.incoming.recv().await
    }
}

/// Serves the standing stream of a machine. Never ends: whoever polls it drops it when the machine does not run any
/// more, and all its calls with it.
pub(crate) async fn stand(shared: Arc<Shared>, sprite: SpriteId, machine: Arc<dyn Machine>) {
    let slots = Arc::new(Semaphore::new(MOST_CALLS));
    let pace = Pace::new();
    let mut taken = JoinSet::new();
    loop {
        let Stream {
            sender,
            mut receiver,
        } = open_stream(&machine, shared.epoch, &Request::Calls);
        while let Ok(Some(frame)) = receiver.recv().await {
            let call = match frame.message::<CallReply>() {
                Ok(CallReply::Call { call }) => call,
                Ok(CallReply::Taken) => continue,
                Ok(CallReply::Failed(failure)) => {
                    tracing::debug!(reason = failure.message, "agent tells of no calls");
                    return std::future::pending().await;
                }
                Err(error) => {
                    tracing::debug!(%error, "agent says what is no call");
                    break;
                }
            };
            pace.turn().await;
            while taken.try_join_next().is_some() {}
            let slot = slots.clone().acquire_owned().await;
            let slot = slot.expect("nobody closes the semaphore");
            let stream = open_stream(&machine, shared.epoch, &Request::Take { call });
            taken.spawn(take(shared.clone(), sprite, stream, pace.clone(), slot));
        }
        drop(sender);
        sleep(AGAIN).await;
    }
}

/// Takes a call, and moves its bytes until both ends have said all.
async fn take(
    shared: Arc<Shared>,
    sprite: SpriteId,
    stream: Stream,
    pace: Pace,
    _slot: OwnedSemaphorePermit,
) {
    let Stream {
        sender,
        mut receiver,
    } = stream;
    match timeout(TAKEN_WITHIN, receiver.recv()).await {
        Ok(Ok(Some(frame))) if matches!(frame.message(), Ok(CallReply::Taken)) => {}
        // Whoever called is gone, or the machine is.
        Ok(_) | Err(_) => return,
    }
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let over = CancellationToken::new();
    let call = Call {
        sprite,
        stream: CallStream(theirs),
        pace,
        over: over.clone(),
    };
    let _over = over.clone().drop_guard();
    if shared.calls.send(call).await.is_err() {
        return;
    }
    let (read, write) = tokio::io::split(ours);
    let outward = outward(&mut receiver, write);
    tokio::pin!(outward);
    tokio::select! {
        () = inward(&sender, read) => {
            // What is still to come has nobody who reads it.
            sender.finish();
            let _ = timeout(LINGER, outward).await;
            let _ = timeout(LINGER, sender.drained()).await;
        }
        // The stream failed: the machine or the connection is gone.
        () = &mut outward => {}
        () = over.cancelled() => {}
    }
}

/// From whoever serves to the environment, until the end of that direction.
async fn inward(sender: &Sender, mut read: ReadHalf<DuplexStream>) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER.min(MAX_DATA));
        match read.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let bytes = buffer.split().freeze();
        if sender
            .send(Frame::data(FrameKind::Stdin, bytes))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// From the environment to whoever serves. Ends when the stream fails; at the end of this direction alone it waits.
async fn outward(receiver: &mut Receiver, mut write: WriteHalf<DuplexStream>) {
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) => match frame.kind {
                FrameKind::Stdout => {
                    if write.write_all(&frame.payload).await.is_err() {
                        // It is not read any more; what is written still goes in.
                        return std::future::pending().await;
                    }
                }
                FrameKind::Control | FrameKind::Stdin | FrameKind::Stderr => return,
            },
            Ok(None) => {
                // The other end may have gone already.
                let _ = write.shutdown().await;
                return std::future::pending().await;
            }
            Err(_) => return,
        }
    }
}
