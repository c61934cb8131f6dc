//! One end of a stream, without its transport: what is to be sent, what came and was not consumed yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::codec::{self, Frame, HEADER, MAX_FRAME, Record};

/// Most unacknowledged bytes per direction; one frame may exceed it if nothing else is outstanding.
///
/// Large enough that two processes on one host never wait for each other's acknowledgements at full speed
/// (measured: 256 KiB costs a quarter of the throughput of 1 MiB, 4 MiB gains nothing), small enough that a
/// hundred slow readers cost a hundred MiB and not more.
pub const WINDOW: usize = 1 << 20;

/// An Ack is sent when this much was consumed since the last one.
const ACK_EVERY: u64 = (WINDOW / 8) as u64;

/// What a peer may have outstanding: a window, and the one frame that may exceed it.
const MOST_RECEIVED: usize = WINDOW + MAX_FRAME + HEADER;

/// Why a stream ended before its Fin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The other end gave the stream up.
    #[error("stream was given up by the other end")]
    Aborted,
    /// This end gave the stream up, or it was dropped.
    #[error("stream is closed")]
    Closed,
    /// The other end broke the contract.
    #[error("stream broke the contract: {0}")]
    Protocol(&'static str),
    /// The other end cannot be reached any more.
    #[error("machine cannot be reached: {0}")]
    Gone(String),
}

#[derive(Debug)]
struct Outgoing {
    header: Bytes,
    payload: Bytes,
    /// Offset of its first byte.
    offset: u64,
}

impl Outgoing {
    fn end(&self) -> u64 {
        self.offset + (self.header.len() + self.payload.len()) as u64
    }
}

/// The state that operation and transport share.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// Frames from the first unacknowledged one on.
    outbox: VecDeque<Outgoing>,
    /// Index in `outbox` of the next frame to put on the transport.
    next: usize,
    /// Offset behind the last frame ever queued.
    queued: u64,
    /// Everything below was consumed by the other end.
    acked: u64,
    /// This end sends no more.
    fin_queued: bool,

    inbox: VecDeque<Frame>,
    /// Offset behind the last whole frame received.
    received: u64,
    /// Offset behind the last frame that the operation took.
    consumed: u64,
    /// What the last Ack said.
    ack_sent: u64,
    fin_received: bool,
    /// The operation no longer reads: what comes is consumed at once.
    discarding: bool,

    failed: Option<LinkError>,
}

/// Is told what goes to and fro, frame by frame: must be quick, and not block.
pub trait Observe: Send + Sync + 'static {
    /// The operation has something to send.
    fn sends(&self);
    /// It begins to wait for room, or ceases to.
    fn waits(&self, begins: bool);
    /// The operation has taken what the other end sent.
    fn received(&self);
}

