//! How streams reach a sprite's agent over its sleeps.
//!
//! A stream belongs to the memory in which it was opened: while that sleeps the stream waits, when it runs again the
//! stream is resumed, on whichever machine that is; when it is lost, so is the stream.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use sprite_agent_api::link::{BoxedTransport, Connect};
use sprite_machine::Machine;
use tokio::sync::watch;

/// Counts the memories of a sprite: every boot begins another.
pub(crate) type Life = u64;

/// Where a sprite's memory is now.
#[derive(Clone)]
pub(crate) enum Line {
    /// In a machine that runs.
    Up {
        life: Life,
        machine: Arc<dyn Machine>,
    },
    /// Asleep, or on its way there or back.
    Asleep { life: Life },
    /// Nowhere: it was lost, and another may come.
    Down,
}

impl Line {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Up { life, machine },
                Self::Up {
                    life: other,
                    machine: theirs,
                },
            ) => life == other && Arc::ptr_eq(machine, theirs),
            (Self::Asleep { life }, Self::Asleep { life: other }) => life == other,
            (Self::Down, Self::Down) => true,
            (Self::Up { .. } | Self::Asleep { .. } | Self::Down, _) => false,
        }
    }
}

/// Tells where the memory is; kept by the sprite's task.
pub(crate) struct Exchange(watch::Sender<Line>);

impl Exchange {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(Line::Down))
    }

    /// It is there from now on.
    pub(crate) fn set(&self, line: Line) {
        self.0.send_if_modified(|now| {
            let news = !now.same(&line);
            *now = line;
            news
        });
    }

    /// Reaches the memory of that life, wherever it is.
    pub(crate) fn connector(&self, life: Life) -> Connector {
        Connector {
            life,
            line: self.0.subscribe(),
        }
    }
}

/// Reaches the agent in one memory of a sprite.
#[derive(Clone)]
pub(crate) struct Connector {
    life: Life,
    line: watch::Receiver<Line>,
}

impl Connector {
    /// Whether both lead to one memory of one sprite.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        // Lives are counted anew by every task of a sprite, which has a channel of its own.
        self.life == other.life && self.line.same_channel(&other.line)
    }

    /// Whether the memory sleeps.
    pub(crate) fn sleeps(&self) -> bool {
        matches!(&*self.line.borrow(), Line::Asleep { life } if *life == self.life)
    }

    /// The machine that the memory is in, as soon as it runs; `None` if the memory is lost.
    pub(crate) async fn machine(&self) -> Option<Arc<dyn Machine>> {
        let mut line = self.line.clone();
        let settled = line
            .wait_for(|line| !matches!(line, Line::Asleep { life } if *life == self.life))
            .await;
        match settled.as_deref() {
            Ok(Line::Up { life, machine }) if *life == self.life => Some(machine.clone()),
            // An error says that the sprite's task has ended: nothing runs any more.
            Ok(Line::Up { .. } | Line::Asleep { .. } | Line::Down) | Err(_) => None,
        }
    }

    /// Returns when the memory sleeps, is on its way there, or is lost.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn until_asleep(&self) {
        let mut line = self.line.clone();
        // An error says that the sprite's task has ended: nothing runs any more.
        let _ = line
            .wait_for(|line| !matches!(line, Line::Up { life, .. } if *life == self.life))
            .await;
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self) -> io::Result<BoxedTransport> {
        let machine = self
            .machine()
            .await
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotConnected, "the machine has ended"))?;
        machine.connector().connect().await
    }
}
