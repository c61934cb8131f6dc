//! What waits is looked at whenever a sprite is at rest: first the end, then the shut-down, then restarts, then
//! wakes, then sleep.

use crate::event::{Answer, Memory, Operation, Refusal, Stop, Why};
use crate::state::{Phase, Rest, Wake};
use crate::step::Turn;

impl Turn {
    /// Takes up what waits, as far as the phase allows. Never leaves a request waiting for nothing.
    pub(crate) fn settle(&mut self) {
        match self.state.phase.clone() {
            // Under way: its end comes back here.
            Phase::Creating
            | Phase::Waking(Wake::Boot | Wake::Thaw | Wake::Load | Wake::Adopt)
            | Phase::FallingAsleep { .. }
            | Phase::Stopping(Stop::Orderly | Stop::Hard)
            | Phase::Marking(_) => {}
            Phase::Cold => self.settle_cold(Rest::Cold),
            Phase::Unrecorded { retry_at } => self.settle_cold(Rest::Unrecorded { retry_at }),
            Phase::Running {
                idle_since,
                sleepless,
            } => {
                // What came while it fell asleep has been taken by now.
                self.state.waiting.settled();
                self.settle_running();
                self.settle_idleness(idle_since, sleepless);
            }
            Phase::Warm { since, memory } => self.settle_warm(since, memory),
            Phase::Failed { cause } => self.settle_failed(cause),
            Phase::Destroying { retry_at, .. } => {
                self.refuse_all_but_destroys(&Refusal::Gone);
                if retry_at.is_some() {
                    // The next start goes on with it.
                    self.closed();
                }
            }
            Phase::Gone => {
                self.refuse_all_but_destroys(&Refusal::Gone);
                let destroys = std::mem::take(&mut self.state.waiting.destroys);
                self.answer_all(destroys, &Answer::Destroyed);
                self.closed();
            }
        }
    }

    fn settle_cold(&mut self, rest: Rest) {
        let waiting = &self.state.waiting;
        if !waiting.destroys.is_empty() {
            self.perform(Operation::Mark, Phase::Marking(rest));
        } else if waiting.closing {
            self.refuse_all_but_destroys(&Refusal::Closing);
            self.closed();
        } else {
            // Whoever was connected to its last machine was cut off with it.
            self.state.waiting.settled();
            self.asleep();
            if !self.state.waiting.restarts.is_empty() || !self.state.waiting.wakes.is_empty() {
                self.perform(Operation::Boot, Phase::Waking(Wake::Boot));
            }
        }
    }

    fn settle_running(&mut self) {
        let waiting = &self.state.waiting;
        if !waiting.destroys.is_empty() {
            self.perform(Operation::Mark, Phase::Marking(Rest::Running));
        } else if waiting.closing {
            self.refuse_all_but_destroys(&Refusal::Closing);
            match self.policy.memory {
                // What still holds it ends with the owner.
                Memory::Snapshot => self.fall_asleep(Why::Asked, 0),
                Memory::Machine => self.stop(Stop::Orderly),
            }
        } else if !waiting.restarts.is_empty() {
            self.stop(Stop::Orderly);
        } else {
            for request in std::mem::take(&mut self.state.waiting.wakes) {
                self.state.holds.calls += 1;
                self.answer(request, Answer::Awake);
            }
            self.settle_sleeps();
        }
    }

    /// Who asked for sleep waits for calls, and a moment for what is just being answered. A task was promised the time
    /// that it asked for.
    fn settle_sleeps(&mut self) {
        let task = self.state.has_task(self.now);
        let now = self.now;
        let given_up = |until| task || until <= now;
        let waiting = std::mem::take(&mut self.state.waiting.sleeps);
        for asked in waiting {
            if given_up(asked.until) {
                self.answer(asked.request, Answer::Refused(Refusal::Held));
            } else {
                self.state.waiting.sleeps.push(asked);
            }
        }
        let quiet = self.state.quiet_at().is_some_and(|at| at <= self.now);
        if quiet && self.state.holds.calls == 0 {
            self.fall_asleep(Why::Asked, 0);
        }
    }

    /// Answers all who asked for sleep: it sleeps.
    fn asleep(&mut self) {
        for asked in std::mem::take(&mut self.state.waiting.sleeps) {
            self.answer(asked.request, Answer::Asleep);
        }
    }

    /// The idle time begins when the last hold is let go or the last task ends, and anew after every hold.
    fn settle_idleness(&mut self, before: Option<crate::Moment>, failures: u32) {
        let (held, now) = (self.state.held(self.now, &self.policy), self.now);
        if let Phase::Running {
            idle_since,
            sleepless,
        } = &mut self.state.phase
        {
            (*idle_since, *sleepless) = if held {
                (None, 0)
            } else {
                (Some(before.unwrap_or(now)), failures)
            };
        }
    }

    fn settle_warm(&mut self, since: crate::Moment, memory: Memory) {
        let waiting = &self.state.waiting;
        if !waiting.destroys.is_empty() {
            let rest = Rest::Warm { since, memory };
            self.perform(Operation::Mark, Phase::Marking(rest));
        } else if waiting.closing {
            self.refuse_all_but_destroys(&Refusal::Closing);
            match memory {
                Memory::Machine => self.stop(Stop::Hard),
                Memory::Snapshot => self.closed(),
            }
        } else if !waiting.restarts.is_empty() {
            self.asleep();
            self.stop(Stop::Hard);
        } else {
            self.asleep();
            let waiting = &self.state.waiting;
            let stirred = waiting.stirred && waiting.stir_at <= self.now;
            if stirred || !waiting.wakes.is_empty() {
                match memory {
                    Memory::Machine => self.perform(Operation::Thaw, Phase::Waking(Wake::Thaw)),
                    Memory::Snapshot => self.perform(Operation::Load, Phase::Waking(Wake::Load)),
                }
            }
        }
    }

    fn settle_failed(&mut self, cause: String) {
        let waiting = &self.state.waiting;
        if !waiting.destroys.is_empty() {
            self.perform(Operation::Mark, Phase::Marking(Rest::Failed { cause }));
        } else if waiting.closing {
            self.refuse_all_but_destroys(&Refusal::Closing);
            self.closed();
        } else if !waiting.restarts.is_empty() {
            self.stop(Stop::Hard);
        } else {
            self.refuse_wakes(&cause);
            self.refuse_sleeps(&Refusal::Failed(cause));
        }
    }

    /// Answers all who asked for sleep: it does not.
    pub(crate) fn refuse_sleeps(&mut self, refusal: &Refusal) {
        for asked in std::mem::take(&mut self.state.waiting.sleeps) {
            self.answer(asked.request, Answer::Refused(refusal.clone()));
        }
    }

    fn refuse_all_but_destroys(&mut self, refusal: &Refusal) {
        let wakes = std::mem::take(&mut self.state.waiting.wakes);
        let restarts = std::mem::take(&mut self.state.waiting.restarts);
        self.refuse_sleeps(refusal);
        let refused = Answer::Refused(refusal.clone());
        self.answer_all(wakes, &refused);
        self.answer_all(restarts, &refused);
    }

    fn closed(&mut self) {
        let closes = std::mem::take(&mut self.state.waiting.closes);
        self.answer_all(closes, &Answer::Closed);
    }
}