#[derive(Default)]
pub(crate) struct Shared {
    /// Who is told of the traffic.
    observer: Option<Arc<dyn Observe>>,
    state: Mutex<State>,
    /// There is something to send: frames, an Ack, an Abort.
    pub(crate) to_send: Notify,
    /// There is room in the window, or the stream failed.
    room: Notify,
    /// There is something in the inbox, or the stream ended.
    arrived: Notify,
    /// The stream failed; for those who wait for nothing else.
    over: Notify,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn observed(observer: Option<Arc<dyn Observe>>) -> Self {
        Self {
            observer,
            ..Self::default()
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while holding it; if one did, the state is still what the last whole step left.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next record for the transport: an Ack if one is due, else the next unsent frame.
    pub(crate) fn next_to_send(&self) -> Option<(Bytes, Bytes)> {
        let mut state = self.lock();
        let all = state.fin_received && state.consumed == state.received;
        let unsaid = state.consumed - state.ack_sent;
        if unsaid >= ACK_EVERY || (all && unsaid > 0) {
            state.ack_sent = state.consumed;
            return Some(codec::encode(&Record::Ack(state.consumed)));
        }
        let next = state.next;
        let record = state
            .outbox
            .get(next)
            .map(|out| (out.header.clone(), out.payload.clone()))?;
        state.next += 1;
        Some(record)
    }

    /// How far this end received whole frames: what a Hello or Welcome says.
    pub(crate) fn received(&self) -> u64 {
        self.lock().received
    }

    /// A new transport: the other end received everything below `offset`; send again from there.
    pub(crate) fn rewind(&self, offset: u64) -> Result<(), LinkError> {
        let mut state = self.lock();
        if offset < state.acked || offset > state.queued {
            return Err(LinkError::Protocol(
                "resumed at an offset that was never sent",
            ));
        }
        let next = state.outbox.partition_point(|out| out.offset < offset);
        let aligned = state
            .outbox
            .get(next)
            .map_or(state.queued, |out| out.offset);
        if aligned != offset {
            return Err(LinkError::Protocol("resumed in the middle of a frame"));
        }
        state.next = next;
        // The Acks so far may have been lost with the old transport: say the last one again.
        state.ack_sent = 0;
        drop(state);
        self.to_send.notify_one();
        Ok(())
    }

    /// A record from the transport. An error ends the stream.
    pub(crate) fn on_record(&self, record: Record) -> Result<(), LinkError> {
        let mut state = self.lock();
        match record {
            Record::Frame(frame) => {
                if state.fin_received {
                    return Err(LinkError::Protocol("frame after the end"));
                }
                state.received += (HEADER + frame.payload.len()) as u64;
                if state.received - state.consumed > MOST_RECEIVED as u64 {
                    return Err(LinkError::Protocol("more sent than the window allows"));
                }
                if state.discarding {
                    state.consumed = state.received;
                    drop(state);
                    self.to_send.notify_one();
                    return Ok(());
                }
                state.inbox.push_back(frame);
                drop(state);
                self.arrived.notify_one();
            }
            Record::Fin => {
                if state.fin_received {
                    return Err(LinkError::Protocol("second end"));
                }
                state.received += HEADER as u64;
                state.fin_received = true;
                if state.inbox.is_empty() {
                    state.consumed = state.received;
                }
                drop(state);
                self.arrived.notify_one();
                self.to_send.notify_one();
            }
            Record::Ack(offset) => {
                if offset > state.queued {
                    return Err(LinkError::Protocol("acknowledged what was never sent"));
                }
                state.acked = state.acked.max(offset);
                while state
                    .outbox
                    .front()
                    .is_some_and(|out| out.end() <= state.acked)
                {
                    if state.next == 0 {
                        return Err(LinkError::Protocol("acknowledged before it was sent"));
                    }
                    state.outbox.pop_front();
                    state.next -= 1;
                }
                let all = state.fin_queued && state.outbox.is_empty();
                drop(state);
                self.room.notify_one();
                if all {
                    self.to_send.notify_one();
                }
            }
            // What may come behind it is not heard any more.
            Record::Abort => return Err(LinkError::Aborted),
        }
        Ok(())
    }

    /// Ends the stream, both directions. The first reason stays.
    pub(crate) fn fail(&self, reason: LinkError) {
        let mut state = self.lock();
        state.failed.get_or_insert(reason);
        state.outbox.clear();
        state.next = 0;
        drop(state);
        self.to_send.notify_one();
        self.room.notify_one();
        self.arrived.notify_one();
        self.over.notify_waiters();
    }

    /// Why the stream failed, if it did.
    pub(crate) fn failure(&self) -> Option<LinkError> {
        self.lock().failed.clone()
    }

    /// Returns when the stream failed. Only for the time without a transport: it takes the sender's wake-ups.
    pub(crate) async fn until_failed(&self) {
        while self.failure().is_none() {
            self.to_send.notified().await;
        }
    }

    /// Whether both ends know that both directions are complete: nothing needs a transport any more.
    pub(crate) fn finished(&self) -> bool {
        let state = self.lock();
        let received_all = state.fin_received && state.consumed == state.received;
        let sent_all = state.fin_queued && state.outbox.is_empty();
        received_all && sent_all && state.ack_sent == state.consumed
    }

    /// Whether the operation has everything that the other end had to say.
    pub(crate) fn received_all(&self) -> bool {
        let state = self.lock();
        state.fin_received && state.consumed == state.received
    }

    fn has_room(state: &State, window: usize) -> bool {
        state.queued - state.acked < window as u64
    }

    fn push(&self, state: &mut State, record: &Record) {
        let (header, payload) = codec::encode(record);
        let out = Outgoing {
            header,
            payload,
            offset: state.queued,
        };
        state.queued = out.end();
        state.outbox.push_back(out);
        self.to_send.notify_one();
    }
}

/// Where an operation sends its frames. Dropping it without [`Sender::finish`] gives the stream up, unless the
/// other end had finished before.
#[derive(Debug)]
pub struct Sender {
    pub(crate) shared: Arc<Shared>,
}

impl Sender {
    /// Queues a frame; waits while the window is full, which is the back-pressure of a slow reader.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Cancelled, the frame was not queued.
    pub async fn send(&self, frame: Frame) -> Result<(), LinkError> {
        let waits = self.shared.observer.as_deref().map(|observer| {
            observer.sends();
            Waits::begin(observer)
        });
        self.room().await?;
        drop(waits);
        let mut state = self.shared.lock();
        self.shared.push(&mut state, &Record::Frame(frame));
        Ok(())
    }

    /// Waits until a frame would be taken at once.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room(&self) -> Result<(), LinkError> {
        self.room_within(WINDOW).await
    }

    /// Waits until fewer than `window` bytes are unacknowledged: for streams of which there are many. A window of
    /// less than a quarter of [`WINDOW`] may never open again, since acknowledgements are collected.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn room_within(&self, window: usize) -> Result<(), LinkError> {
        loop {
            {
                let state = self.shared.lock();
                if let Some(reason) = &state.failed {
                    return Err(reason.clone());
                }
                if state.fin_queued {
                    return Err(LinkError::Closed);
                }
                if Shared::has_room(&state, window) {
                    return Ok(());
                }
            }
            self.shared.room.notified().await;
        }
    }

