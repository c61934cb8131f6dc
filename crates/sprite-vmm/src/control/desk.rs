//! Where commands are handed over: the thread of the control socket asks, the one that owns the machine does.
//!
//! One command at a time, so nothing is ever queued that nobody waits for. The same wait ends when the guest
//! does, so that the program ends at once and not at the next command.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::{CommandError, Controller, Hypervisor};
use crate::command::{Answer, Command};
use crate::end::{End, EndSignal};

/// What came of a command.
pub type Outcome = Result<Answer, CommandError>;

struct Request {
    command: Command,
    reply: SyncSender<Outcome>,
}

/// The side that asks.
pub struct Sender {
    requests: SyncSender<Request>,
    wake: Arc<OwnedFd>,
}

/// The side that does.
pub struct Desk {
    requests: Receiver<Request>,
    wake: Arc<OwnedFd>,
}

/// The other side is gone.
#[derive(Debug, thiserror::Error)]
#[error("the program is ending")]
pub struct DeskClosed;

/// Both sides.
///
/// # Errors
/// The system gives no event descriptor.
pub fn desk() -> io::Result<(Sender, Desk)> {
    let (sender, requests) = sync_channel(1);
    let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    Ok((
        Sender {
            requests: sender,
            wake: Arc::clone(&wake),
        },
        Desk { requests, wake },
    ))
}

impl Sender {
    /// Asks, and waits until it is done.
    ///
    /// # Errors
    /// [`DeskClosed`]: the guest ended first, and the program ends.
    pub fn ask(&self, command: Command) -> Result<Outcome, DeskClosed> {
        let (reply, outcome) = sync_channel(1);
        self.requests
            .send(Request { command, reply })
            .map_err(|_| DeskClosed)?;
        rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).map_err(|_| DeskClosed)?;
        outcome.recv().map_err(|_| DeskClosed)
    }
}

impl Desk {
    /// Does what is asked until the guest ends. `done` is told of every command that was done, before the one
    /// who asked is: the place to close doors once the machine runs.
    ///
    /// # Errors
    /// The system cannot wait, or `done` failed, or nobody is left who could ask.
    pub fn serve<H: Hypervisor>(
        &self,
        controller: &mut Controller<H>,
        mut done: impl FnMut(&Controller<H>) -> io::Result<()>,
    ) -> io::Result<End> {
        loop {
            let end = controller.end();
            if let Some(end) = end.as_ref().and_then(|signal| signal.get()) {
                return Ok(end.clone());
            }
            wait(&self.wake, end.as_deref())?;
            // Whether or not it was this one that woke us: what is there is taken below.
            let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
            loop {
                match self.requests.try_recv() {
                    Ok(request) => {
                        let outcome = controller.handle(request.command);
                        done(controller)?;
                        // Who asked may have gone.
                        let _ = request.reply.send(outcome);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => {
                        return Err(io::Error::other("the control socket's thread ended"));
                    }
                }
            }
        }
    }
}

/// Waits until something is asked or the guest has ended.
fn wait(wake: &OwnedFd, end: Option<&EndSignal>) -> io::Result<()> {
    let mut sources = vec![PollFd::from_borrowed_fd(wake.as_fd(), PollFlags::IN)];
    if let Some(signal) = end {
        // SAFETY: the descriptor is the signal's, which is borrowed for longer than `sources` lives.
        let event = unsafe { BorrowedFd::borrow_raw(signal.event().as_raw_fd()) };
        sources.push(PollFd::from_borrowed_fd(event, PollFlags::IN));
    }
    match poll(&mut sources, None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
