//! Where a sprite stands.

use std::time::Duration;

use crate::event::{
    Action, DestroyStep, Memory, Moment, Operation, Policy, RequestId, Stop, Traffic, Why,
};
use crate::holds::Holds;

/// How often the wait before another attempt to fall asleep is doubled.
const SLEEP_DOUBLINGS: u32 = 6;

/// For how long no byte has passed when a sprite is put to sleep that somebody is connected to: an answer is on its way
/// for up to 200 ms, if it waits for an acknowledgement that is delayed. Source: RFC 9293 §3.8.6.3, and Linux'
/// `TCP_DELACK_MAX`.
const QUIET: Duration = Duration::from_millis(250);

/// How long after it was asked to a sprite sleeps, whatever passes; and for how long an answer is expected.
const LOUD: Duration = Duration::from_secs(2);

/// How long after it failed it is tried again to record the end of a machine. Nothing but what is told of the
/// sprite depends on it, and a full disk is not freed in a moment.
pub(crate) const RECORD_PAUSE: Duration = Duration::from_secs(2);

/// Where a sprite stands, and who waits for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub(crate) phase: Phase,
    /// Holds handed out and not let go.
    pub(crate) holds: Holds,
    /// Until when the sprite's own tasks hold it; a moment that has passed holds nothing.
    pub(crate) tasks_until: Option<Moment>,
    /// What last went over connections, as far as that was told.
    pub(crate) passed: Option<Traffic>,
    pub(crate) waiting: Waiting,
}

/// The phases of a sprite's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Its disk is being made.
    Creating,
    /// At rest, no machine.
    Cold,
    /// At rest, no machine, and that is still to be recorded.
    Unrecorded {
        /// When that is tried again.
        retry_at: Moment,
    },
    /// A machine is on its way.
    Waking(Wake),
    /// At rest, the machine runs.
    Running {
        /// Since when nobody holds it.
        idle_since: Option<Moment>,
        /// How often falling asleep failed since it was last held.
        sleepless: u32,
    },
    /// The machine is being put to sleep.
    FallingAsleep {
        /// How far that is.
        step: Sleep,
        /// How often it failed since the sprite was last held.
        sleepless: u32,
    },
    /// At rest, the memory is kept.
    Warm {
        /// Since when.
        since: Moment,
        /// Where.
        memory: Memory,
    },
    /// The machine is being ended.
    Stopping(Stop),
    /// At rest: something of a machine may be left, so that no other may be started.
    Failed {
        /// Which step failed, and what was said.
        cause: String,
    },
    /// The end is being announced; if that fails, things are as before.
    Marking(Rest),
    /// The end was announced, and is carried out until it is done.
    Destroying {
        /// The step that is done now.
        step: DestroyStep,
        /// How often it failed.
        failures: u32,
        /// When it is tried again; absent while it is under way.
        retry_at: Option<Moment>,
        /// Why the sprite could not be created, if this undoes that.
        undoes: Option<String>,
    },
    /// Nothing of it is left.
    Gone,
}

/// How a machine comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// It is started.
    Boot,
    /// It is thawed.
    Thaw,
    /// It is made from the snapshot.
    Load,
    /// It is taken over from an earlier owner.
    Adopt,
}

/// How far falling asleep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sleep {
    /// The disk is being written; the machine runs, and a wake only abandons this.
    Sync(Why),
    /// The machine is being frozen.
    Freeze,
    /// The machine's memory is being written; then there is no machine.
    Snapshot,
}

/// The states at rest that a destroy which cannot be announced goes back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rest {
    /// No machine.
    Cold,
    /// No machine, and that is still to be recorded.
    Unrecorded {
        /// When that is tried again.
        retry_at: Moment,
    },
    /// A machine runs.
    Running,
    /// The memory is kept.
    Warm {
        /// Since when.
        since: Moment,
        /// Where.
        memory: Memory,
    },
    /// Something of a machine may be left.
    Failed {
        /// Why.
        cause: String,
    },
}

/// A request to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AskedToSleep {
    pub(crate) request: RequestId,
    pub(crate) at: Moment,
    /// When it is given up.
    pub(crate) until: Moment,
}

/// Requests that were not answered yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) create: Option<RequestId>,
    pub(crate) wakes: Vec<RequestId>,
    pub(crate) sleeps: Vec<AskedToSleep>,
    pub(crate) restarts: Vec<RequestId>,
    pub(crate) destroys: Vec<RequestId>,
    pub(crate) closes: Vec<RequestId>,
    /// A close was asked for: nothing new begins, ever.
    pub(crate) closing: bool,
    /// Bytes wait for the sprite: it wakes as soon as it sleeps.
    pub(crate) stirred: bool,
    /// How often it could not be woken for them.
    pub(crate) unstirred: u32,
    /// Not before then is that tried again.
    pub(crate) stir_at: Moment,
}

impl State {
    fn at(phase: Phase) -> Self {
        Self {
            phase,
            holds: Holds::default(),
            tasks_until: None,
            passed: None,
            waiting: Waiting::default(),
        }
    }

    /// A new sprite whose name is reserved; `request` is answered when it is complete.
    #[must_use]
    pub fn creating(request: RequestId) -> (Self, Vec<Action>) {
        let mut state = Self::at(Phase::Creating);
        state.waiting.create = Some(request);
        (state, vec![Action::Perform(Operation::Create)])
    }

    /// A sprite at rest without a machine.
    #[must_use]
    pub fn cold() -> Self {
        Self::at(Phase::Cold)
    }

    /// A sprite whose memory was found again.
    #[must_use]
    pub fn warm(since: Moment, memory: Memory) -> Self {
        Self::at(Phase::Warm { since, memory })
    }

