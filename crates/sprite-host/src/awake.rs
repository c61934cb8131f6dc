//! Holds: what keeps a sprite awake.

use std::fmt;
use std::io;
use std::sync::Arc;

use futures_util::FutureExt;
use sprite_agent_api::Frame;
use sprite_agent_api::fs::FsCall;
use sprite_agent_api::link::{self, Connect, Epoch, Stream, StreamId};
use sprite_agent_api::message::Request;
use sprite_agent_api::services::ServicesCall;
use sprite_lifecycle::Hold;
use sprite_machine::Machine;
use sprite_types::MachineId;
use tokio::net::TcpStream;

use crate::dialled::Dialled;
use crate::ledger::Ledger;
use crate::line::Connector;
use crate::reusable::Reusable;

/// Keeps a sprite awake until it is dropped, and opens streams to its agent.
///
/// It begins as a [`Hold::Call`], and [`Awake::lasts`] makes something else of it. No hold keeps a sprite from being
/// destroyed or restarted, nor its machine from dying: then the streams that were opened end with an error. Streams
/// of holds that let the sprite sleep stand still with it, and go on when it wakes; what is sent on one of them wakes
/// it.
pub struct Awake {
    machine: MachineId,
    line: Connector,
    epoch: Epoch,
    hold: Hold,
    ledger: Arc<Ledger>,
}

impl Awake {
    pub(crate) fn new(
        machine: MachineId,
        line: Connector,
        epoch: Epoch,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self {
            machine,
            line,
            epoch,
            hold: Hold::Call,
            ledger,
        }
    }

    /// Opens a stream with `request` as its first message. Returns at once: failures show when the stream is
    /// read. What goes to and fro on it begins the sprite's idle time anew, unless it only watches.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn open(&self, request: &Request) -> Stream {
        let line = Arc::new(self.line.clone());
        let stream = if watches(request) {
            link::open(line, self.epoch, random())
        } else {
            link::open_observed(line, self.epoch, random(), self.ledger.clone())
        };
        begin(stream, request)
    }

    /// Like [`Awake::open`], for a stream that outlives this hold and is used by others after it.
    #[must_use]
    pub fn open_reusable(&self, request: &Request) -> (Stream, Reusable) {
        let reusable = Reusable::new(self.line.clone(), self.ledger.clone());
        let line = Arc::new(self.line.clone());
        let stream = link::open_observed(line, self.epoch, random(), reusable.observer());
        (begin(stream, request), reusable)
    }

    /// Connects to a port of the machine's own loopback interface, past its agent. `None` where the agent has to do it.
    ///
    /// # Errors
    /// Nobody takes the connection, or the machine has ended.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn dial(&self, port: u16) -> Option<io::Result<Dialled>> {
        let tcp = self.tcp(port).await?;
        Some(tcp.and_then(|tcp| Dialled::new(tcp, self.ledger.clone())))
    }

    /// Like [`Awake::dial`], for a connection that outlives this hold and is used by others after it.
    ///
    /// # Errors
    /// As [`Awake::dial`].
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn dial_reusable(&self, port: u16) -> Option<io::Result<(Dialled, Reusable)>> {
        let tcp = self.tcp(port).await?;
        let reusable = Reusable::new(self.line.clone(), self.ledger.clone());
        let dialled = tcp.and_then(|tcp| Dialled::new(tcp, reusable.observer()));
        Some(dialled.map(|dialled| (dialled, reusable)))
    }

    async fn tcp(&self, port: u16) -> Option<io::Result<TcpStream>> {
        match self.line.machine().await {
            Some(machine) => machine.dial(port).await,
            None => Some(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Whether this holds the memory to which that leads.
    pub(crate) fn is_on(&self, line: &Connector) -> bool {
        self.line.is_same(line)
    }

    /// From now on this is a hold of that kind.
    pub fn lasts(&mut self, hold: Hold) {
        let before = std::mem::replace(&mut self.hold, hold);
        if before != hold {
            self.ledger.turn(before, hold);
        }
    }

    /// Whether the sprite sleeps now: what is sent to it would wake it.
    #[must_use]
    pub fn sleeps(&self) -> bool {
        self.line.sleeps()
    }

    /// Returns when the sprite falls asleep or its machine ends.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn until_asleep(&self) {
        self.line.until_asleep().await;
    }

    /// The machine that ran when this began.
    #[must_use]
    pub fn machine(&self) -> MachineId {
        self.machine
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        self.ledger.release(self.hold);
    }
}

impl fmt::Debug for Awake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Awake")
            .field("machine", &self.machine)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

/// Whether nothing that goes to and fro for this is anybody's use of the sprite.
fn watches(request: &Request) -> bool {
    match request {
        Request::Ports => true,
        Request::Fs(spec) => matches!(spec.call, FsCall::Watch),
        Request::Services(spec) => matches!(spec.call, ServicesCall::Logs { .. }),
        _ => false,
    }
}

/// A stream to the agent of `machine` with `request` as its first message; it ends with that machine.
pub(crate) fn open_stream(machine: &Arc<dyn Machine>, epoch: Epoch, request: &Request) -> Stream {
    let connector: Arc<dyn Connect> = machine.clone().connector();
    begin(link::open(connector, epoch, random()), request)
}

fn random() -> StreamId {
    StreamId(uuid::Uuid::new_v4().as_u128())
}

fn begin(stream: Stream, request: &Request) -> Stream {
    // The window of a new stream is empty, so this does not wait; if the stream failed meanwhile, its reader is
    // told.
    let _ = stream.sender.send(Frame::control(request)).now_or_never();
    stream
}
