//! The workers' side of a disk: who takes which request, and when nobody does.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::disk::{Disk, Durability};
use super::metrics::BlockMetrics;
use super::request::{NoSpace, Request};
use crate::log;
use crate::virtio::{BrokenQueue, DeviceKind, Interrupt, Taken, VirtQueue, give_up, kick};

/// Workers of a disk: one for the request that waits for the medium, one for those that do not.
pub(super) const WORKERS: usize = 2;
/// How long a request waits before it looks for space again: nothing tells us.
const SPACE_RETRY: Duration = Duration::from_secs(1);

/// What the workers are to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Paused,
    Running,
    /// Finish what is in flight without waiting for space, then be paused.
    Resetting,
    Stopped,
}

/// The guest's side of an active disk.
pub(super) struct Active {
    pub(super) queue: VirtQueue,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) durability: Durability,
}

pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) active: Option<Active>,
    /// Heads of chains that were taken and given up for a pause; oldest first.
    pub(super) unfinished: Vec<u16>,
    in_flight: usize,
}

/// What a disk and its workers share.
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) metrics: Arc<BlockMetrics>,
    /// The queue's event, which idle workers read.
    pub(super) event: EventFd,
    state: Mutex<State>,
    /// The phase has changed.
    command: Condvar,
    /// Nothing is in flight.
    drained: Condvar,
}

/// A request in a worker's hands.
struct Job {
    taken: Taken,
    durability: Durability,
}

/// How a worker is rid of a request.
enum Outcome {
    /// Returned to the guest, so many bytes written.
    Done(u32),
    /// Kept for later.
    Unfinished,
    /// Forgotten: the guest resets the disk.
    Dropped,
    /// The chain was none.
    Broken(BrokenQueue),
}

impl Shared {
    pub(super) fn new(disk: Disk, event: EventFd) -> Self {
        Self {
            disk,
            metrics: Arc::default(),
            event,
            state: Mutex::new(State {
                phase: Phase::Paused,
                active: None,
                unfinished: Vec::new(),
                in_flight: 0,
            }),
            command: Condvar::new(),
            drained: Condvar::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Changes the phase and returns when nothing is in flight.
    pub(super) fn drain(&self, phase: Phase) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.phase = phase;
        self.command.notify_all();
        while state.in_flight > 0 {
            state = self.drained.wait(state).expect("no holder panics");
        }
        state
    }

    /// Has the workers end.
    pub(super) fn stop(&self) {
        self.state().phase = Phase::Stopped;
        self.command.notify_all();
        kick(&self.event);
    }

    /// A worker's life.
    pub(super) fn work(&self) {
        loop {
            // Blocks. It fails for no reason that a worker could do something about.
            let _count = self.event.read();
            self.work_off();
            if self.state().phase == Phase::Stopped {
                // The next worker reads it.
                kick(&self.event);
                return;
            }
        }
    }

    /// Does what there is to do.
    pub(super) fn work_off(&self) {
        while let Some(job) = self.take() {
            let outcome = self.perform(&job);
            self.finish(job.taken.head(), outcome);
        }
    }

    /// The next request, if there is one and it may be taken.
    fn take(&self) -> Option<Job> {
        let mut state = self.state();
        if state.phase != Phase::Running {
            return None;
        }
        match state.take() {
            Ok(job) => {
                let more = state.in_flight < WORKERS && state.has_more();
                if job.is_some() && more {
                    kick(&self.event);
                }
                job
            }
            Err(broken) => {
                self.give_up(&mut state, &broken);
                None
            }
        }
    }

    fn perform(&self, job: &Job) -> Outcome {
        let chain = match job.taken.chain() {
            Ok(chain) => chain,
            Err(broken) => return Outcome::Broken(broken),
        };
        let Some(request) = Request::parse(chain, &self.disk, job.durability) else {
            self.metrics.unanswerable.inc();
            return Outcome::Done(0);
        };
        let mut told = false;
        loop {
            match request.perform(&self.disk, job.durability, &self.metrics) {
                Ok(written) => return Outcome::Done(written),
                Err(NoSpace) => {
                    if !std::mem::replace(&mut told, true) {
                        log::warn(format_args!(
                            "the host has no space for what the guest writes; the guest waits"
                        ));
                    }
                    match self.wait_for_space() {
                        Phase::Running => {}
                        Phase::Paused => return Outcome::Unfinished,
                        Phase::Resetting | Phase::Stopped => return Outcome::Dropped,
                    }
                }
            }
        }
    }

    /// Waits a while or until the phase changes; the phase.
    fn wait_for_space(&self) -> Phase {
        self.metrics.waits_for_space.inc();
        self.metrics
            .waiting_for_space
            .fetch_add(1, Ordering::Relaxed);
        let running = |state: &mut State| state.phase == Phase::Running;
        let (state, _timeout) = self
            .command
            .wait_timeout_while(self.state(), SPACE_RETRY, running)
            .expect("no holder panics");
        self.metrics
            .waiting_for_space
            .fetch_sub(1, Ordering::Relaxed);
        state.phase
    }

    fn finish(&self, head: u16, outcome: Outcome) {
        let mut state = self.state();
        state.in_flight -= 1;
        let told = match outcome {
            Outcome::Done(written) => state.complete(head, written),
            Outcome::Unfinished => {
                state.unfinished.push(head);
                Ok(())
            }
            Outcome::Dropped => Ok(()),
            Outcome::Broken(broken) => Err(broken),
        };
        if let Err(broken) = told {
            self.give_up(&mut state, &broken);
        }
        if state.in_flight == 0 {
            self.drained.notify_all();
        }
    }

    fn give_up(&self, state: &mut State, broken: &BrokenQueue) {
        if let Some(active) = state.active.take() {
            self.metrics.broken.inc();
            give_up(DeviceKind::Block, &active.interrupt, broken);
        }
        state.unfinished.clear();
    }
}

impl State {
    fn take(&mut self) -> Result<Option<Job>, BrokenQueue> {
        let Some(active) = &mut self.active else {
            return Ok(None);
        };
        let taken = if self.unfinished.is_empty() {
            loop {
                if let Some(taken) = active.queue.take()? {
                    break taken;
                }
                if !active.queue.ask_for_notification()? {
                    return Ok(None);
                }
            }
        } else {
            let head = self.unfinished.remove(0);
            active.queue.taken(head)
        };
        self.in_flight += 1;
        Ok(Some(Job {
            taken,
            durability: active.durability,
        }))
    }

    /// Whether an idle worker has something to do. If not yet, the guest notifies it.
    fn has_more(&mut self) -> bool {
        let Some(active) = &mut self.active else {
            return false;
        };
        // A ring that is broken is found so by the next look.
        !self.unfinished.is_empty() || active.queue.ask_for_notification().unwrap_or(true)
    }

    fn complete(&mut self, head: u16, written: u32) -> Result<(), BrokenQueue> {
        // It may be gone: another request broke the queue.
        let Some(active) = &mut self.active else {
            return Ok(());
        };
        active.queue.add_used(head, written)?;
        if active.queue.wants_interrupt()? {
            active.interrupt.used_buffers();
        }
        Ok(())
    }
}
