//! What all tasks of a host share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprite_agent_api::link::Epoch;
use sprite_catalog::{Catalog, Sprite};
use sprite_lifecycle::{Connections, Memory, Moment, Policy};
use sprite_machine::MachineDriver;
use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alarms::Alarms;
use crate::books::Books;
use crate::calls::{self, Call, Calls};
use crate::disks::Disks;
use crate::fault::FaultPoint;
use crate::metrics::Metrics;
use crate::options::HostOptions;
use crate::registry::Registry;
use crate::watch::Watchers;

/// How many requests of a kind wait for one sprite; one more is told that it is busy.
const MOST_WAITING: usize = 1024;

pub(crate) struct Shared {
    pub(crate) catalog: Books,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) driver: Arc<dyn MachineDriver>,
    pub(crate) options: HostOptions,
    /// This process, for the agents.
    pub(crate) epoch: Epoch,
    pub(crate) registry: Registry,
    pub(crate) watchers: Watchers,
    /// Where calls from inside go.
    pub(crate) calls: mpsc::Sender<Call>,
    /// Who takes them there, until somebody does.
    pub(crate) incoming_calls: Mutex<Option<Calls>>,
    pub(crate) alarms: Alarms,
    /// Ends what goes on for as long as the host is open.
    pub(crate) closing: CancellationToken,
    /// A permit for every machine that may be started at the same time.
    pub(crate) boots: Semaphore,
    pub(crate) began: Instant,
    pub(crate) metrics: Metrics,
    /// A machine began to run.
    pub(crate) ran: Notify,
    tasks: Mutex<JoinSet<()>>,
}

impl Shared {
    pub(crate) fn new(
        catalog: Catalog,
        disks: Arc<dyn Disks>,
        driver: Arc<dyn MachineDriver>,
        options: HostOptions,
    ) -> Self {
        let (calls, incoming) = mpsc::channel(calls::WAITING);
        let boots = Semaphore::new(options.boots_at_once.clamp(1, Semaphore::MAX_PERMITS));
        let catalog = Books::new(catalog, options.faults.stage());
        Self {
            catalog,
            disks,
            driver,
            options,
            epoch: Epoch(uuid::Uuid::new_v4().as_u64_pair().0),
            registry: Registry::default(),
            watchers: Watchers::default(),
            calls,
            incoming_calls: Mutex::new(Some(Calls { incoming })),
            alarms: Alarms::default(),
            closing: CancellationToken::new(),
            boots,
            began: Instant::now(),
            metrics: Metrics::default(),
            ran: Notify::new(),
            tasks: Mutex::default(),
        }
    }

    /// Stands beside a step.
    pub(crate) async fn fault(&self, point: FaultPoint) {
        self.options.faults.at(point).await;
    }

    fn memory(&self) -> Memory {
        if self.driver.keeps_snapshots() {
            Memory::Snapshot
        } else {
            Memory::Machine
        }
    }

    pub(crate) fn policy(&self) -> Policy {
        Policy {
            idle_timeout: self.options.idle_timeout,
            connections: Connections::Open,
            cold_after: self.options.cold_after,
            memory: self.memory(),
            most_waiting: MOST_WAITING,
        }
    }

    /// The time of day, as the catalog keeps it.
    pub(crate) fn time(&self) -> OffsetDateTime {
        self.options.faults.time()
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(self.began.elapsed())
    }

    /// The moment of a time of day, as the clock stands now; what is over is now.
    pub(crate) fn moment(&self, at: OffsetDateTime) -> Moment {
        let left = at - self.time();
        self.now().after(left.try_into().unwrap_or_default())
    }

    /// The instant of a moment; `None` if the clock cannot tell one so late.
    pub(crate) fn instant(&self, moment: Moment) -> Option<Instant> {
        self.began.checked_add(moment.0)
    }

    /// Tells those who watch the sprite's organisation how its row is now. Costs nothing if nobody does.
    pub(crate) async fn publish(&self, sprite: &Sprite) {
        if !self.watchers.any(&sprite.org) {
            return;
        }
        match self.catalog.sprite(sprite.id).await {
            Ok(Some(now)) => self.watchers.changed(now),
            // Deleted meanwhile: that is told by who deletes.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "read a sprite for its watchers"
                );
                self.watchers.missed(&sprite.org);
            }
        }
    }

    /// Runs `task` until it ends or the host does.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        // Forget those that ended, so that the set is as large as what runs.
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                // Its sprite answers no more until the next start: nobody knows what state it was left in.
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a task of the host panicked"
                );
            }
        }
        tasks.spawn(task);
    }

    /// Stops every task where it is.
    pub(crate) fn abort(&self) {
        self.tasks().abort_all();
    }

    /// Stops every task where it is, and waits until none runs.
    pub(crate) async fn kill(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                return;
            }
            tasks.shutdown().await;
        }
    }

    /// Waits until every task has ended.
    pub(crate) async fn join(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.tasks());
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // Nothing panics while holding it.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time now, as the catalog keeps it: in whole microseconds.
pub(crate) fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}
