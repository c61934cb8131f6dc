//! Every state against every event.

use crate::event::{
    Action, Answer, DestroyStep, Event, Fault, Left, Memory, Moment, Operation, Policy, Refusal,
    Request, RequestId, Stop, Traffic, Why,
};
use crate::holds::Holds;
use crate::state::{
    AskedToSleep, Phase, RECORD_PAUSE, Sleep, State, Wake, destroy_pause, idle_until, stir_pause,
};

/// How often a step of a destroy fails before those who wait for it are told; it is tried on after that.
const PATIENCE: u32 = 3;

/// What a sprite does when `event` happens at `now`: its next state, and what is to be done for it.
#[must_use]
pub fn step(state: &State, event: Event, now: Moment, policy: &Policy) -> (State, Vec<Action>) {
    let mut turn = Turn {
        state: state.clone(),
        actions: Vec::new(),
        now,
        policy: *policy,
    };
    match event {
        Event::Requested(id, request) => turn.requested(id, request),
        Event::Held { added, released } => turn.held(added, released),
        Event::Traffic(traffic) => turn.traffic(traffic),
        Event::Stirred => turn.stirred(),
        Event::Tasks { until } => turn.tasks(until),
        Event::Finished(Ok(())) => turn.done(),
        Event::Finished(Err(fault)) => turn.failed(fault),
        Event::MachineExited => turn.machine_exited(),
        Event::Pressed => turn.pressed(),
        Event::Tick => turn.tick(),
    }
    turn.settle();
    (turn.state, turn.actions)
}

/// One event being taken in.
pub(crate) struct Turn {
    pub(crate) state: State,
    pub(crate) actions: Vec<Action>,
    pub(crate) now: Moment,
    pub(crate) policy: Policy,
}

impl Turn {
    pub(crate) fn answer(&mut self, request: RequestId, answer: Answer) {
        self.actions.push(Action::Answer(request, answer));
    }

    pub(crate) fn answer_all(&mut self, requests: Vec<RequestId>, answer: &Answer) {
        for request in requests {
            self.answer(request, answer.clone());
        }
    }

    pub(crate) fn perform(&mut self, operation: Operation, during: Phase) {
        self.state.phase = during;
        self.actions.push(Action::Perform(operation));
    }

    pub(crate) fn fall_asleep(&mut self, why: Why, sleepless: u32) {
        let step = Sleep::Sync(why);
        self.perform(
            Operation::Sync(why),
            Phase::FallingAsleep { step, sleepless },
        );
    }

    pub(crate) fn stop(&mut self, how: Stop) {
        self.perform(Operation::Stop(how), Phase::Stopping(how));
    }

    pub(crate) fn destroy(&mut self, step: DestroyStep, undoes: Option<String>) {
        let phase = Phase::Destroying {
            step,
            failures: 0,
            retry_at: None,
            undoes,
        };
        self.perform(Operation::Destroy(step), phase);
    }

    fn requested(&mut self, id: RequestId, request: Request) {
        let waiting = &mut self.state.waiting;
        let queue = match request {
            Request::Sleep { until } => return self.sleep_requested(id, until),
            Request::Wake => &mut waiting.wakes,
            Request::Restart => &mut waiting.restarts,
            Request::Destroy => &mut waiting.destroys,
            Request::Close => {
                waiting.closing = true;
                &mut waiting.closes
            }
        };
        if queue.len() >= self.policy.most_waiting {
            return self.answer(id, Answer::Refused(Refusal::Busy));
        }
        queue.push(id);
        match (&self.state.phase, request) {
            // The machine still runs: no request waits for a sleep that has not begun.
            (
                Phase::FallingAsleep {
                    step: Sleep::Sync(_),
                    ..
                },
                Request::Wake
                | Request::Sleep { .. }
                | Request::Restart
                | Request::Destroy
                | Request::Close,
            ) => {
                self.stay_awake();
            }
            // Somebody wants it gone now: do not wait for the next attempt.
            (
                Phase::Destroying {
                    retry_at: Some(_), ..
                },
                Request::Destroy,
            ) => self.retry_destroy(),
            (
                Phase::Creating
                | Phase::Cold
                | Phase::Unrecorded { .. }
                | Phase::Waking(Wake::Boot | Wake::Thaw | Wake::Load | Wake::Adopt)
                | Phase::Running { .. }
                | Phase::FallingAsleep {
                    step: Sleep::Freeze | Sleep::Snapshot,
                    ..
                }
                | Phase::Warm { .. }
                | Phase::Stopping(Stop::Orderly | Stop::Hard)
                | Phase::Failed { .. }
                | Phase::Marking(_)
                | Phase::Destroying { .. }
                | Phase::Gone,
                Request::Wake
                | Request::Sleep { .. }
                | Request::Restart
                | Request::Destroy
                | Request::Close,
            ) => {}
        }
    }

