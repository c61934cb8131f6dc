//! Which sprites have a task, and how to reach it.
//!
//! Messages are put into a mailbox only while the registry is locked, and a task leaves the registry only while it
//! is locked and its mailbox is empty. So no message is ever put into the mailbox of a task that has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprite_catalog::{Idleness, Sprite};
use sprite_lifecycle::Moment;
use sprite_machine::Machine;
use sprite_types::{MachineId, SpriteId};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use crate::awake::Awake;
use crate::enforce::NotInForce;
use crate::error::{CreateError, DestroyError, RestartError, SleepError, WakeError};
use crate::usage::Counters;

/// Messages that a task has not taken yet; it takes them at once, whatever else it does.
const MAILBOX: usize = 256;

/// What is asked of a sprite's task.
#[derive(Debug)]
pub(crate) enum Message {
    Wake(oneshot::Sender<Result<Awake, WakeError>>),
    /// Put to sleep; given up at that moment.
    Sleep(oneshot::Sender<Result<(), SleepError>>, Moment),
    Restart(oneshot::Sender<Result<MachineId, RestartError>>),
    Destroy(oneshot::Sender<Result<(), DestroyError>>),
    Close(oneshot::Sender<()>),
    Look(oneshot::Sender<Look>),
    /// Where the counters of its machine are, running or not.
    Counters(oneshot::Sender<Counters>),
    /// Put the stored policies in force on the machine that there is.
    Enforce(EnforceReply),
    /// The row says since then when the sprite is idle.
    Idleness(OffsetDateTime, Idleness),
    /// The host is short of memory.
    Pressed,
    /// The sprite's tasks were changed; answered when that has been read.
    TasksChanged(oneshot::Sender<()>),
}

/// Where a sprite's task stands.
pub(crate) enum Look {
    /// A machine runs.
    Awake(Arc<dyn Machine>),
    /// A machine comes or goes.
    Busy,
    /// No machine runs.
    Asleep,
    /// It cannot go on by itself.
    Failed(String),
}

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Awake(_) => "Awake",
            Self::Busy => "Busy",
            Self::Asleep => "Asleep",
            Self::Failed(_) => "Failed",
        })
    }
}

/// Who waits for policies to be in force.
pub(crate) type EnforceReply = oneshot::Sender<Result<(), NotInForce>>;

/// Who waits for a new sprite to be complete.
pub(crate) type CreateReply = oneshot::Sender<Result<Sprite, CreateError>>;

/// Why a message was not taken.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// Too many messages wait.
    Busy,
    /// The host shuts down.
    Closing,
}

#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    closing: bool,
    /// How many tasks there ever were.
    begun: u64,
    mailboxes: HashMap<SpriteId, Mailbox>,
}

/// The way to a sprite's task.
#[derive(Debug)]
struct Mailbox {
    /// The how many-th task it is of all.
    number: u64,
    sender: mpsc::Sender<Message>,
}

impl Table {
    fn mailbox(&mut self, sender: mpsc::Sender<Message>) -> Mailbox {
        self.begun += 1;
        Mailbox {
            number: self.begun,
            sender,
        }
    }
}

impl Registry {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while holding it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message into the mailbox of the sprite's task; `spawn` makes the task if there is none.
    pub(crate) fn send(
        &self,
        sprite: SpriteId,
        message: Message,
        spawn: impl FnOnce(mpsc::Receiver<Message>),
    ) -> Result<(), Undelivered> {
        let mut table = self.table();
        if table.closing {
            return Err(Undelivered::Closing);
        }
        if let Some(mailbox) = table.mailboxes.get(&sprite) {
            return deliver(&mailbox.sender, message);
        }
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        deliver(&sender, message)?;
        let entry = table.mailbox(sender);
        table.mailboxes.insert(sprite, entry);
        spawn(mailbox);
        Ok(())
    }

    /// Puts a message into the mailbox of the sprite's task; says whether there is one.
    pub(crate) fn send_if_active(
        &self,
        sprite: SpriteId,
        message: Message,
    ) -> Result<bool, Undelivered> {
        let table = self.table();
        match table.mailboxes.get(&sprite) {
            Some(mailbox) => deliver(&mailbox.sender, message).map(|()| true),
            None => Ok(false),
        }
    }

    /// Enters a task for a sprite that has none yet.
    pub(crate) fn enter(
        &self,
        sprite: SpriteId,
        spawn: impl FnOnce(mpsc::Receiver<Message>),
    ) -> Result<(), Undelivered> {
        let mut table = self.table();
        if table.closing {
            return Err(Undelivered::Closing);
        }
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let entry = table.mailbox(sender);
        table.mailboxes.insert(sprite, entry);
        spawn(mailbox);
        Ok(())
    }

    /// Strikes the task out, unless a message waits in its mailbox. Says whether it did.
    pub(crate) fn leave(&self, sprite: SpriteId, mailbox: &mpsc::Receiver<Message>) -> bool {
        let mut table = self.table();
        if !mailbox.is_empty() {
            return false;
        }
        table.mailboxes.remove(&sprite);
        true
    }

    /// Strikes the task out, whatever waits in its mailbox. Only while the host closes: no other comes.
    pub(crate) fn strike_out(&self, sprite: SpriteId) {
        self.table().mailboxes.remove(&sprite);
    }

    /// Refuses every new task and message from now on; the mailboxes of the tasks there are, the oldest first.
    pub(crate) fn close(&self) -> Vec<mpsc::Sender<Message>> {
        let mut table = self.table();
        table.closing = true;
        let mut mailboxes: Vec<&Mailbox> = table.mailboxes.values().collect();
        mailboxes.sort_by_key(|mailbox| mailbox.number);
        let senders = mailboxes.into_iter().map(|mailbox| &mailbox.sender);
        senders.cloned().collect()
    }

    /// The sprites that have a task, in order.
    pub(crate) fn sprites(&self) -> Vec<SpriteId> {
        let mut sprites: Vec<SpriteId> = self.table().mailboxes.keys().copied().collect();
        sprites.sort_unstable();
        sprites
    }

    /// How many sprites have a task.
    pub(crate) fn active(&self) -> usize {
        self.table().mailboxes.len()
    }
}

fn deliver(mailbox: &mpsc::Sender<Message>, message: Message) -> Result<(), Undelivered> {
    match mailbox.try_send(message) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Full(_)) => Err(Undelivered::Busy),
        // Tasks leave the registry before they end; one that did not was stopped with the host.
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Undelivered::Closing),
    }
}
