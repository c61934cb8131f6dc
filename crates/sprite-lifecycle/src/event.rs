//! What goes in, and what comes out.

use std::time::Duration;

use crate::holds::Holds;

/// A moment, as the time since its owner's clock began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(pub Duration);

impl Moment {
    /// The moment that much later, or the last one that can be told.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span))
    }
}

/// Names a request until it is answered. Chosen by the owner, never twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Where the memory of a sprite that sleeps is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// In its machine, which stands still, and is lost with it.
    Machine,
    /// On the disk of the host; there is no machine.
    Snapshot,
}

/// Which connections keep a sprite awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connections {
    /// Every one that is open.
    #[default]
    Open,
    /// Only bytes that go over one.
    Traffic,
}

/// What the owner was configured with, and what the sprite's own settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// How long a sprite stays running without a hold; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// Which connections keep it running.
    pub connections: Connections,
    /// How long a sprite stays warm whose memory is kept in its machine.
    pub cold_after: Duration,
    /// Where the memory of one that falls asleep goes.
    pub memory: Memory,
    /// How many requests of a kind may wait; one more is refused as busy.
    pub most_waiting: usize,
}

/// What somebody wants of a sprite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To hold it awake.
    Wake,
    /// That it sleeps now, whoever is connected: it waits for calls, and is refused where they last longer; and for
    /// two seconds at most, for an answer and a quarter of a second without bytes.
    Sleep {
        /// When it is given up.
        until: Moment,
    },
    /// A machine that boots after this request.
    Restart,
    /// That it is gone.
    Destroy,
    /// That it sleeps or its machine stops, and nothing new begins: the owner shuts down.
    Close,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants something; answered by [`Action::Answer`].
    Requested(RequestId, Request),
    /// Holds were turned into others, or let go. A hold that begins is a [`Request::Wake`].
    Held {
        /// These began.
        added: Holds,
        /// These ended.
        released: Holds,
    },
    /// Bytes went over connections.
    Traffic(Traffic),
    /// Bytes wait that somebody sent over a connection while the sprite fell asleep or slept.
    Stirred,
    /// The sprite's own tasks hold it awake until then, or not at all.
    Tasks {
        /// When the last of them ends.
        until: Option<Moment>,
    },
    /// The operation under way has ended.
    Finished(Result<(), Fault>),
    /// The machine is gone by itself.
    MachineExited,
    /// The host is short of memory: a sprite that sleeps in its machine is to give it up.
    Pressed,
    /// Time passed; see [`State::deadline`](crate::State::deadline).
    Tick,
}

/// Bytes that went over connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// When the last of them did.
    pub at: Moment,
    /// The last of them went to the sprite, which has said nothing since.
    pub unanswered: bool,
}

/// How an operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// For people: which step, and what was said.
    pub cause: String,
    /// What is left.
    pub left: Left,
}

/// What a failed operation leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// All is as before the operation.
    AsBefore,
    /// All is as before: something inside is in use, and the sprite is not idle. Only ever of [`Operation::Sync`].
    InUse,
    /// There is no machine.
    NoMachine,
    /// There is no machine, and that could not be recorded.
    Unrecorded,
    /// There may be a machine that can neither be used nor be trusted to be gone.
    Unknown,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Begin an operation. None is under way.
    Perform(Operation),
    /// Drop the operation under way; its end is not wanted any more. Only ever [`Operation::Sync`].
    Abandon,
    /// Answer a request.
    Answer(RequestId, Answer),
}

/// What an owner does with a sprite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Make the disk, and record that the sprite is complete and its first machine announced.
    Create,
    /// Announce a machine unless one is announced, start it, and build its environment.
    Boot,
    /// Announce that the frozen machine runs on, and thaw it.
    Thaw,
    /// Make a machine from the snapshot, announce that it runs, and let it run on.
    Load,
    /// Take over a machine that an earlier owner started, and build its environment unless it stands.
    Adopt,
    /// Have the agent write the disk. May be abandoned.
    Sync(Why),
    /// Freeze the machine and record the sprite as warm.
    Freeze,
    /// Write the machine's memory, record the sprite as warm, and end the machine.
    Snapshot,
    /// End the machine, remove what it had, and record the sprite as cold.
    Stop(Stop),
    /// Announce that the sprite will be gone.
    Mark,
    /// A step of destroying it.
    Destroy(DestroyStep),
}

/// Why a sprite falls asleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was idle for a while. What runs inside may be in use all the same.
    Idle,
    /// Somebody asked for it, or the owner shuts down.
    Asked,
}

/// How to end a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The agent ends the processes and writes the disk first, if it can.
    Orderly,
    /// It does not run, or its memory is not wanted: its disk is written already.
    Hard,
}

/// The steps of destroying a sprite after it was announced, in this order. Each can be done twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DestroyStep {
    /// End its machine, if it has one.
    Machine,
    /// Delete its disk.
    Disk,
    /// Delete its row: the name is free.
    Row,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The sprite is complete.
    Created,
    /// It is awake, and one more [`Hold::Call`](crate::Hold::Call) counts until [`Event::Held`].
    Awake,
    /// It sleeps, or has no machine.
    Asleep,
    /// A machine booted after the request.
    Restarted,
    /// It is gone.
    Destroyed,
    /// It has no machine.
    Closed,
    /// It was not done.
    Refused(Refusal),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Too many wait.
    Busy,
    /// It was asked to sleep, and calls or tasks of its own keep it awake.
    Held,
    /// The sprite is gone, or going.
    Gone,
    /// The owner shuts down.
    Closing,
    /// A step failed.
    Failed(String),
}