    /// Waits beside whatever is under way: nothing is abandoned for it.
    fn sleep_requested(&mut self, id: RequestId, until: Moment) {
        if self.state.waiting.sleeps.len() >= self.policy.most_waiting {
            return self.answer(id, Answer::Refused(Refusal::Busy));
        }
        self.state.waiting.sleeps.push(AskedToSleep {
            request: id,
            at: self.now,
            until,
        });
    }

    fn held(&mut self, added: Holds, released: Holds) {
        self.state.holds = self.state.holds.and(added).without(released);
    }

    fn traffic(&mut self, traffic: Traffic) {
        self.state.passed = Some(traffic);
        let at = traffic.at;
        match &mut self.state.phase {
            Phase::Running { idle_since, .. } => {
                if let Some(since) = idle_since {
                    *since = at.max(*since);
                }
            }
            Phase::FallingAsleep {
                step: Sleep::Sync(Why::Idle),
                ..
            } if !self.state.waiting.closing => self.stay_awake(),
            // It was asked to sleep, or is on its way: what comes afterwards tells so.
            Phase::FallingAsleep { .. }
            | Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(_)
            | Phase::Warm { .. }
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => {}
        }
    }

    fn stirred(&mut self) {
        self.traffic(Traffic {
            at: self.now,
            unanswered: true,
        });
        match self.state.phase {
            // On its way it may fail yet.
            Phase::FallingAsleep { .. }
            | Phase::Warm { .. }
            | Phase::Waking(Wake::Thaw | Wake::Load) => {
                self.state.waiting.stirred = !self.state.waiting.closing;
            }
            // It runs, or nothing is connected to it.
            Phase::Running { .. }
            | Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(Wake::Boot | Wake::Adopt)
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => {}
        }
    }

    fn pressed(&mut self) {
        let sleeps_on = matches!(
            self.state.phase,
            Phase::Warm {
                memory: Memory::Machine,
                ..
            }
        );
        // Whoever waits for it to wake has it wake.
        if sleeps_on && !self.state.waiting.stirred {
            self.stop(Stop::Hard);
        }
    }

    /// Gives a sleep up that has not begun.
    fn stay_awake(&mut self) {
        self.actions.push(Action::Abandon);
        self.state.phase = Phase::running();
    }

    fn tasks(&mut self, until: Option<Moment>) {
        self.state.tasks_until = until;
        if let Phase::FallingAsleep {
            step: Sleep::Sync(_),
            ..
        } = self.state.phase
            && self.state.has_task(self.now)
            && !self.state.waiting.closing
        {
            self.stay_awake();
        }
    }

    fn done(&mut self) {
        match self.state.phase.clone() {
            Phase::Creating => {
                if let Some(request) = self.state.waiting.create.take() {
                    self.answer(request, Answer::Created);
                }
                self.after_creation();
            }
            Phase::Waking(how) => {
                self.state.phase = Phase::running();
                match how {
                    // Whoever asked for a fresh machine has one, even if it was on its way already.
                    Wake::Boot => {
                        let restarts = std::mem::take(&mut self.state.waiting.restarts);
                        self.answer_all(restarts, &Answer::Restarted);
                    }
                    Wake::Thaw | Wake::Load | Wake::Adopt => {}
                }
            }
            Phase::FallingAsleep {
                step: Sleep::Sync(_),
                sleepless,
            } => {
                let (operation, step) = match self.policy.memory {
                    Memory::Machine => (Operation::Freeze, Sleep::Freeze),
                    Memory::Snapshot => (Operation::Snapshot, Sleep::Snapshot),
                };
                self.perform(operation, Phase::FallingAsleep { step, sleepless });
            }
            Phase::FallingAsleep {
                step: Sleep::Freeze,
                ..
            } => self.warm(Memory::Machine),
            Phase::FallingAsleep {
                step: Sleep::Snapshot,
                ..
            } => self.warm(Memory::Snapshot),
            Phase::Stopping(Stop::Orderly | Stop::Hard) => self.state.phase = Phase::Cold,
            Phase::Marking(_) => self.destroy(DestroyStep::Machine, None),
            Phase::Destroying {
                step,
                undoes,
                retry_at: None,
                ..
            } => match step {
                DestroyStep::Machine => self.destroy(DestroyStep::Disk, undoes),
                DestroyStep::Disk => self.destroy(DestroyStep::Row, undoes),
                DestroyStep::Row => self.gone(undoes),
            },
            // Nothing was under way.
            Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Running { .. }
            | Phase::Warm { .. }
            | Phase::Failed { .. }
            | Phase::Destroying {
                retry_at: Some(_), ..
            }
            | Phase::Gone => {}
        }
    }