    /// A sprite whose running machine was found again.
    #[must_use]
    pub fn adopting() -> (Self, Vec<Action>) {
        (
            Self::at(Phase::Waking(Wake::Adopt)),
            vec![Action::Perform(Operation::Adopt)],
        )
    }

    /// A sprite whose end was announced, or that was never complete. Begins with the first step again.
    #[must_use]
    pub fn destroying() -> (Self, Vec<Action>) {
        let step = DestroyStep::Machine;
        let phase = Phase::Destroying {
            step,
            failures: 0,
            retry_at: None,
            undoes: None,
        };
        (
            Self::at(phase),
            vec![Action::Perform(Operation::Destroy(step))],
        )
    }

    /// Where the sprite stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Holds handed out and not let go.
    #[must_use]
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Whether a task of its own wants the sprite awake at `now`.
    pub(crate) fn has_task(&self, now: Moment) -> bool {
        self.tasks_until.is_some_and(|until| until > now)
    }

    /// Whether somebody, or a task of its own, wants the sprite awake at `now`.
    pub(crate) fn held(&self, now: Moment, policy: &Policy) -> bool {
        self.holds.keep_awake(policy) || self.has_task(now)
    }

    /// From when on a sprite sleeps that was asked to, unless calls hold it: what was sent to it before is answered by
    /// then, as far as anybody can tell.
    pub(crate) fn quiet_at(&self) -> Option<Moment> {
        let asked = self.waiting.sleeps.iter().map(|asked| asked.at).min()?;
        let quiet = match self.passed {
            Some(passed) if self.holds.is_empty() || passed.at.after(LOUD) < asked => asked,
            Some(passed) if passed.unanswered => asked.after(LOUD),
            Some(passed) => passed.at.after(QUIET),
            None => asked,
        };
        Some(quiet.min(asked.after(LOUD)))
    }

    /// Whether nothing will happen before the next request, and nothing of a machine is there: the owner may
    /// forget the state, and begin with [`State::cold`] or [`State::warm`] again unless the sprite is gone. Not while
    /// somebody is connected to what sleeps: what he sends wakes it.
    #[must_use]
    pub fn forgettable(&self) -> bool {
        match self.phase {
            Phase::Cold | Phase::Gone => true,
            Phase::Warm {
                memory: Memory::Snapshot,
                ..
            } => self.holds.is_empty(),
            Phase::Creating
            | Phase::Unrecorded { .. }
            | Phase::Waking(_)
            | Phase::Running { .. }
            | Phase::FallingAsleep { .. }
            | Phase::Warm {
                memory: Memory::Machine,
                ..
            }
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. } => false,
        }
    }

    /// When [`Event::Tick`](crate::Event::Tick) is wanted.
    #[must_use]
    pub fn deadline(&self, policy: &Policy) -> Option<Moment> {
        match &self.phase {
            Phase::Running {
                idle_since,
                sleepless,
            } => {
                let given_up = self.waiting.sleeps.iter().map(|asked| asked.until).min();
                let quiet = self.quiet_at().filter(|_| self.holds.calls == 0);
                let idle = match idle_since {
                    Some(since) => idle_until(*since, *sleepless, policy),
                    // Idleness begins with the end of the last task, unless somebody holds it then.
                    None if !self.holds.keep_awake(policy) => {
                        self.tasks_until.filter(|_| policy.idle_timeout.is_some())
                    }
                    None => None,
                };
                [given_up, quiet, idle].into_iter().flatten().min()
            }
            Phase::Warm { since, memory } => {
                let cold = match memory {
                    Memory::Machine => Some(since.after(policy.cold_after)),
                    // It costs nothing: nobody but a person drops it.
                    Memory::Snapshot => None,
                };
                let stir = self.waiting.stirred.then_some(self.waiting.stir_at);
                [cold, stir].into_iter().flatten().min()
            }
            Phase::Unrecorded { retry_at } => Some(*retry_at),
            Phase::Destroying { retry_at, .. } => *retry_at,
            Phase::Creating
            | Phase::Cold
            | Phase::Waking(_)
            | Phase::FallingAsleep { .. }
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Gone => None,
        }
    }
}

impl Waiting {
    /// Nobody waits for the sprite to wake for bytes.
    pub(crate) fn settled(&mut self) {
        (self.stirred, self.unstirred) = (false, 0);
        self.stir_at = Moment::default();
    }
}

impl Phase {
    /// Running from now on, held or not.
    pub(crate) fn running() -> Self {
        Self::Running {
            idle_since: None,
            sleepless: 0,
        }
    }
}

impl From<Rest> for Phase {
    fn from(rest: Rest) -> Self {
        match rest {
            Rest::Cold => Self::Cold,
            Rest::Unrecorded { retry_at } => Self::Unrecorded { retry_at },
            Rest::Running => Self::running(),
            Rest::Warm { since, memory } => Self::Warm { since, memory },
            Rest::Failed { cause } => Self::Failed { cause },
        }
    }
}

/// When a sprite falls asleep that is idle since then and could not so often; `None`: never.
pub(crate) fn idle_until(since: Moment, sleepless: u32, policy: &Policy) -> Option<Moment> {
    let doubled = 1 << sleepless.min(SLEEP_DOUBLINGS);
    let timeout = policy.idle_timeout?.saturating_mul(doubled);
    Some(since.after(timeout))
}

/// How long after it failed so often a sprite is woken again for whoever is connected to it.
pub(crate) fn stir_pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const DOUBLINGS: u32 = 6;
    FIRST.saturating_mul(1 << failures.saturating_sub(1).min(DOUBLINGS))
}

/// How long after its `failures`-th failure a step of a destroy is tried again.
pub(crate) fn destroy_pause(failures: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    FIRST
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST)
}
