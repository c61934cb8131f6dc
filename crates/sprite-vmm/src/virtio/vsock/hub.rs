//! All connections, and what happens to them on the host's side.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;

use super::connection::{Connection, Fate};
use super::host::{Accepted, Line, Listener, read_line};
use super::metrics::VsockMetrics;
use super::packet::{Header, Ports};

/// Most connections, those that have not said their port included. Each may keep a buffer.
pub(super) const MAX_CONNECTIONS: usize = 1024;
/// The first of our ports; those below are for processes of the host that listen.
const FIRST_PORT: u32 = 1 << 30;
/// How long a connection has for its first line, the guest for its answer, and for agreeing to an end.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// When to look again for a free file descriptor.
const ACCEPT_AGAIN: Duration = Duration::from_secs(1);

const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST_ID: u64 = 2;
/// Events taken at once.
const BATCH: usize = 64;

/// A connection that has not said its port.
struct Newcomer {
    stream: UnixStream,
    deadline: Instant,
}

/// The connections of one guest.
pub(super) struct Hub {
    guest_cid: u32,
    /// What [`PATIENCE`] says, but for tests.
    pub(super) patience: Duration,
    pub(super) listener: Listener,
    epoll: Epoll,
    timer: TimerFd,
    /// When the timer fires.
    alarm: Option<Instant>,
    next_id: u64,
    next_port: u32,
    newcomers: HashMap<u64, Newcomer>,
    pub(super) connections: HashMap<u64, Connection>,
    /// Those that are not over for the guest.
    pub(super) by_ports: HashMap<Ports, u64>,
    /// Those that may have something for the guest, in turn.
    pub(super) line: VecDeque<u64>,
    /// Answers to what has no connection.
    pub(super) answers: VecDeque<Header>,
    pub(super) metrics: Arc<VsockMetrics>,
}

impl Hub {
    pub(super) fn new(
        path: &Path,
        guest_cid: u32,
        metrics: Arc<VsockMetrics>,
        patience: Duration,
    ) -> io::Result<Self> {
        let listener = Listener::bind(path)?;
        let epoll = Epoll::new()?;
        let timer = TimerFd::new()?;
        let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
        epoll.ctl(
            ControlOperation::Add,
            listener.fd(),
            EpollEvent::new(edge, LISTENER),
        )?;
        let level = EpollEvent::new(EventSet::IN, TIMER);
        epoll.ctl(ControlOperation::Add, timer.as_raw_fd(), level)?;
        Ok(Self {
            guest_cid,
            patience,
            listener,
            epoll,
            timer,
            alarm: None,
            next_id: FIRST_ID,
            next_port: FIRST_PORT,
            newcomers: HashMap::new(),
            connections: HashMap::new(),
            by_ports: HashMap::new(),
            line: VecDeque::new(),
            answers: VecDeque::new(),
            metrics,
        })
    }

    /// The file that is readable when [`Hub::host_events`] has something to do.
    pub(super) fn fd(&self) -> i32 {
        self.epoll.as_raw_fd()
    }

    /// The guest has forgotten all connections: ends those that it ever heard of.
    pub(super) fn reset(&mut self) {
        self.connections
            .retain(|_, connection| connection.is_unheard());
        let unheard = &self.connections;
        self.by_ports.retain(|_, id| unheard.contains_key(id));
        self.line.retain(|id| unheard.contains_key(id));
        self.answers.clear();
    }

    /// Forgets answers to the guest: it is about to forget what they are to.
    pub(super) fn forget_answers(&mut self) {
        self.answers.clear();
    }

