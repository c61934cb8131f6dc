//! Logs of services: files on the sprite's disk, and the one thread that writes them.
//!
//! `/.sprite/logs/services/NAME.log`, and `NAME.log.1` with what was written before that. The directory and all in it
//! belong to the environment, whose root may put anything in their place at any time: so no link is followed, what is
//! no plain file of one name is replaced by one, and a disk that does not take lines costs those lines and nothing
//! else.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, mpsc};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sprite_types::ServiceName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::end::DISK;
use crate::log::say;
use crate::sys;

/// A log is begun anew at this length, in bytes. With the one before it a service has twice as much.
pub(super) const ROTATED_AT: u64 = 8 << 20;

/// Bytes that all services together may have on their way to the disk; then they wait in their own writes.
const UNWRITTEN: usize = 1 << 20;

/// Enough for what the thread calls.
const STACK: usize = 128 << 10;

const DIRECTORIES: [&str; 3] = [".sprite", "logs", "services"];

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Logs {
    queue: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

/// Room for bytes on their way, until they are written.
pub(super) type Room = OwnedSemaphorePermit;

enum Job {
    Write(ServiceName, Vec<u8>, Room),
    Read(ServiceName, oneshot::Sender<Vec<Part>>),
    Forget(ServiceName),
    /// No file is open or opened any more when it is answered.
    Close(oneshot::Sender<()>),
}

/// A file of a log, and how long it was. What is written later is behind that.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: File,
    pub(super) length: u64,
}

impl Logs {
    /// Starts the thread, whose files belong to `owner`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn start(owner: u32) -> io::Result<Self> {
        Self::start_at(owner, Path::new(DISK))
    }

    fn start_at(owner: u32, disk: &Path) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel();
        let mut files = Files {
            disk: disk.to_owned(),
            directory: None,
            open: HashMap::new(),
            complained: false,
        };
        std::thread::Builder::new()
            .name("logs".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                // The disk knows only the environment's ids.
                sys::file_identity(owner, owner);
                files.serve(&jobs);
            })?;
        Ok(Self {
            queue,
            room: Arc::new(Semaphore::new(UNWRITTEN)),
        })
    }

    /// Waits until so many bytes may be on their way to the disk.
    ///
    /// Cancel safe.
    pub(super) async fn room(&self, bytes: usize) -> Room {
        let bytes = u32::try_from(bytes.min(UNWRITTEN)).expect("the room is small");
        let room = self.room.clone().acquire_many_owned(bytes).await;
        room.expect("nobody closes the semaphore")
    }

    /// Writes lines behind all that was to be written before. The thread ends with the process.
    pub(super) fn write(&self, service: &ServiceName, lines: Vec<u8>, room: Room) {
        let _ = self.queue.send(Job::Write(service.clone(), lines, room));
    }

    /// The files of a log, the oldest first, with all that was to be written before.
    pub(super) fn read(&self, service: &ServiceName) -> oneshot::Receiver<Vec<Part>> {
        let (tell, told) = oneshot::channel();
        let _ = self.queue.send(Job::Read(service.clone(), tell));
        told
    }

    /// Closes the files of a service that is gone; they stay on the disk.
    pub(super) fn forget(&self, service: &ServiceName) {
        let _ = self.queue.send(Job::Forget(service.clone()));
    }

    /// Ends all writing.
    pub(super) async fn close(&self) {
        let (tell, closed) = oneshot::channel();
        let _ = self.queue.send(Job::Close(tell));
        let _ = closed.await;
    }
}

/// What the thread has open.
struct Files {
    disk: std::path::PathBuf,
    directory: Option<OwnedFd>,
    open: HashMap<ServiceName, File>,
    /// Once is enough: the next line fails as well.
    complained: bool,
}

impl Files {
    fn serve(&mut self, jobs: &mpsc::Receiver<Job>) {
        let mut closed = false;
        for job in jobs {
            match job {
                Job::Write(_, _, _) if closed => {}
                Job::Write(service, lines, room) => {
                    let written = self.append(&service, &lines);
                    drop(room);
                    match written {
                        Ok(()) => self.complained = false,
                        Err(error) if !self.complained => {
                            self.complained = true;
                            say(format_args!("write the log of service {service}: {error}"));
                        }
                        Err(_) => {}
                    }
                }
                Job::Read(service, tell) => {
                    let parts = if closed {
                        Vec::new()
                    } else {
                        self.parts(&service)
                    };
                    // Whoever asked may have gone.
                    let _ = tell.send(parts);
                }
                Job::Forget(service) => drop(self.open.remove(&service)),
                Job::Close(tell) => {
                    closed = true;
                    self.open.clear();
                    self.directory = None;
                    let _ = tell.send(());
                }
            }
        }
    }

