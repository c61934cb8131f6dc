//! What a sprite's task attends to beside its operations: its machine, calls from inside, tasks.

use sprite_lifecycle::{Memory, Phase, Sleep, Wake};
use tokio::sync::oneshot;

use super::Actor;
use crate::calls;
use crate::line::Line;
use crate::registry::Look;

impl Actor {
    pub(super) fn look_at_tasks(&mut self, reply: Option<oneshot::Sender<()>>) {
        let (shared, sprite) = (&self.ctx.shared, self.ctx.sprite.id);
        self.tasks.look(shared, sprite, reply);
    }

    pub(super) fn look(&self) -> Look {
        match self.state.phase() {
            Phase::Running { .. }
            | Phase::FallingAsleep {
                step: Sleep::Sync(_),
                ..
            } => self.ctx.machine.clone().map_or(Look::Busy, Look::Awake),
            Phase::Creating
            | Phase::Waking(_)
            | Phase::FallingAsleep {
                step: Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Stopping(_)
            | Phase::Marking(_)
            | Phase::Destroying { .. } => Look::Busy,
            Phase::Cold | Phase::Unrecorded { .. } | Phase::Warm { .. } | Phase::Gone => {
                Look::Asleep
            }
            Phase::Failed { cause } => Look::Failed(cause.clone()),
        }
    }

    /// Tells the streams where the memory is, and what passes on them whether it is looked at closely.
    pub(super) fn tell_line(&self) {
        let life = self.ctx.life;
        let line = match self.state.phase() {
            Phase::Running { .. }
            | Phase::FallingAsleep {
                step: Sleep::Sync(_),
                ..
            } => match self.ctx.machine.clone() {
                Some(machine) => Line::Up { life, machine },
                None => Line::Down,
            },
            Phase::FallingAsleep {
                step: Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Warm { .. }
            | Phase::Waking(Wake::Thaw | Wake::Load) => Line::Asleep { life },
            Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(Wake::Boot | Wake::Adopt)
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => Line::Down,
        };
        self.exchange.set(line);
        let running = matches!(self.state.phase(), Phase::Running { .. });
        self.ledger.attend(!running);
    }

    /// Watches the machine's end in the phases in which that is news, and what is called from inside it while it
    /// runs.
    pub(super) fn watch_machine(&mut self) {
        self.take_calls();
        match self.state.phase() {
            Phase::Running { .. }
            | Phase::Warm {
                memory: Memory::Machine,
                ..
            }
            | Phase::FallingAsleep {
                step: Sleep::Sync(_),
                ..
            } => {
                if self.exit.is_none()
                    && let Some(machine) = self.ctx.machine.clone()
                {
                    self.exit = Some(Box::pin(async move { machine.exited().await }));
                }
            }
            Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(_)
            | Phase::FallingAsleep {
                step: Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Warm {
                memory: Memory::Snapshot,
                ..
            }
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => self.exit = None,
        }
    }

    /// A machine that stands still calls nobody: what was under way is cut off, and begins anew when it runs.
    fn take_calls(&mut self) {
        match self.state.phase() {
            Phase::Running { .. }
            | Phase::FallingAsleep {
                step: Sleep::Sync(_),
                ..
            } => {
                if self.calls.is_none()
                    && let Some(machine) = self.ctx.machine.clone()
                {
                    let (shared, sprite) = (self.ctx.shared.clone(), self.ctx.sprite.id);
                    self.calls = Some(Box::pin(calls::stand(shared, sprite, machine)));
                }
            }
            Phase::Creating
            | Phase::Cold
            | Phase::Unrecorded { .. }
            | Phase::Waking(_)
            | Phase::FallingAsleep {
                step: Sleep::Freeze | Sleep::Snapshot,
                ..
            }
            | Phase::Warm { .. }
            | Phase::Stopping(_)
            | Phase::Failed { .. }
            | Phase::Marking(_)
            | Phase::Destroying { .. }
            | Phase::Gone => self.calls = None,
        }
    }
}
