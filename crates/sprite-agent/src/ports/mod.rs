//! The ports on which the environment listens, for those who want to know.
//!
//! The kernel is asked for its listening sockets ten times a second, and only while somebody watches; all watchers
//! share the answer. There is no event for a port that opens, and the one for sockets that end tells of every
//! connection: a busy server would wake the agent for each of its requests.
//!
//! Each watcher compares the latest answer with what it was told: a program that opens and closes ports in a loop
//! costs a few messages a second, whatever it does in between, and the last state is always told. When an answer
//! takes long, because there are very many sockets or processes, the next one is asked for later.

mod owners;
mod sockets;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_agent_api::link::Sender;
use sprite_agent_api::message::{Failure, Reply};
use sprite_agent_api::ports::{MOST_PORTS, Port, PortEvent, PortsReply};
use sprite_agent_api::{Frame, link};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::log::say;
use crate::step::{Step, StepError};

/// How often the kernel is asked. A port is told within 200 ms.
const EVERY: Duration = Duration::from_millis(100);

/// How often it is asked by somebody who waits for one port.
const SOON: Duration = Duration::from_millis(5);

/// An answer may take this part of the time.
const LARGEST_PART: u32 = 20;

/// A port as the kernel names it.
type Key = (u16, IpAddr);

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listener {
    /// The kernel's number of the socket.
    inode: u64,
    /// Its process; `None` while nobody has looked, 0 where none was found.
    pid: Option<u32>,
}

type Table = BTreeMap<Key, Listener>;

/// The ports of the environment.
#[derive(Debug)]
pub(crate) struct Ports {
    latest: watch::Sender<Arc<Table>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a task asks the kernel.
    asking: bool,
}

/// Somebody who wants to know of changes.
#[derive(Debug)]
pub(crate) struct Watcher {
    latest: watch::Receiver<Arc<Table>>,
    told: Table,
}

impl Ports {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            latest: watch::Sender::new(Arc::default()),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches for changes from now on.
    pub(crate) fn watch(self: &Arc<Self>) -> Result<Watcher, StepError> {
        let mut state = self.state();
        let latest = self.latest.subscribe();
        if !state.asking {
            // Looking for processes takes longer: whoever waits for a session to start does not wait for that.
            let table = listening(&self.latest.borrow()).step("ask for listening sockets")?;
            self.latest.send_replace(Arc::new(table));
            state.asking = true;
            tokio::spawn(self.clone().ask());
        }
        drop(state);
        let told = Table::clone(&latest.borrow());
        Ok(Watcher { latest, told })
    }