    fn warm(&mut self, memory: Memory) {
        let since = self.now;
        self.state.phase = Phase::Warm { since, memory };
    }

    /// The sprite is complete and its first machine is announced, but not started.
    fn after_creation(&mut self) {
        if !self.state.waiting.destroys.is_empty() {
            self.perform(Operation::Mark, Phase::Marking(crate::Rest::Cold));
        } else if self.state.waiting.closing {
            // Takes the announcement back.
            self.stop(Stop::Hard);
        } else {
            self.perform(Operation::Boot, Phase::Waking(Wake::Boot));
        }
    }

    fn gone(&mut self, undoes: Option<String>) {
        self.state.phase = Phase::Gone;
        if let Some(request) = self.state.waiting.create.take() {
            let refusal = undoes.map_or(Refusal::Gone, Refusal::Failed);
            self.answer(request, Answer::Refused(refusal));
        }
    }

    fn failed(&mut self, Fault { cause, left }: Fault) {
        match self.state.phase.clone() {
            // The sprite was never complete: undo it.
            Phase::Creating => self.destroy(DestroyStep::Machine, Some(cause)),
            Phase::Waking(how) => self.wake_failed(how, cause, left),
            Phase::FallingAsleep {
                step: Sleep::Sync(_) | Sleep::Freeze | Sleep::Snapshot,
                sleepless,
            } => {
                let used = left == Left::InUse;
                if !used {
                    self.refuse_sleeps(&Refusal::Failed(cause.clone()));
                }
                let sleepless = sleepless.saturating_add(u32::from(!used));
                let before = Phase::Running {
                    idle_since: Some(self.now),
                    sleepless,
                };
                self.after_fault(cause, left, before);
                // There is no later: what cannot sleep now is stopped.
                if self.state.waiting.closing && matches!(self.state.phase, Phase::Running { .. }) {
                    self.stop(Stop::Orderly);
                }
            }
            Phase::Stopping(Stop::Orderly | Stop::Hard) => {
                self.refuse_waking(&cause);
                // Half a machine cannot be used: only ending it again helps.
                let before = Phase::Failed {
                    cause: cause.clone(),
                };
                self.after_fault(cause, left, before);
            }
            Phase::Marking(rest) => {
                let destroys = std::mem::take(&mut self.state.waiting.destroys);
                self.answer_all(destroys, &Answer::Refused(Refusal::Failed(cause)));
                self.state.phase = rest.into();
            }
            Phase::Destroying {
                step,
                failures,
                undoes,
                retry_at: None,
            } => {
                self.destroy_failed(step, failures + 1, undoes, cause);
            }
            // Nothing was under way.
            Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Running { .. }
            | Phase::Warm { .. }
            | Phase::Failed { .. }
            | Phase::Destroying {
                retry_at: Some(_), ..
            }
            | Phase::Gone => {}
        }
    }

    fn wake_failed(&mut self, how: Wake, cause: String, left: Left) {
        match how {
            Wake::Boot => {
                self.refuse_waking(&cause);
                self.after_fault(cause, left, Phase::Cold);
            }
            Wake::Thaw => self.rewarm(cause, left, Memory::Machine),
            Wake::Load => self.rewarm(cause, left, Memory::Snapshot),
            // Nobody asked for this one: whoever waits gets a machine that boots.
            Wake::Adopt => {
                let before = Phase::Failed {
                    cause: cause.clone(),
                };
                self.after_fault(cause, left, before);
            }
        }
    }

