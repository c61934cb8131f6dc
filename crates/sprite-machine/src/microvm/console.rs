//! What a machine and its monitor write: the guest's console and the monitor's own words, in one pipe with a name.
//!
//! The server reads all of it and keeps the end, to tell why a machine ended. While no server runs the pipe fills
//! up, 64 KiB of it, and the rest is lost: the monitor's end does not wait.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::log::{self, make_pipe, open_pipe};

/// How much is kept: the end of a kernel's panic, with the trace of its stack.
const KEPT: usize = 16 << 10;

/// The server's end of a console.
#[derive(Debug)]
pub(super) struct Console {
    shared: Arc<Shared>,
    reading: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pipe: AsyncFd<OwnedFd>,
    last: Mutex<VecDeque<u8>>,
}

impl Console {
    /// Makes a machine's console, and returns the monitor's end too. Within a tokio runtime.
    pub(super) fn make(path: &Path) -> io::Result<(Self, File)> {
        let (ours, monitors) = make_pipe(path)?;
        Ok((Self::read(ours)?, monitors))
    }

    /// The console of a machine that runs.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::read(open_pipe(path)?)
    }

    fn read(pipe: File) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd`, so it stays open and its own for as long as that.
        let pipe = unsafe { AsyncFd::register_with_interest(pipe.into(), Interest::READABLE) }?;
        let shared = Arc::new(Shared {
            pipe,
            last: Mutex::new(VecDeque::new()),
        });
        let reading = tokio::spawn(drain(shared.clone()));
        Ok(Self { shared, reading })
    }

    /// The last lines. What a machine says is told, never believed.
    pub(super) fn last_lines(&self) -> String {
        // What came in this moment too: of a machine that ended nothing more will.
        self.shared.take();
        let last: Vec<u8> = self.shared.lock().iter().copied().collect();
        match log::printable(&last).as_str() {
            "" => "the machine ended and said nothing".to_owned(),
            text => text.to_owned(),
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn drain(shared: Arc<Shared>) {
    // The only error is the end of the runtime.
    while let Ok(mut ready) = shared.pipe.readable().await {
        if shared.take() {
            ready.clear_ready();
        }
        // A guest that writes without end is one task among many.
        tokio::task::yield_now().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        // A panic in a holder leaves bytes.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what is there now, at most what a pipe holds; whether that was all.
    fn take(&self) -> bool {
        let mut buffer = [0; 16 << 10];
        for _ in 0..4 {
            match rustix::io::read(self.pipe.get_ref(), &mut buffer) {
                Ok(length) if length > 0 => {
                    let mut last = self.lock();
                    last.extend(&buffer[..length]);
                    let over = last.len().saturating_sub(KEPT);
                    last.drain(..over);
                }
                // Nothing more is there now.
                Ok(_) | Err(_) => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn the_end_is_kept_however_much_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("console");
        let (console, mut machine) = Console::make(&path).expect("a console");
        assert_eq!(console.last_lines(), "the machine ended and said nothing");
        let mut written = 0;
        while written < 1 << 20 {
            match machine.write(&[b'x'; 4096]) {
                Ok(length) => written += length,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it never waits");
                    tokio::task::yield_now().await;
                }
            }
        }
        while machine.write_all(b"\r\nKernel panic\r\n").is_err() {
            tokio::task::yield_now().await;
        }
        drop(machine);
        let told = console.last_lines();
        assert!(told.ends_with("x\nKernel panic"), "{told}");
        assert!(told.len() <= KEPT);
        // As another server finds it.
        drop(console);
        assert!(Console::open(&path).is_ok());
    }
}
