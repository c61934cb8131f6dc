//! What those who wait for a sprite's task are told: the lifecycle's answers as each operation's own result.

use std::sync::Arc;

use sprite_catalog::Sprite;
use sprite_lifecycle::{Answer, Hold, Refusal};
use sprite_machine::Machine;
use sprite_types::MachineId;
use tokio::sync::oneshot;

use crate::awake::Awake;
use crate::context::Context;
use crate::error::{CreateError, DestroyError, RestartError, SleepError, WakeError};
use crate::ledger::Ledger;
use crate::line::Exchange;
use crate::registry::{CreateReply, Look, Message};

/// Who waits for an answer.
pub(crate) enum Reply {
    Create(CreateReply),
    Wake(oneshot::Sender<Result<Awake, WakeError>>),
    Sleep(oneshot::Sender<Result<(), SleepError>>),
    Restart(oneshot::Sender<Result<MachineId, RestartError>>),
    Destroy(oneshot::Sender<Result<(), DestroyError>>),
    Close(oneshot::Sender<()>),
}

/// Answers a message for a sprite whose row is not there, or cannot be read.
pub(crate) fn refuse(message: Message, unreadable: bool) {
    let cause = || "read the row of the sprite".to_owned();
    // Whoever does not wait any more needs no answer.
    match message {
        Message::Wake(reply) if unreadable => {
            drop(reply.send(Err(WakeError::Failed { cause: cause() })));
        }
        Message::Wake(reply) => drop(reply.send(Err(WakeError::NotFound))),
        Message::Sleep(reply, _) if unreadable => {
            drop(reply.send(Err(SleepError::Failed { cause: cause() })));
        }
        Message::Sleep(reply, _) => drop(reply.send(Err(SleepError::NotFound))),
        Message::Restart(reply) if unreadable => {
            drop(reply.send(Err(RestartError::Failed { cause: cause() })));
        }
        Message::Restart(reply) => drop(reply.send(Err(RestartError::NotFound))),
        Message::Destroy(reply) if unreadable => {
            drop(reply.send(Err(DestroyError::Step { cause: cause() })));
        }
        Message::Destroy(reply) => drop(reply.send(Err(DestroyError::NotFound))),
        Message::Close(reply) | Message::TasksChanged(reply) => drop(reply.send(())),
        Message::Look(reply) => drop(reply.send(Look::Asleep)),
        Message::Idleness(..) | Message::Pressed => {}
        // There is no machine: whoever waits sees it dropped.
        Message::Counters(reply) => drop(reply),
        // No row, or none that can be read: no machine was started for it.
        Message::Enforce(reply) => drop(reply.send(Ok(()))),
    }
}

/// What the creator is told; `error` is what failed, as he sees it.
pub(crate) fn created(
    answer: Answer,
    sprite: &Sprite,
    error: Option<CreateError>,
) -> Result<Sprite, CreateError> {
    match answer {
        Answer::Created => Ok(sprite.clone()),
        Answer::Refused(Refusal::Failed(cause)) => {
            Err(error.unwrap_or(CreateError::Step { cause }))
        }
        Answer::Refused(Refusal::Gone) => Err(CreateError::Destroyed),
        Answer::Refused(Refusal::Closing | Refusal::Busy | Refusal::Held)
        | Answer::Awake
        | Answer::Asleep
        | Answer::Restarted
        | Answer::Destroyed
        | Answer::Closed => Err(CreateError::Closing),
    }
}

/// What somebody who wants the sprite awake is told. A hold that was counted and is not handed out is let go.
pub(crate) fn woken(
    answer: Answer,
    ctx: &Context,
    exchange: &Exchange,
    ledger: &Arc<Ledger>,
) -> Result<Awake, WakeError> {
    match answer {
        Answer::Awake => match running(ctx) {
            Some(machine) => Ok(Awake::new(
                machine.identity().machine,
                exchange.connector(ctx.life),
                ctx.shared.epoch,
                ledger.clone(),
            )),
            None => {
                ledger.release(Hold::Call);
                Err(WakeError::Failed {
                    cause: "machine is gone".to_owned(),
                })
            }
        },
        Answer::Refused(Refusal::Failed(cause)) => Err(WakeError::Failed { cause }),
        Answer::Refused(Refusal::Busy) => Err(WakeError::Busy),
        Answer::Refused(Refusal::Gone) => Err(WakeError::NotFound),
        Answer::Refused(Refusal::Closing | Refusal::Held)
        | Answer::Created
        | Answer::Asleep
        | Answer::Restarted
        | Answer::Destroyed
        | Answer::Closed => Err(WakeError::Closing),
    }
}

/// What somebody who wants it asleep is told.
pub(crate) fn asleep(answer: Answer) -> Result<(), SleepError> {
    match answer {
        Answer::Asleep => Ok(()),
        Answer::Refused(Refusal::Held) => Err(SleepError::Held),
        Answer::Refused(Refusal::Failed(cause)) => Err(SleepError::Failed { cause }),
        Answer::Refused(Refusal::Busy) => Err(SleepError::Busy),
        Answer::Refused(Refusal::Gone) => Err(SleepError::NotFound),
        Answer::Refused(Refusal::Closing)
        | Answer::Created
        | Answer::Awake
        | Answer::Restarted
        | Answer::Destroyed
        | Answer::Closed => Err(SleepError::Closing),
    }
}

/// What somebody who wants a fresh machine is told.
pub(crate) fn restarted(answer: Answer, ctx: &Context) -> Result<MachineId, RestartError> {
    match answer {
        Answer::Restarted => match running(ctx) {
            Some(machine) => Ok(machine.identity().machine),
            None => Err(RestartError::Failed {
                cause: "machine is gone".to_owned(),
            }),
        },
        Answer::Refused(Refusal::Failed(cause)) => Err(RestartError::Failed { cause }),
        Answer::Refused(Refusal::Busy) => Err(RestartError::Busy),
        Answer::Refused(Refusal::Gone) => Err(RestartError::NotFound),
        Answer::Refused(Refusal::Closing | Refusal::Held)
        | Answer::Created
        | Answer::Awake
        | Answer::Asleep
        | Answer::Destroyed
        | Answer::Closed => Err(RestartError::Closing),
    }
}

/// What somebody who wants the sprite gone is told.
pub(crate) fn destroyed(answer: Answer) -> Result<(), DestroyError> {
    match answer {
        Answer::Destroyed => Ok(()),
        Answer::Refused(Refusal::Failed(cause)) => Err(DestroyError::Step { cause }),
        Answer::Refused(Refusal::Busy) => Err(DestroyError::Busy),
        Answer::Refused(Refusal::Gone) => Err(DestroyError::NotFound),
        Answer::Refused(Refusal::Closing | Refusal::Held)
        | Answer::Created
        | Answer::Awake
        | Answer::Asleep
        | Answer::Restarted
        | Answer::Closed => Err(DestroyError::Closing),
    }
}

fn running(ctx: &Context) -> Option<Arc<dyn Machine>> {
    debug_assert!(ctx.machine.is_some(), "a running sprite has a machine");
    ctx.machine.clone()
}