    /// It could not be woken, and sleeps on if it can: the next wake tries again. Whoever is connected and sent
    /// something cannot be told, and does not ask again: for him it is tried again after a while.
    fn rewarm(&mut self, cause: String, left: Left, memory: Memory) {
        self.refuse_wakes(&cause);
        let since = self.now;
        let (waiting, connected) = (&mut self.state.waiting, !self.state.holds.is_empty());
        waiting.stirred &= connected;
        if waiting.stirred {
            waiting.unstirred = waiting.unstirred.saturating_add(1);
            waiting.stir_at = since.after(stir_pause(waiting.unstirred));
        }
        self.after_fault(cause, left, Phase::Warm { since, memory });
    }

    fn after_fault(&mut self, cause: String, left: Left, before: Phase) {
        self.state.phase = match left {
            Left::AsBefore | Left::InUse => before,
            Left::NoMachine => Phase::Cold,
            Left::Unrecorded => Phase::Unrecorded {
                retry_at: self.now.after(RECORD_PAUSE),
            },
            Left::Unknown => Phase::Failed { cause },
        };
    }

    pub(crate) fn refuse_wakes(&mut self, cause: &str) {
        let wakes = std::mem::take(&mut self.state.waiting.wakes);
        self.answer_all(wakes, &Answer::Refused(Refusal::Failed(cause.to_owned())));
    }

    fn refuse_waking(&mut self, cause: &str) {
        self.refuse_wakes(cause);
        let restarts = std::mem::take(&mut self.state.waiting.restarts);
        self.answer_all(
            restarts,
            &Answer::Refused(Refusal::Failed(cause.to_owned())),
        );
    }

    fn destroy_failed(
        &mut self,
        step: DestroyStep,
        failures: u32,
        undoes: Option<String>,
        cause: String,
    ) {
        if failures >= PATIENCE {
            let told = Answer::Refused(Refusal::Failed(cause));
            let destroys = std::mem::take(&mut self.state.waiting.destroys);
            self.answer_all(destroys, &told);
            if let Some(request) = self.state.waiting.create.take() {
                self.answer(request, told);
            }
        }
        let retry_at = Some(self.now.after(destroy_pause(failures)));
        self.state.phase = Phase::Destroying {
            step,
            failures,
            retry_at,
            undoes,
        };
    }

    fn retry_destroy(&mut self) {
        if let Phase::Destroying { step, retry_at, .. } = &mut self.state.phase {
            *retry_at = None;
            let step = *step;
            self.actions.push(Action::Perform(Operation::Destroy(step)));
        }
    }

    fn machine_exited(&mut self) {
        match &self.state.phase {
            Phase::Running { .. }
            | Phase::Warm {
                memory: Memory::Machine,
                ..
            } => self.stop(Stop::Hard),
            Phase::FallingAsleep {
                step: Sleep::Sync(_),
                ..
            } => {
                self.actions.push(Action::Abandon);
                self.stop(Stop::Hard);
            }
            // The operation under way meets it itself, or there is no machine.
            Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(Wake::Boot | Wake::Thaw | Wake::Load | Wake::Adopt)
            | Phase::FallingAsleep {
                step: Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Warm {
                memory: Memory::Snapshot,
                ..
            }
            | Phase::Stopping(Stop::Orderly | Stop::Hard)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => {}
        }
    }

    fn tick(&mut self) {
        let due = self
            .state
            .deadline(&self.policy)
            .is_some_and(|deadline| deadline <= self.now);
        if !due {
            return;
        }
        match &self.state.phase {
            Phase::Running {
                idle_since: Some(since),
                sleepless,
            } => {
                let (since, sleepless) = (*since, *sleepless);
                let until = idle_until(since, sleepless, &self.policy);
                if until.is_some_and(|until| until <= self.now) {
                    self.fall_asleep(Why::Idle, sleepless);
                }
            }
            // The last task has ended: idleness begins.
            Phase::Running {
                idle_since: None, ..
            } => {}
            Phase::Warm {
                since,
                memory: Memory::Machine,
            } if since.after(self.policy.cold_after) <= self.now => self.stop(Stop::Hard),
            // Somebody waits for it: that is taken up below.
            Phase::Warm { .. } => {}
            // What ends a machine that is gone only records that.
            Phase::Unrecorded { .. } => self.stop(Stop::Hard),
            Phase::Destroying { .. } => self.retry_destroy(),
            // These have no deadline.
            Phase::Creating
            | Phase::Cold
            | Phase::Waking(Wake::Boot | Wake::Thaw | Wake::Load | Wake::Adopt)
            | Phase::FallingAsleep {
                step: Sleep::Sync(_) | Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Stopping(Stop::Orderly | Stop::Hard)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Gone => {}
        }
    }
}