    /// Asks the kernel as long as somebody watches.
    async fn ask(self: Arc<Self>) {
        let mut told = false;
        loop {
            let begun = Instant::now();
            match self.ask_once().await {
                Ok(()) => told = false,
                // Once is enough, ten times a second is not.
                Err(failure) if !told => {
                    say(failure);
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(EVERY.max(begun.elapsed() * LARGEST_PART)).await;
            let mut state = self.state();
            if self.latest.receiver_count() == 0 {
                state.asking = false;
                return;
            }
        }
    }

    async fn ask_once(&self) -> Result<(), StepError> {
        let before = self.latest.borrow().clone();
        let mut table = listening(&before).step("ask for listening sockets")?;
        let unknown: Vec<u64> = table
            .values()
            .filter(|listener| listener.pid.is_none())
            .map(|listener| listener.inode)
            .collect();
        if !unknown.is_empty() {
            let found = tokio::task::spawn_blocking(move || owners::of(&unknown));
            let found = found
                .await
                .map_err(io::Error::other)
                .step("look for processes")?;
            for listener in table.values_mut() {
                let owner = found.get(&listener.inode).copied().unwrap_or_default();
                listener.pid.get_or_insert(owner);
            }
        }
        if table != *before {
            self.latest.send_replace(Arc::new(table));
        }
        Ok(())
    }
}

/// The sockets that listen now. Processes are taken over from the last time.
fn listening(before: &Table) -> io::Result<Table> {
    let mut table = Table::new();
    sockets::listening(&mut |socket| {
        let key = (socket.port, socket.address);
        let known = before
            .get(&key)
            .filter(|known| known.inode == socket.inode)
            .copied();
        let listener = known.unwrap_or(Listener {
            inode: socket.inode,
            pid: None,
        });
        // Of several sockets on one port the one that was told stays.
        let entry = table.entry(key).or_insert(listener);
        if known.is_some() {
            *entry = listener;
        }
        table.len() < MOST_PORTS
    })?;
    Ok(table)
}

fn port(key: Key, listener: Listener) -> Port {
    Port {
        port: key.0,
        address: key.1,
        pid: listener.pid.unwrap_or_default(),
    }
}

/// What turns one table into the other.
fn changes(told: &Table, now: &Table) -> Vec<PortEvent> {
    let same = |table: &Table, key: &Key, listener: &Listener| {
        table
            .get(key)
            .is_some_and(|other| other.inode == listener.inode)
    };
    let closed = told
        .iter()
        .filter(|(key, listener)| !same(now, key, listener))
        .map(|(key, listener)| PortEvent::Closed(port(*key, *listener)));
    let opened = now
        .iter()
        .filter(|(key, listener)| !same(told, key, listener))
        .map(|(key, listener)| PortEvent::Opened(port(*key, *listener)));
    closed.chain(opened).collect()
}

impl Watcher {
    /// The ports of which this watcher knows.
    fn list(&self) -> Vec<Port> {
        let all = self.told.iter();
        all.map(|(key, listener)| port(*key, *listener)).collect()
    }

    /// Waits until something changed; never returns when nothing can any more.
    ///
    /// Cancel safe: cancelled, nothing counts as told.
    pub(crate) async fn changed(&mut self) -> Vec<PortEvent> {
        loop {
            if self.latest.changed().await.is_err() {
                return std::future::pending().await;
            }
            let now = Table::clone(&self.latest.borrow_and_update());
            let events = changes(&self.told, &now);
            self.told = now;
            if !events.is_empty() {
                return events;
            }
        }
    }
}

/// Tells the ports and every change until the host ends the stream.
pub(crate) async fn perform(
    ports: &Arc<Ports>,
    sender: &Sender,
    receiver: &mut link::Receiver,
) -> Result<(), Failure> {
    let mut watcher = ports.watch()?;
    // The first list tells processes too.
    ports.ask_once().await?;
    watcher.told = Table::clone(&watcher.latest.borrow_and_update());
    let list = PortsReply::List {
        ports: watcher.list(),
    };
    let tell = async {
        sender.send(Frame::control(&list)).await?;
        loop {
            sender.room().await?;
            for event in watcher.changed().await {
                sender
                    .send(Frame::control(&PortsReply::Port(event)))
                    .await?;
            }
        }
    };
    let until_end = async { while let Ok(Some(_)) = receiver.recv().await {} };
    let told: Result<std::convert::Infallible, link::LinkError> = tokio::select! {
        told = tell => told,
        () = until_end => return Ok(()),
        () = sender.until_failed() => return Ok(()),
    };
    // A stream that failed has nobody who could be told.
    told.map(|never| match never {}).or(Ok(()))
}

/// Waits until something listens on a port. Somebody waits for the answer of what will: the kernel is asked more often.
///
/// Cancel safe.
pub(crate) async fn until_listens(port: u16) -> Result<(), StepError> {
    loop {
        let begun = Instant::now();
        let mut listens = false;
        let ask = sockets::listening(&mut |socket| {
            listens |= socket.port == port;
            !listens
        });
        ask.step("ask for listening sockets")?;
        if listens {
            return Ok(());
        }
        tokio::time::sleep(SOON.max(begun.elapsed() * LARGEST_PART)).await;
    }
}

/// What a session tells of ports beside its output: nothing where it was not asked to, or where the kernel does not
/// say.
pub(crate) fn beside(ports: &Arc<Ports>, wanted: bool) -> Option<Watcher> {
    let watcher = wanted.then(|| ports.watch())?;
    // A session without word of its ports is better than none.
    watcher.inspect_err(|failure| say(failure)).ok()
}

/// The next messages about ports; waits for ever where nobody watches.
///
/// Cancel safe.
pub(crate) async fn replies(watcher: &mut Option<Watcher>) -> Vec<Reply> {
    match watcher {
        Some(watcher) => watcher
            .changed()
            .await
            .into_iter()
            .map(Reply::Port)
            .collect(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn table(entries: &[(u16, u64)]) -> Table {
        let entry = |&(port, inode): &(u16, u64)| {
            let key = (port, Ipv4Addr::LOCALHOST.into());
            (
                key,
                Listener {
                    inode,
                    pid: Some(7),
                },
            )
        };
        entries.iter().map(entry).collect()
    }

    fn told(before: &[(u16, u64)], now: &[(u16, u64)]) -> Vec<(bool, u16)> {
        let events = changes(&table(before), &table(now));
        let event = |event| match event {
            PortEvent::Opened(port) => (true, port.port),
            PortEvent::Closed(port) => (false, port.port),
        };
        events.into_iter().map(event).collect()
    }

    #[test]
    fn changes_are_told_and_nothing_else() {
        assert_eq!(told(&[], &[(80, 1)]), [(true, 80)]);
        assert_eq!(told(&[(80, 1)], &[]), [(false, 80)]);
        assert_eq!(told(&[(80, 1)], &[(80, 1)]), []);
        let again = told(&[(80, 1), (81, 2)], &[(80, 3), (81, 2)]);
        assert_eq!(again, [(false, 80), (true, 80)], "another socket has it");
    }

    /// A port of this very process shows, with its address, and goes; the watcher ends the asking.
    #[tokio::test]
    async fn a_port_that_opens_and_closes_is_told() {
        let ports = Ports::new();
        let mut watcher = ports.watch().expect("the kernel tells its sockets");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let number = listener.local_addr().expect("it is bound").port();
        let mut about = async |opened: bool| loop {
            for event in watcher.changed().await {
                match event {
                    PortEvent::Opened(port) if opened && port.port == number => return port,
                    PortEvent::Closed(port) if !opened && port.port == number => return port,
                    PortEvent::Opened(_) | PortEvent::Closed(_) => {}
                }
            }
        };
        assert_eq!(about(true).await.address, IpAddr::from(Ipv4Addr::LOCALHOST));
        drop(listener);
        about(false).await;
        drop(watcher);
        let asking = async {
            while ports.state().asking {
                tokio::time::sleep(EVERY / 10).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), asking).await;
        ended.expect("nobody is asked for nobody");
    }
}
