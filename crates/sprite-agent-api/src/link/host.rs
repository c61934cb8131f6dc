//! The host's end: opens streams, and resumes them when their transport breaks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::connection::{self, Ended, Greeting, HandshakeError, Hello, Mode};
use super::state::{LinkError, Observe, Receiver, Sender, Shared};
use super::{BoxedTransport, Epoch, Stream, StreamId};
use crate::PROTOCOL;

/// Pauses between attempts to reach an agent whose transport broke. The last failure ends the stream: by then
/// the machine's own end is known to whoever watches it.
const RETRIES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1500),
];

/// How the host reaches an agent. A connector of a sleeping machine waits until it is awake.
#[async_trait]
pub trait Connect: Send + Sync + 'static {
    /// A fresh transport to the agent.
    ///
    /// # Errors
    /// The agent cannot be reached now. An error of the kind [`io::ErrorKind::NotConnected`] says that it never
    /// will be: the machine has ended, and so do its streams, at once.
    async fn connect(&self) -> io::Result<BoxedTransport>;
}

/// Opens a stream to the agent behind `connect`. Returns at once: what is sent is queued while the transport
/// is made, and a failure shows in [`Receiver::recv`].
///
/// Must be called within a tokio runtime: a task moves the stream's bytes and ends with the stream.
pub fn open(connect: Arc<dyn Connect>, epoch: Epoch, stream: StreamId) -> Stream {
    begin(Shared::default(), connect, epoch, stream)
}

/// As [`open`]; `observer` is told of every frame that the operation sends and takes.
///
/// Must be called within a tokio runtime.
pub fn open_observed(
    connect: Arc<dyn Connect>,
    epoch: Epoch,
    stream: StreamId,
    observer: Arc<dyn Observe>,
) -> Stream {
    begin(Shared::observed(Some(observer)), connect, epoch, stream)
}

fn begin(shared: Shared, connect: Arc<dyn Connect>, epoch: Epoch, stream: StreamId) -> Stream {
    let shared = Arc::new(shared);
    let ends = Stream {
        sender: Sender {
            shared: shared.clone(),
        },
        receiver: Receiver {
            shared: shared.clone(),
        },
    };
    tokio::spawn(drive(shared, connect, epoch, stream));
    ends
}

async fn drive(shared: Arc<Shared>, connect: Arc<dyn Connect>, epoch: Epoch, stream: StreamId) {
    let mut mode = Mode::Open;
    let mut attempt = 0;
    loop {
        let greeted = greet(&shared, connect.as_ref(), epoch, stream, mode).await;
        let cause = match greeted {
            Ok((transport, greeting)) => {
                mode = Mode::Resume;
                let before = shared.received();
                match connection::run(&shared, transport, greeting).await {
                    Ended::Finished | Ended::Failed => return,
                    Ended::Broken(error) => {
                        if shared.received() > before {
                            attempt = 0;
                        }
                        error.to_string()
                    }
                }
            }
            // The agent said all, heard all and forgot the stream; only its last word was lost.
            Err(HandshakeError::UnknownStream) if shared.received_all() => return,
            // The agent never saw the opening: say it again as an opening.
            Err(HandshakeError::UnknownStream)
                if mode == Mode::Resume && shared.received() == 0 =>
            {
                mode = Mode::Open;
                if shared.rewind(0).is_err() {
                    return shared.fail(LinkError::Gone("agent lost the stream".to_owned()));
                }
                "agent did not know the stream yet".to_owned()
            }
            Err(HandshakeError::Io(error)) if error.kind() == io::ErrorKind::NotConnected => {
                return shared.fail(LinkError::Gone(error.to_string()));
            }
            Err(HandshakeError::Io(error)) => error.to_string(),
            Err(refused) => return shared.fail(LinkError::Gone(refused.to_string())),
        };
        if shared.failure().is_some() {
            return;
        }
        let Some(pause) = RETRIES.get(attempt) else {
            return shared.fail(LinkError::Gone(cause));
        };
        attempt += 1;
        tracing::debug!(stream = %format_args!("{:x}", stream.0), cause, "stream lost its transport");
        tokio::time::sleep(*pause).await;
    }
}

async fn greet(
    shared: &Arc<Shared>,
    connect: &dyn Connect,
    epoch: Epoch,
    stream: StreamId,
    mode: Mode,
) -> Result<(BoxedTransport, Greeting), HandshakeError> {
    let mut transport = connect.connect().await?;
    let received = shared.received();
    let hello = connection::hello_bytes(&Hello {
        protocol: PROTOCOL,
        mode,
        stream,
        epoch,
        received,
    });
    match mode {
        Mode::Open => Ok((
            transport,
            Greeting {
                send: hello,
                await_welcome: true,
            },
        )),
        Mode::Resume => {
            tokio::io::AsyncWriteExt::write_all(&mut transport, &hello).await?;
            let theirs = connection::read_welcome(&mut transport).await?;
            if let Err(reason) = shared.rewind(theirs) {
                shared.fail(reason);
                return Err(HandshakeError::UnknownStream);
            }
            Ok((
                transport,
                Greeting {
                    send: bytes::Bytes::new(),
                    await_welcome: false,
                },
            ))
        }
    }
}
