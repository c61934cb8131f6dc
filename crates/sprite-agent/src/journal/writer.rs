//! The thread that copies output from memory to the disk. It alone waits for the disk; what it has not copied stays
//! in memory, and a stream that is far ahead of it waits.

use std::path::Path;
use std::sync::{Weak, mpsc};

use super::store::{NoRing, Store};
use super::{Task, ring};
use crate::end::DISK;
use crate::log::say;
use crate::session::{Session, Stream};
use crate::sessions::Sessions;

/// Enough for what it calls.
const STACK: usize = 128 << 10;

/// Asks the writer. Each stream is in the queue at most once.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Job>,
}

#[derive(Debug)]
enum Job {
    Copy(std::sync::Arc<Session>, Stream),
    /// No ring is made any more; answered when none is being written.
    Close(tokio::sync::oneshot::Sender<()>),
}

impl Writer {
    /// Starts the thread, for sessions whose files belong to `owner`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(sessions: Weak<Sessions>, owner: u32) -> std::io::Result<Self> {
        let (queue, jobs) = mpsc::channel();
        let again = queue.clone();
        std::thread::Builder::new()
            .name("journals".to_owned())
            .stack_size(STACK)
            .spawn(move || run(&jobs, &again, &sessions, owner))?;
        Ok(Self { queue })
    }

    /// Asks for a stream whose journal wants it.
    pub(crate) fn ask(&self, session: std::sync::Arc<Session>, stream: Stream) {
        // The thread ends with the process.
        let _ = self.queue.send(Job::Copy(session, stream));
    }

    /// Ends all writing; afterwards no file of a ring is made or written.
    pub(crate) async fn close(&self) {
        let (tell, closed) = tokio::sync::oneshot::channel();
        let _ = self.queue.send(Job::Close(tell));
        let _ = closed.await;
    }
}

fn run(
    jobs: &mpsc::Receiver<Job>,
    again: &mpsc::Sender<Job>,
    sessions: &Weak<Sessions>,
    owner: u32,
) {
    // Opened with the first output that is too long for memory: there is an environment by then.
    let mut store = None;
    let mut closed = false;
    for job in jobs {
        match job {
            Job::Close(tell) => {
                closed = true;
                store = None;
                let _ = tell.send(());
            }
            Job::Copy(session, stream) => {
                if store.is_none() && !closed {
                    match Store::open(Path::new(DISK), owner) {
                        Ok(opened) => store = Some(opened),
                        Err(error) => say(format_args!("keep output on the disk: {error}")),
                    }
                }
                if copy(&session, stream, store.as_ref(), sessions) {
                    // Behind the others that wait.
                    let _ = again.send(Job::Copy(session, stream));
                }
            }
        }
    }
}

/// Does one step; returns whether there is another.
fn copy(
    session: &Session,
    stream: Stream,
    store: Option<&Store>,
    sessions: &Weak<Sessions>,
) -> bool {
    match session.disk_task(stream) {
        Task::Nothing => return false,
        Task::Open { at, size } => {
            let made = loop {
                match store
                    .ok_or(NoRing::Room)
                    .and_then(|store| store.ring(at, size))
                {
                    Err(NoRing::Room) if store.is_some() && make_room(sessions) => {}
                    made => break made,
                }
            };
            if let Err(NoRing::Disk(error)) = &made {
                say(format_args!("keep output on the disk: {error}"));
            }
            session.disk_opened(stream, made);
        }
        Task::Write {
            pieces,
            chunks,
            length,
        } => {
            let done = ring::write(&pieces, chunks);
            drop(pieces);
            if let Err(error) = &done {
                say(format_args!("keep output on the disk: {error}"));
            }
            session.disk_wrote(stream, length, &done);
        }
    }
    true
}

/// Lets the session that ended first, of those that have something on the disk, leave it.
fn make_room(sessions: &Weak<Sessions>) -> bool {
    sessions
        .upgrade()
        .is_some_and(|sessions| sessions.leave_disk_of_oldest())
}
