//! The agent's end: accepts transports, and gives each to the stream that it belongs to.
//!
//! Streams live in a table until they end, until no transport came for a while, or until a host of another
//! epoch shows up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;

use super::connection::{self, Ended, Greeting, Hello, Mode, Status};
use super::state::{LinkError, Receiver, Sender, Shared};
use super::{BoxedTransport, Epoch, Stream, StreamId};
use crate::PROTOCOL;

/// Bounds on what the host side may keep open in an agent.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most streams at once.
    pub streams: usize,
    /// How long a stream waits for another transport.
    pub resume_within: Duration,
    /// How long a new transport may take to say who it is.
    pub greet_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // A window each way: two GiB at the very worst, and far more than any client opens.
            streams: 2048,
            // Longer than a restart of the host process takes; the clock stands still while a machine sleeps.
            resume_within: Duration::from_secs(60),
            greet_within: Duration::from_secs(10),
        }
    }
}

/// What is done with a stream that the host opened.
pub trait Handler: Send + Sync + 'static {
    /// Takes a new stream; must not block.
    fn accept(&self, stream: Stream);
}

impl<F: Fn(Stream) + Send + Sync + 'static> Handler for F {
    fn accept(&self, stream: Stream) {
        self(stream);
    }
}

struct Entry {
    epoch: Epoch,
    shared: Arc<Shared>,
    transports: mpsc::Sender<(BoxedTransport, u64)>,
}

/// The table of streams of one agent.
pub struct Acceptor {
    handler: Box<dyn Handler>,
    limits: Limits,
    streams: Mutex<HashMap<StreamId, Entry>>,
}

impl Acceptor {
    /// An empty table; every new stream goes to `handler`.
    #[must_use]
    pub fn new(limits: Limits, handler: impl Handler) -> Arc<Self> {
        Arc::new(Self {
            handler: Box::new(handler),
            limits,
            streams: Mutex::default(),
        })
    }

    /// Serves one transport: reads its greeting and runs the stream over it. Returns when the transport has
    /// been given to its stream, or refused.
    pub async fn serve(self: &Arc<Self>, mut transport: BoxedTransport) {
        let hello = connection::read_hello(&mut transport);
        let Ok(Ok(hello)) = tokio::time::timeout(self.limits.greet_within, hello).await else {
            return;
        };
        let refusal = if hello.protocol == PROTOCOL {
            self.drop_other_epochs(hello.epoch);
            match hello.mode {
                Mode::Open => self.open(&hello, transport),
                Mode::Resume => self.resume(&hello, transport),
            }
        } else {
            Some((transport, Status::Protocol))
        };
        if let Some((mut transport, status)) = refusal {
            let welcome = connection::welcome_bytes(status, 0);
            // If it does not arrive, the host sees the transport end.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut transport, &welcome).await;
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, Entry>> {
        self.streams
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn drop_other_epochs(&self, epoch: Epoch) {
        self.table().retain(|_, entry| {
            let ours = entry.epoch == epoch;
            if !ours {
                entry
                    .shared
                    .fail(LinkError::Gone("the host process was replaced".to_owned()));
            }
            ours
        });
    }

    fn open(
        self: &Arc<Self>,
        hello: &Hello,
        transport: BoxedTransport,
    ) -> Option<(BoxedTransport, Status)> {
        let mut table = self.table();
        if table.len() >= self.limits.streams {
            return Some((transport, Status::TooMany));
        }
        if table.contains_key(&hello.stream) {
            // The opening arrived, its Welcome was lost, and the host says it again: it should resume.
            return Some((transport, Status::UnknownStream));
        }
        let shared = Arc::new(Shared::default());
        let (transports, incoming) = mpsc::channel(1);
        table.insert(
            hello.stream,
            Entry {
                epoch: hello.epoch,
                shared: shared.clone(),
                transports,
            },
        );
        drop(table);
        self.handler.accept(Stream {
            sender: Sender {
                shared: shared.clone(),
            },
            receiver: Receiver {
                shared: shared.clone(),
            },
        });
        let acceptor = self.clone();
        let stream = hello.stream;
        tokio::spawn(async move {
            acceptor.drive(&shared, transport, incoming).await;
            acceptor.table().remove(&stream);
        });
        None
    }

    fn resume(&self, hello: &Hello, transport: BoxedTransport) -> Option<(BoxedTransport, Status)> {
        let table = self.table();
        let Some(entry) = table.get(&hello.stream) else {
            return Some((transport, Status::UnknownStream));
        };
        match entry.transports.try_send((transport, hello.received)) {
            Ok(()) => None,
            // Another resumption is on its way already; the host tries again.
            Err(
                mpsc::error::TrySendError::Full((transport, _))
                | mpsc::error::TrySendError::Closed((transport, _)),
            ) => Some((transport, Status::UnknownStream)),
        }
    }

    async fn drive(
        &self,
        shared: &Arc<Shared>,
        first: BoxedTransport,
        mut incoming: mpsc::Receiver<(BoxedTransport, u64)>,
    ) {
        let mut transport = first;
        loop {
            let welcome = connection::welcome_bytes(Status::Ok, shared.received());
            let greeting = Greeting {
                send: welcome,
                await_welcome: false,
            };
            let next = tokio::select! {
                ended = connection::run(shared, transport, greeting) => match ended {
                    Ended::Finished | Ended::Failed => return,
                    Ended::Broken(_) => None,
                },
                // The host gave the old transport up before we saw it break.
                next = incoming.recv() => next,
            };
            let next = match next {
                Some(next) => Some(next),
                None => self.next_transport(shared, &mut incoming).await,
            };
            let Some((fresh, received)) = next else {
                return shared.fail(LinkError::Gone("no transport came in time".to_owned()));
            };
            if let Err(reason) = shared.rewind(received) {
                return shared.fail(reason);
            }
            transport = fresh;
        }
    }

    async fn next_transport(
        &self,
        shared: &Arc<Shared>,
        incoming: &mut mpsc::Receiver<(BoxedTransport, u64)>,
    ) -> Option<(BoxedTransport, u64)> {
        let wait = tokio::time::timeout(self.limits.resume_within, incoming.recv());
        tokio::select! {
            next = wait => next.ok().flatten(),
            () = shared.until_failed() => None,
        }
    }
}