    /// Appends to a log. A directory or file that somebody took away is made again, once.
    fn append(&mut self, service: &ServiceName, lines: &[u8]) -> io::Result<()> {
        let name = current(service);
        if let Some(file) = self.open.get(service) {
            let stat = rustix::fs::fstat(file)?;
            let there = self.directory.as_ref().is_some_and(|directory| {
                rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)
                    .is_ok_and(|now| (now.st_dev, now.st_ino) == (stat.st_dev, stat.st_ino))
            });
            if !there {
                self.open.remove(service);
            } else if u64::try_from(stat.st_size).unwrap_or(0) >= ROTATED_AT {
                self.open.remove(service);
                let directory = self.directory()?;
                let before = previous(service);
                // What cannot be moved is replaced below.
                let _ = rustix::fs::renameat(directory, &name, directory, &before)
                    .or_else(|_| rustix::fs::unlinkat(directory, &name, AtFlags::empty()));
            }
        }
        if !self.open.contains_key(service) {
            let opened = open_log(self.directory()?, &name).or_else(|_| {
                self.directory = None;
                open_log(self.directory()?, &name)
            })?;
            self.open.insert(service.clone(), opened);
        }
        let file = self.open.get_mut(service).expect("just opened");
        file.write_all(lines)
    }

    fn parts(&mut self, service: &ServiceName) -> Vec<Part> {
        let Ok(directory) = self.directory() else {
            return Vec::new();
        };
        let names = [previous(service), current(service)];
        let read = |name: &String| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            let file = open_regular(directory, name, flags, Mode::empty()).ok()?;
            let length = file.metadata().ok()?.len();
            Some(Part { file, length })
        };
        names.iter().filter_map(read).collect()
    }

    /// Where the logs are; made if it is not there.
    fn directory(&mut self) -> io::Result<&OwnedFd> {
        if self.directory.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut place = rustix::fs::open(&self.disk, flags, Mode::empty())?;
            for name in DIRECTORIES {
                place = enter(&place, name)?;
            }
            self.directory = Some(place);
        }
        Ok(self.directory.as_ref().expect("just set"))
    }
}

fn current(service: &ServiceName) -> String {
    format!("{service}.log")
}

fn previous(service: &ServiceName) -> String {
    format!("{service}.log.1")
}

const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// A directory in a directory; made, also in the place of what is none.
fn enter(place: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat2(place, name, flags, Mode::empty(), INSIDE);
    match open() {
        Ok(opened) => return Ok(opened),
        Err(Errno::NOENT) => {}
        Err(Errno::NOTDIR | Errno::LOOP) => {
            rustix::fs::unlinkat(place, name, AtFlags::empty())?;
        }
        Err(error) => return Err(error.into()),
    }
    match rustix::fs::mkdirat(place, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(open()?),
        Err(error) => Err(error.into()),
    }
}

/// Opens a log to append to it; what stands in its place and is no file of that one name is removed.
fn open_log(directory: &OwnedFd, name: &str) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::APPEND | OFlags::NONBLOCK;
    let mode = Mode::from_raw_mode(0o644);
    let of_one_name = |file: &File| {
        let stat = rustix::fs::fstat(file)?;
        Ok::<_, Errno>(stat.st_nlink == 1)
    };
    match open_regular(directory, name, flags, mode) {
        Ok(file) if of_one_name(&file)? => return Ok(file),
        Ok(_) | Err(Errno::INVAL | Errno::LOOP | Errno::ISDIR | Errno::NXIO) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::fs::unlinkat(directory, name, AtFlags::empty())
        .or_else(|_| rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR))?;
    let file = open_regular(directory, name, flags | OFlags::EXCL, mode)?;
    Ok(file)
}

/// Opens a plain file and nothing else: opening a pipe waits, and opening a device may do anything.
fn open_regular(directory: &OwnedFd, name: &str, flags: OFlags, mode: Mode) -> Result<File, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
        Ok(_) => return Err(Errno::INVAL),
        Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {}
        Err(error) => return Err(error),
    }
    // It may be another one by now; then it is not used.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(directory, name, flags, mode, INSIDE)?;
    let stat = rustix::fs::fstat(&file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(File::from(file)),
        FileType::Directory
        | FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests;
