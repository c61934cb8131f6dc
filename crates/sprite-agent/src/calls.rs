//! Calls: connections to `/.sprite/api.sock`, told to the host and moved to it. What is said on them is the host's
//! matter; see [`sprite_agent_api::calls`].
//!
//! Connections are accepted while one of [`MOST_CALLS`] slots is free; the others wait in the kernel's queue. One that
//! no host has taken yet is told to the next host too, so that calls outlive a host that is replaced.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use sprite_agent_api::calls::{CallReply, MOST_CALLS};
use sprite_agent_api::link::{Receiver, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::{Frame, FrameKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::sleep;

use crate::operation::failure;

/// How long a call waits for the host: longer than a restart of the host takes.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);

/// How long a process may read on after the host has said all.
const LINGER: Duration = Duration::from_secs(2);

/// Bytes that are read from a connection at once.
const CHUNK: usize = 32 << 10;

/// Pause after an error of accept: too many open files, no memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Waiting {
    connection: UnixStream,
    slot: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Table {
    last: u64,
    waiting: HashMap<u64, Waiting>,
}

/// The calls of one environment.
pub(crate) struct Calls {
    listener: tokio::sync::Mutex<UnixListener>,
    /// Counts the standing streams: only the newest one is told.
    streams: watch::Sender<u64>,
    slots: Arc<Semaphore>,
    table: Arc<Mutex<Table>>,
}

impl Calls {
    /// Must be called within the runtime.
    pub(crate) fn new(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener: tokio::sync::Mutex::new(UnixListener::from_std(listener)?),
            streams: watch::Sender::new(0),
            slots: Arc::new(Semaphore::new(MOST_CALLS)),
            table: Arc::default(),
        })
    }

    /// Tells the host of calls until it is gone, or another stream takes this one's place.
    pub(crate) async fn stand(&self, sender: &Sender, receiver: &mut Receiver) {
        let mut own = 0;
        self.streams.send_modify(|count| {
            *count += 1;
            own = *count;
        });
        let mut streams = self.streams.subscribe();
        let tell = async {
            // The stream before this one lets go as soon as it sees that it is not the newest.
            let listener = self.listener.lock().await;
            // What the host before this one was told, or was to be told, and did not take.
            let mut untaken: Vec<u64> = lock(&self.table).waiting.keys().copied().collect();
            untaken.sort_unstable();
            let mut untaken = untaken.into_iter();
            loop {
                let call = match untaken.next() {
                    Some(call) => call,
                    None => self.accept(&listener).await,
                };
                let told = sender.send(Frame::control(&CallReply::Call { call }));
                if told.await.is_err() {
                    return;
                }
            }
        };
        let gone = async { while let Ok(Some(_)) = receiver.recv().await {} };
        tokio::select! {
            () = tell => {}
            () = gone => {}
            _ = streams.wait_for(|count| *count != own) => {}
        }
    }

    /// The next connection, which waits to be taken from now on.
    async fn accept(&self, listener: &UnixListener) -> u64 {
        let slot = self.slots.clone().acquire_owned().await;
        let slot = slot.expect("nobody closes the semaphore");
        let connection = loop {
            match listener.accept().await {
                Ok((connection, _)) => break connection,
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        };
        let mut table = lock(&self.table);
        table.last += 1;
        let call = table.last;
        table.waiting.insert(call, Waiting { connection, slot });
        let table = self.table.clone();
        tokio::spawn(async move {
            sleep(TAKEN_WITHIN).await;
            lock(&table).waiting.remove(&call);
        });
        call
    }

    /// Moves the bytes of a call until both ends have said all, or one is gone.
    pub(crate) async fn take(
        &self,
        call: u64,
        sender: &Sender,
        receiver: &mut Receiver,
    ) -> Result<(), Failure> {
        let found = lock(&self.table).waiting.remove(&call);
        let Some(Waiting { connection, slot }) = found else {
            return Err(failure(FailureKind::NoSession, "the call is gone"));
        };
        let (read, write) = connection.into_split();
        if sender.send(Frame::control(&CallReply::Taken)).await.is_ok() {
            tokio::select! {
                () = inward(receiver, write) => {}
                () = outward(sender, read) => {}
            }
        }
        drop(slot);
        Ok(())
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Nothing panics while holding it.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From the host to the process. After the host's end the process has a while to read and to end as well.
async fn inward(receiver: &mut Receiver, mut write: OwnedWriteHalf) {
    loop {
        match receiver.recv().await {
            Ok(Some(frame)) if frame.kind == FrameKind::Stdin => {
                if write.write_all(&frame.payload).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                // It may have gone already.
                let _ = write.shutdown().await;
                return sleep(LINGER).await;
            }
            Ok(Some(_)) | Err(_) => return,
        }
    }
}

/// From the process to the host. The end of this direction alone ends nothing: the answer is still to come.
async fn outward(sender: &Sender, mut read: OwnedReadHalf) {
    let mut buffer = BytesMut::new();
    loop {
        // First room, then bytes: what cannot be sent stays in the socket.
        if sender.room().await.is_err() {
            return;
        }
        buffer.reserve(CHUNK);
        match read.read_buf(&mut buffer).await {
            Ok(0) => {
                sender.finish();
                return std::future::pending().await;
            }
            Ok(_) => {}
            Err(_) => return,
        }
        let bytes = buffer.split().freeze();
        let sent = sender.send(Frame::data(FrameKind::Stdout, bytes)).await;
        if sent.is_err() {
            return;
        }
    }
}
