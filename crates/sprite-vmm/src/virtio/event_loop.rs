//! One thread for all devices whose work never blocks.
//!
//! It waits for queue events and for the devices' own files, and gives each event to its device. A pause parks
//! the whole thread: events stay where they are until it goes on.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::thread::{ThreadKind, ThreadSetup, spawn};
use super::{Ready, Runner, VirtioDevice, kick, new_event};

/// A device as transport and event loop share it.
pub type SharedDevice = Arc<Mutex<Box<dyn VirtioDevice>>>;

/// Events taken at once; more wait for the next round.
const BATCH: usize = 32;
/// Token of the loop's own event.
const CONTROL: u64 = u64::MAX;
/// Set in a token that stands for a source, not for a queue.
const SOURCE: u64 = 1 << 31;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Running,
    Paused,
    Stopped,
}

struct Command {
    wanted: Wanted,
    parked: bool,
}

struct Shared {
    command: Mutex<Command>,
    changed: Condvar,
    control: EventFd,
}

impl Shared {
    fn command(&self) -> MutexGuard<'_, Command> {
        self.command.lock().expect("no holder panics")
    }

    fn want(&self, wanted: Wanted) -> MutexGuard<'_, Command> {
        let mut command = self.command();
        command.wanted = wanted;
        self.changed.notify_all();
        kick(&self.control);
        command
    }

    /// Stands still as long as that is wanted; whether to go on after it.
    fn obey(&self) -> bool {
        let mut command = self.command();
        while command.wanted == Wanted::Paused {
            command.parked = true;
            self.changed.notify_all();
            command = self.changed.wait(command).expect("no holder panics");
        }
        command.parked = false;
        command.wanted == Wanted::Running
    }
}

/// The thread; it ends when this is dropped.
pub struct EventLoop {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl EventLoop {
    /// Starts it, paused.
    ///
    /// # Errors
    /// The kernel gives no thread, no event or does not watch a file.
    pub fn start(devices: &[SharedDevice], setup: &ThreadSetup) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            command: Mutex::new(Command {
                wanted: Wanted::Paused,
                parked: false,
            }),
            changed: Condvar::new(),
            control: new_event()?,
        });
        let epoll = Epoll::new()?;
        let control = EpollEvent::new(EventSet::IN, CONTROL);
        epoll.ctl(
            ControlOperation::Add,
            std::os::fd::AsRawFd::as_raw_fd(&shared.control),
            control,
        )?;
        let mut watched = Vec::new();
        for device in devices {
            if let Some(device) = Watched::new(device, &epoll, watched.len())? {
                watched.push(device);
            }
        }
        let thread = spawn("devices".to_owned(), ThreadKind::EventLoop, setup, {
            let shared = Arc::clone(&shared);
            move || run(&shared, &epoll, &watched)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Stops; returns when no device is being processed any more.
    pub fn pause(&self) {
        let mut command = self.shared.want(Wanted::Paused);
        while !command.parked {
            command = self.shared.changed.wait(command).expect("no holder panics");
        }
    }

    /// Goes on.
    pub fn resume(&self) {
        drop(self.shared.want(Wanted::Running));
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        drop(self.shared.want(Wanted::Stopped));
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been told by itself.
            let _ = thread.join();
        }
    }
}

/// A device with the events that the loop reads for it.
struct Watched {
    device: SharedDevice,
    queue_events: Vec<EventFd>,
}

impl Watched {
    /// Watches a device's files; nothing for one that runs itself.
    fn new(shared: &SharedDevice, epoll: &Epoll, index: usize) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;
        let device = lock(shared);
        if device.runner() == Runner::OwnThreads {
            return Ok(None);
        }
        let base = (index as u64) << 32;
        let mut queue_events = Vec::new();
        for (queue, event) in device.queue_events().iter().enumerate() {
            let interest = EpollEvent::new(EventSet::IN, base | queue as u64);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
            queue_events.push(event.try_clone()?);
        }
        for (number, source) in device.sources().iter().enumerate() {
            let interest = EpollEvent::new(source.events, base | SOURCE | number as u64);
            epoll.ctl(ControlOperation::Add, source.fd, interest)?;
        }
        Ok(Some(Self {
            device: Arc::clone(shared),
            queue_events,
        }))
    }

    fn process(&self, token: u64, events: EventSet) {
        let number = usize::try_from(token & (SOURCE - 1)).expect("31 bits fit");
        let ready = if token & SOURCE == 0 {
            // Level-triggered and read by this thread alone: there is something to read.
            let _count = self.queue_events[number].read();
            Ready::Queue(number)
        } else {
            Ready::Source(number, events)
        };
        lock(&self.device).process(ready);
    }
}

fn lock(device: &SharedDevice) -> MutexGuard<'_, Box<dyn VirtioDevice>> {
    device.lock().expect("no device panics")
}

fn run(shared: &Shared, epoll: &Epoll, devices: &[Watched]) {
    let mut ready = [EpollEvent::default(); BATCH];
    if !shared.obey() {
        return;
    }
    loop {
        let count = match epoll.wait(-1, &mut ready) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("wait for events of devices: {error}"),
        };
        for event in &ready[..count] {
            if event.data() == CONTROL {
                let _count = shared.control.read();
                if !shared.obey() {
                    return;
                }
                continue;
            }
            let index = usize::try_from(event.data() >> 32).expect("32 bits fit");
            devices[index].process(event.data() & u64::from(u32::MAX), event.event_set());
        }
    }
}
