//! One service, as its supervisor and those who ask share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_agent_api::services::{
    ServiceEvent, ServiceHappening, ServiceState, ServiceStatus, WantedService,
};
use sprite_types::{ServiceName, ServiceRun, ServiceSpec};
use tokio::sync::watch;

use super::feed::Feed;
use super::lines;
use crate::session::Group;

/// How long a process may take to end when nobody said how long. Source: behaviour reference §1.9.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// What a service is to be. Its supervisor follows every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Aim {
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) run: Run,
    /// Goes up when somebody wants it to run at once.
    pub(super) urged: u64,
    /// Goes up when its process is to be replaced.
    pub(super) replaced: u64,
    /// How long its process may take to end.
    pub(super) grace: Duration,
}

impl Aim {
    /// Whether a process that was begun for this is not the one for `now`.
    pub(super) fn is_other_than(&self, now: &Self) -> bool {
        match now.run {
            Run::Started => now.spec != self.spec || now.replaced != self.replaced,
            Run::Stopped | Run::Deleted => true,
        }
    }
}

/// Whether it is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    Started,
    Stopped,
    /// It is to be forgotten when its process has ended.
    Deleted,
}

impl From<ServiceRun> for Run {
    fn from(run: ServiceRun) -> Self {
        match run {
            ServiceRun::Started => Self::Started,
            ServiceRun::Stopped => Self::Stopped,
        }
    }
}

/// A service.
pub(super) struct Service {
    pub(super) name: ServiceName,
    pub(super) aim: watch::Sender<Aim>,
    pub(super) feed: Feed,
    now: Mutex<Now>,
}

/// How it is.
struct Now {
    state: ServiceState,
    /// Whom signals go to, while its process lives, and what that was begun for.
    group: Option<Group>,
    begun: Option<Aim>,
}

impl Service {
    pub(super) fn new(wanted: WantedService) -> Self {
        let state = ServiceState {
            name: wanted.name.clone(),
            status: ServiceStatus::Stopped,
            pid: None,
            started_unix_us: None,
            error: String::new(),
            restart_count: 0,
            next_restart_unix_us: None,
        };
        Self {
            name: wanted.name,
            aim: watch::Sender::new(Aim {
                spec: Arc::new(wanted.spec),
                run: wanted.run.into(),
                urged: 0,
                replaced: 0,
                grace: GRACE,
            }),
            feed: Feed::new(),
            now: Mutex::new(Now {
                state,
                group: None,
                begun: None,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> ServiceState {
        self.now().state.clone()
    }

    pub(super) fn status(&self) -> ServiceStatus {
        self.now().state.status
    }

    /// Changes how it is.
    pub(super) fn set(&self, change: impl FnOnce(&mut ServiceState)) {
        change(&mut self.now().state);
    }

    /// Its process is there.
    pub(super) fn set_process(&self, group: Group, begun: Aim) {
        let mut now = self.now();
        now.group = Some(group);
        now.begun = Some(begun);
    }

    /// Its process is gone.
    pub(super) fn clear_process(&self) {
        let mut now = self.now();
        now.group = None;
        now.begun = None;
    }

    /// Signals its process group; false if it has no process.
    pub(super) fn signal(&self, signal: i32) -> bool {
        let group = self.now().group.clone();
        group.is_some_and(|group| group.signal(signal).is_ok())
    }

    /// Whether its process is not the one that is wanted, which its supervisor sees next.
    pub(super) fn aim_differs(&self) -> bool {
        let begun = self.now().begun.clone();
        begun.is_none_or(|begun| begun.is_other_than(&self.aim.borrow()))
    }

    pub(super) fn tell(&self, what: ServiceHappening) {
        self.feed.push([super::event(what)], || {});
    }
}

/// Something that happened now.
pub(super) fn event(what: ServiceHappening) -> ServiceEvent {
    ServiceEvent {
        unix_ms: lines::now_ms(),
        what,
    }
}