    /// Handles what happened on the host's side, a bounded number of events.
    pub(super) fn host_events(&mut self) {
        let mut events = [EpollEvent::default(); BATCH];
        // Never waits; an interrupted call is repeated by the event loop.
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept_all(),
                TIMER => self.time_passed(Instant::now()),
                id => {
                    self.newcomer_event(id);
                    // It may be one of the connections by now, and gone already.
                    self.stream_event(id, event.event_set());
                }
            }
        }
    }

    fn accept_all(&mut self) {
        loop {
            match self.listener.accept() {
                Accepted::Stream(stream) => self.accept(stream),
                Accepted::Nobody => return,
                Accepted::Later => return self.wake_at(Instant::now() + ACCEPT_AGAIN),
            }
        }
    }

    fn accept(&mut self, stream: UnixStream) {
        if self.is_full() {
            self.metrics.refused.inc();
            return;
        }
        let Ok(id) = self.watch(&stream) else {
            self.metrics.refused.inc();
            return;
        };
        let deadline = Instant::now() + self.patience;
        self.newcomers.insert(id, Newcomer { stream, deadline });
        self.wake_at(deadline);
        self.newcomer_event(id);
    }

    pub(super) fn is_full(&self) -> bool {
        self.newcomers.len() + self.connections.len() >= MAX_CONNECTIONS
    }

    /// Has a stream's events come under a new id.
    pub(super) fn watch(&mut self, stream: &UnixStream) -> io::Result<u64> {
        let id = self.next_id;
        let all = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        let interest = EpollEvent::new(all, id);
        self.epoll
            .ctl(ControlOperation::Add, stream.as_raw_fd(), interest)?;
        self.next_id += 1;
        Ok(id)
    }

    fn newcomer_event(&mut self, id: u64) {
        let Some(newcomer) = self.newcomers.get(&id) else {
            return;
        };
        let line = read_line(&newcomer.stream);
        if line == Line::Unfinished {
            return;
        }
        let Some(Newcomer { stream, .. }) = self.newcomers.remove(&id) else {
            return;
        };
        match line {
            Line::Port(guest) => {
                let host = self.free_port(guest);
                self.insert(id, Connection::from_host(Ports { host, guest }, stream));
            }
            Line::Unfinished | Line::Wrong => self.metrics.refused.inc(),
        }
    }

    /// The port that the next connection of the host gets.
    pub(super) fn next_port(&self) -> u32 {
        self.next_port
    }

    /// Goes on with `port`.
    pub(super) fn go_on_with_port(&mut self, port: u32) {
        self.next_port = port.max(FIRST_PORT);
    }

    /// A port of ours that has no connection with this port of the guest.
    fn free_port(&mut self, guest: u32) -> u32 {
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_PORT);
            // There are far more ports than connections.
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return host;
            }
        }
    }

    pub(super) fn insert(&mut self, id: u64, connection: Connection) {
        self.by_ports.insert(connection.ports(), id);
        self.connections.insert(id, connection);
        self.line_up(id);
    }

    fn stream_event(&mut self, id: u64, events: EventSet) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let gone = events.intersects(EventSet::HANG_UP | EventSet::ERROR);
        if events.intersects(EventSet::IN | EventSet::READ_HANG_UP) {
            connection.host_readable();
        }
        let mut fate = Fate::Goes;
        if gone {
            fate = connection.host_gone();
        } else if events.contains(EventSet::OUT) {
            fate = connection.flush();
        }
        self.settle(id, fate);
    }

    /// After a connection was touched: it ends, or it may want a turn.
    pub(super) fn settle(&mut self, id: u64, fate: Fate) {
        match fate {
            Fate::Ends => self.remove(id),
            Fate::Goes => self.line_up(id),
        }
    }

    pub(super) fn line_up(&mut self, id: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.in_line
            && connection.wants_turn()
        {
            connection.in_line = true;
            self.line.push_back(id);
        }
    }

    pub(super) fn remove(&mut self, id: u64) {
        if let Some(connection) = self.connections.remove(&id)
            && self.by_ports.get(&connection.ports()) == Some(&id)
        {
            self.by_ports.remove(&connection.ports());
        }
    }

    /// Has the timer fire at `moment` or earlier.
    pub(super) fn wake_at(&mut self, moment: Instant) {
        if self.alarm.is_some_and(|alarm| alarm <= moment) {
            return;
        }
        // A duration of zero would disarm it.
        let wait = moment.saturating_duration_since(Instant::now());
        if self
            .timer
            .reset(wait.max(Duration::from_millis(1)), None)
            .is_ok()
        {
            self.alarm = Some(moment);
        }
    }

    /// Gives up on those that had time enough, and sets the timer for the next.
    fn time_passed(&mut self, now: Instant) {
        let _count = self.timer.wait();
        self.alarm = None;
        let before = self.newcomers.len();
        self.newcomers.retain(|_, newcomer| newcomer.deadline > now);
        self.metrics
            .refused
            .add((before - self.newcomers.len()) as u64);
        let is_late = |connection: &Connection| connection.deadline.is_some_and(|at| at <= now);
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, connection)| is_late(connection))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            if let Some(connection) = self.connections.get_mut(&id) {
                if connection.awaits_answer() {
                    self.metrics.refused.inc();
                }
                connection.deadline = None;
                connection.cut();
            }
            self.line_up(id);
        }
        let next = self.newcomers.values().map(|newcomer| newcomer.deadline);
        let deadlines = self
            .connections
            .values()
            .filter_map(|connection| connection.deadline);
        if let Some(next) = next.chain(deadlines).min() {
            self.wake_at(next);
        }
        self.accept_all();
    }

    /// The guest's address.
    pub(super) fn guest_cid(&self) -> u32 {
        self.guest_cid
    }
}