    /// Waits until the other end has consumed all that was sent; for an end of the process right behind it.
    ///
    /// # Errors
    /// The stream failed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn drained(&self) -> Result<(), LinkError> {
        loop {
            {
                let state = self.shared.lock();
                if let Some(reason) = &state.failed {
                    return Err(reason.clone());
                }
                if state.outbox.is_empty() {
                    return Ok(());
                }
            }
            self.shared.room.notified().await;
        }
    }

    /// Whether the stream failed: nothing that is sent arrives any more.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.shared.failure().is_some()
    }

    /// Returns when the stream has failed: for an operation that waits for something else, and neither sends nor
    /// reads meanwhile.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_failed(&self) {
        let over = self.shared.over.notified();
        tokio::pin!(over);
        // Whatever fails from here on wakes it.
        over.as_mut().enable();
        if !self.failed() {
            over.await;
        }
    }

    /// Says that nothing more follows.
    pub fn finish(&self) {
        let mut state = self.shared.lock();
        if !state.fin_queued && state.failed.is_none() {
            state.fin_queued = true;
            self.shared.push(&mut state, &Record::Fin);
        }
    }

    /// Gives the stream up, both directions, and tells the other end.
    pub fn abort(&self) {
        self.shared.fail(LinkError::Closed);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let state = self.shared.lock();
        let (over, theirs) = (
            state.fin_queued || state.failed.is_some(),
            state.fin_received,
        );
        drop(state);
        match (over, theirs) {
            (true, true | false) => {}
            (false, true) => self.finish(),
            (false, false) => self.abort(),
        }
    }
}

/// Something waits for room, until this is dropped.
struct Waits<'a>(&'a dyn Observe);

impl<'a> Waits<'a> {
    fn begin(observer: &'a dyn Observe) -> Self {
        observer.waits(true);
        Self(observer)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waits(false);
    }
}

/// Where an operation takes the other end's frames. Dropping it early gives the stream up, unless this end has
/// finished sending: then the rest is thrown away, and what was sent still arrives.
#[derive(Debug)]
pub struct Receiver {
    pub(crate) shared: Arc<Shared>,
}

impl Receiver {
    /// The next frame; `None` after the other end's Fin.
    ///
    /// # Errors
    /// The stream failed. Frames that arrived before are handed out first.
    ///
    /// # Cancel safety
    /// Safe: cancelled, no frame was taken.
    pub async fn recv(&mut self) -> Result<Option<Frame>, LinkError> {
        loop {
            {
                let mut state = self.shared.lock();
                if let Some(frame) = state.inbox.pop_front() {
                    state.consumed += (HEADER + frame.payload.len()) as u64;
                    let last = state.fin_received && state.inbox.is_empty();
                    if last {
                        // The Fin behind the last frame needs no reading.
                        state.consumed = state.received;
                    }
                    let due = state.consumed - state.ack_sent >= ACK_EVERY;
                    drop(state);
                    if let Some(observer) = &self.shared.observer {
                        observer.received();
                    }
                    if due || last {
                        self.shared.to_send.notify_one();
                    }
                    return Ok(Some(frame));
                }
                if state.fin_received {
                    return Ok(None);
                }
                if let Some(reason) = &state.failed {
                    return Err(reason.clone());
                }
            }
            self.shared.arrived.notified().await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.fin_queued {
            state.discarding = true;
            state.inbox.clear();
            state.consumed = state.received;
            drop(state);
            self.shared.to_send.notify_one();
        } else if !state.fin_received && state.failed.is_none() {
            drop(state);
            self.shared.fail(LinkError::Closed);
        }
    }
}
