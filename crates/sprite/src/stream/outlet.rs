//! Standard output and standard error, each written by a thread of its own.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::stdio::{stderr, stdout};
use tokio::sync::{mpsc, oneshot};

/// Pieces (64 KiB at most, as servers send them) that wait to be written.
const QUEUE: usize = 8;

/// Why a stream of ours takes no more.
#[derive(Debug)]
pub(crate) enum OutletError {
    /// Its reader went away.
    Closed,
    /// It cannot be written.
    Failed {
        stream: &'static str,
        source: io::Error,
    },
}

/// One of our output streams.
#[derive(Debug)]
pub(crate) struct Outlet {
    stream: &'static str,
    pieces: mpsc::Sender<Bytes>,
    outcome: oneshot::Receiver<Result<(), Errno>>,
}

impl Outlet {
    pub(crate) fn stdout() -> Self {
        Self::open("standard output", stdout)
    }

    pub(crate) fn stderr() -> Self {
        Self::open("standard error", stderr)
    }

    fn open(stream: &'static str, fd: fn() -> BorrowedFd<'static>) -> Self {
        let (pieces, mut receiver) = mpsc::channel::<Bytes>(QUEUE);
        let (teller, outcome) = oneshot::channel();
        let writing = move || {
            let mut written = Ok(());
            while let Some(piece) = receiver.blocking_recv() {
                written = write_all(fd(), &piece);
                if written.is_err() {
                    break;
                }
            }
            // First the outcome, then the queue: whoever finds it closed finds the reason.
            let _ = teller.send(written);
            drop(receiver);
        };
        // Without its thread the queue is closed: the first write tells that it failed.
        let _ = thread::Builder::new()
            .name(stream.to_owned())
            .spawn(writing);
        Self {
            stream,
            pieces,
            outcome,
        }
    }

    /// Hands bytes on; waits while the stream's reader is slow.
    pub(crate) async fn send(&mut self, bytes: Bytes) -> Result<(), OutletError> {
        match self.pieces.send(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.reason().await),
        }
    }

    async fn reason(&mut self) -> OutletError {
        match (&mut self.outcome).await {
            Ok(Err(Errno::PIPE)) => OutletError::Closed,
            Ok(Err(error)) => OutletError::Failed {
                stream: self.stream,
                source: error.into(),
            },
            Ok(Ok(())) | Err(_) => OutletError::Failed {
                stream: self.stream,
                source: io::ErrorKind::BrokenPipe.into(),
            },
        }
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> Result<(), OutletError> {
        let Self {
            stream,
            pieces,
            outcome,
        } = self;
        drop(pieces);
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Errno::PIPE)) => Err(OutletError::Closed),
            Ok(Err(error)) => Err(OutletError::Failed {
                stream,
                source: error.into(),
            }),
            Err(_) => Err(OutletError::Failed {
                stream,
                source: io::ErrorKind::BrokenPipe.into(),
            }),
        }
    }
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Whoever shares the stream with us may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
