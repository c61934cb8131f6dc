//! Holds: what keeps a sprite awake.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use sprite_agent_api::Frame;
use sprite_agent_api::link::{self, Epoch, Stream, StreamId};
use sprite_agent_api::message::Request;
use sprite_machine::Machine;
use sprite_types::MachineId;
use tokio::sync::Notify;

/// Counts the holds that were let go since the sprite's task looked last.
///
/// A hold is let go in `Drop`, which can neither wait nor fail: so it counts here and wakes the task, instead of
/// going through the bounded mailbox.
#[derive(Debug, Default)]
pub(crate) struct Released {
    count: AtomicU32,
    changed: Notify,
}

impl Released {
    /// One more was let go.
    pub(crate) fn one(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.changed.notify_one();
    }

    /// Waits for at least one, and takes them all.
    ///
    /// # Cancel safety
    /// Safe: cancelled, none was taken.
    pub(crate) async fn take(&self) -> u32 {
        loop {
            let count = self.count.swap(0, Ordering::AcqRel);
            if count > 0 {
                return count;
            }
            self.changed.notified().await;
        }
    }
}

/// Keeps a sprite awake until it is dropped, and opens streams to its agent.
///
/// A hold keeps a sprite from falling asleep; it does not keep it from being destroyed or restarted, nor its
/// machine from dying. Then the streams that were opened end with an error.
pub struct Awake {
    machine: Arc<dyn Machine>,
    epoch: Epoch,
    released: Arc<Released>,
}

impl Awake {
    pub(crate) fn new(machine: Arc<dyn Machine>, epoch: Epoch, released: Arc<Released>) -> Self {
        Self {
            machine,
            epoch,
            released,
        }
    }

    /// Opens a stream with `request` as its first message. Returns at once: failures show when the stream is
    /// read.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn open(&self, request: &Request) -> Stream {
        open_stream(&self.machine, self.epoch, request)
    }

    /// The machine that runs.
    #[must_use]
    pub fn machine(&self) -> MachineId {
        self.machine.identity().machine
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.released.one();
    }
}

impl fmt::Debug for Awake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awake")
            .field("machine", &self.machine())
            .finish_non_exhaustive()
    }
}

/// A stream to the agent of `machine` with `request` as its first message.
pub(crate) fn open_stream(machine: &Arc<dyn Machine>, epoch: Epoch, request: &Request) -> Stream {
    let id = StreamId(uuid::Uuid::new_v4().as_u128());
    let stream = link::open(machine.clone().connector(), epoch, id);
    // The window of a new stream is empty, so this does not wait; if the stream failed meanwhile, its reader is
    // told.
    let _ = stream.sender.send(Frame::control(request)).now_or_never();
    stream
}
