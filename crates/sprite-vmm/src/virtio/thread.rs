//! Threads of devices: named, and set up (a system call filter) before they do anything.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{Builder, JoinHandle};

/// What a thread does, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadKind {
    /// A vCPU.
    Vcpu,
    /// The event loop of all devices that never block.
    EventLoop,
    /// A disk's worker.
    BlockWorker,
}

/// What a new thread does first.
pub type ThreadSetup = Arc<dyn Fn(ThreadKind) -> io::Result<()> + Send + Sync>;

/// Threads without a system call filter.
#[must_use]
pub fn unrestricted() -> ThreadSetup {
    Arc::new(|_kind| Ok(()))
}

/// Starts a thread. Returns when its setup is done.
///
/// # Errors
/// There is no thread, or its setup failed: then it has ended without doing anything.
pub(crate) fn spawn(
    name: String,
    kind: ThreadKind,
    setup: &ThreadSetup,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let setup = Arc::clone(setup);
    let (told, outcome) = sync_channel(1);
    let thread = Builder::new().name(name).spawn(move || {
        let done = setup(kind);
        let ok = done.is_ok();
        // Whoever started this thread waits for exactly this.
        let _ = told.send(done);
        if ok {
            work();
        }
    })?;
    match outcome.recv() {
        Ok(Ok(())) => Ok(thread),
        Ok(Err(error)) => Err(error),
        Err(_ended) => Err(io::Error::other("the thread ended in its setup")),
    }
}
