//! Waits until a monitor has made its socket: the kernel tells of new names in its directory.
//!
//! One descriptor of the kernel's serves all machines that start, for a user has few of them.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::MachineError;
use crate::failure::step;

/// Who waits for names in directories. What it began to watch goes on being watched when it is dropped, and is
/// not told any more.
#[derive(Debug)]
pub(super) struct Arrivals {
    watched: Arc<Watched>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Watched {
    inotify: AsyncFd<OwnedFd>,
    waiting: Mutex<HashMap<i32, Arc<Notify>>>,
}

/// New names in one directory.
#[derive(Debug)]
pub(super) struct Watch {
    watched: Arc<Watched>,
    number: i32,
    news: Arc<Notify>,
}

impl Arrivals {
    /// Begins to listen to the kernel.
    pub(super) fn begin() -> Result<Self, MachineError> {
        let make = || -> io::Result<AsyncFd<OwnedFd>> {
            let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            // SAFETY: the descriptor is owned by the `AsyncFd`, so it stays open and its own for as long as that.
            Ok(unsafe { AsyncFd::register_with_interest(inotify, Interest::READABLE) }?)
        };
        let watched = Arc::new(Watched {
            inotify: make().map_err(step("watch for sockets"))?,
            waiting: Mutex::new(HashMap::new()),
        });
        let listening = tokio::spawn(listen(watched.clone()));
        Ok(Self { watched, listening })
    }

    /// Begins to watch a directory; what was in it before is not told.
    pub(super) fn watch(&self, directory: &Path) -> io::Result<Watch> {
        let watched = &self.watched;
        // Under the lock, so that the first news finds who waits for it.
        let mut waiting = watched.lock();
        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR;
        let number = inotify::add_watch(watched.inotify.get_ref(), directory, flags)?;
        let news = waiting.entry(number).or_default().clone();
        Ok(Watch {
            watched: watched.clone(),
            number,
            news,
        })
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Arc<Notify>>> {
        // A panic in a holder leaves the map whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what the kernel has to tell now.
    fn hear(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        while let Ok(event) = reader.next() {
            let waiting = self.lock();
            if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                waiting.values().for_each(|news| news.notify_one());
            } else if let Some(news) = waiting.get(&event.wd()) {
                news.notify_one();
            }
        }
    }
}

async fn listen(watched: Arc<Watched>) {
    // The only error is the end of the runtime.
    while let Ok(mut ready) = watched.inotify.readable().await {
        watched.hear();
        ready.clear_ready();
    }
}

impl Watch {
    /// Waits for the next new name.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watched.lock().remove(&self.number);
        // The directory may be gone, and the watch with it.
        let _ = inotify::remove_watch(self.watched.inotify.get_ref(), self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn each_directory_hears_its_own_news() {
        let arrivals = Arrivals::begin().expect("begins");
        let dirs = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
        let [one, two] = [0, 1].map(|n| arrivals.watch(dirs[n].path()).expect("watches"));
        std::fs::write(dirs[1].path().join("socket"), "").expect("writes");
        two.news().await;
        let silent = tokio::time::timeout(Duration::from_millis(20), one.news()).await;
        assert!(silent.is_err());
        std::fs::write(dirs[0].path().join("socket"), "").expect("writes");
        one.news().await;
        drop(dirs);
        drop((one, two));
        assert!(arrivals.watched.lock().is_empty());
    }
}
