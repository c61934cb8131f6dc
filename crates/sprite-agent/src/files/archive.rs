//! Puts an archive below a directory, and reads a directory as one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use sprite_agent_api::fs::{FsReply, FsUnpacked};
use sprite_agent_api::{FrameKind, MAX_DATA};
use sprite_archive::{
    CopyError, Entry, Kind, Note, ReadError, Reader, Target, Time, UnpackError, Unpacked, Whole,
    Writer,
};

use super::channel::{Channel, Stop, Tried, refused};
use super::resolve::{self, is_directory, locate, permission_bits, readable};
use super::walk::{Found, Then, Visit, walk};
use super::write::make_directories;

pub(super) fn unpack(channel: &mut Channel, path: &str) -> Result<(), Stop> {
    let (top, fresh) = open_or_make(path)?;
    channel.say(&FsReply::Unpacking {
        path: path.to_owned(),
    })?;
    let target = Target {
        top: top.as_fd(),
        fresh,
        modes: 0o7777,
    };
    let mut archive = Reader::new(Incoming {
        channel,
        payload: Vec::new(),
        read: 0,
        ended: false,
    });
    let done = sprite_archive::unpack(&mut archive, target, &mut |_| {});
    let done = done.map_err(|error| stop(error, path))?;
    // One for all: what is told is on the disk.
    for system in &done.systems {
        rustix::fs::syncfs(system).tried("bring to the disk", path)?;
    }
    let Unpacked {
        files,
        directories,
        links,
        bytes,
        systems: _,
    } = done;
    channel.say(&FsReply::Unpacked(FsUnpacked {
        path: path.to_owned(),
        files,
        directories,
        links,
        bytes,
    }))
}

/// The directory, and whether it had to be made.
fn open_or_make(path: &str) -> Result<(OwnedFd, bool), Stop> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let open = || resolve::open(path, flags, Mode::empty());
    match open() {
        Err(Errno::NOENT) => {
            make_directories(path)?;
            Ok((open().tried("open", path)?, true))
        }
        opened => Ok((opened.tried("open", path)?, false)),
    }
}

fn stop(error: UnpackError, top: &str) -> Stop {
    let below = |name: &str| format!("{}/{name}", top.trim_end_matches('/'));
    match error {
        UnpackError::Read(ReadError::Read(_)) => Stop::Gone,
        UnpackError::Read(ReadError::Damaged { damage, name }) => refused(
            libc::EINVAL,
            &format!("unpack: {damage}, at"),
            &below(&name),
        ),
        UnpackError::Told(text) => refused(libc::EINVAL, &format!("unpack: {text}"), top),
        UnpackError::Refused { reason, name } => {
            refused(libc::EINVAL, &format!("unpack: {reason},"), &below(&name))
        }
        UnpackError::Kernel { step, name, source } => refused(
            source.raw_os_error().unwrap_or(libc::EIO),
            step,
            &below(&name),
        ),
    }
}

/// The bytes that come over the channel.
struct Incoming<'a> {
    channel: &'a mut Channel,
    payload: Vec<u8>,
    read: usize,
    ended: bool,
}

impl Read for Incoming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.payload.len() && !self.ended {
            self.read = 0;
            match self.channel.receive(&mut self.payload) {
                Ok(FrameKind::Stdin) => self.ended = self.payload.is_empty(),
                // Of a later host; not for this one.
                Ok(FrameKind::Control | FrameKind::Stdout | FrameKind::Stderr) => {
                    self.payload.clear();
                }
                Err(_) => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let read = (&self.payload[self.read..]).read(buffer)?;
        self.read += read;
        Ok(read)
    }
}

pub(super) fn pack(channel: &mut Channel, path: &str) -> Result<(), Stop> {
    let (place, stat) = locate(path).tried("find", path)?;
    if !is_directory(&stat) {
        return Err(refused(libc::ENOTDIR, "pack", path));
    }
    let directory = readable(&place).tried("open", path)?;
    channel.say(&FsReply::Packing {
        path: path.to_owned(),
    })?;
    let outgoing = Outgoing {
        channel,
        buffer: Vec::with_capacity(MAX_DATA),
    };
    let mut packing = Packing {
        archive: Writer::new(outgoing),
        name: Vec::new(),
        torn: false,
    };
    packing.directory(b".", &stat)?;
    match walk(directory, path, &mut packing) {
        Ok(()) => {
            packing.archive.finish().map_err(gone)?;
            channel.say(&FsReply::Done)
        }
        Err(Stop::Refused(error)) => {
            if !packing.torn {
                // Whoever has read the beginning learns why there is no end.
                let why = io::Error::from_raw_os_error(error.errno);
                let why = format!("{} {}: {why}", error.step, error.path);
                packing.archive.note(&Note::Failed(why)).map_err(gone)?;
                packing.archive.into_inner().flush().map_err(gone)?;
            }
            Err(Stop::Refused(error))
        }
        Err(Stop::Gone) => Err(Stop::Gone),
    }
}

struct Packing<'a> {
    archive: Writer<Outgoing<'a>>,
    /// Where the walk is, below the top: a name and `/` for each level.
    name: Vec<u8>,
    /// Whether the archive stops in the middle of a file.
    torn: bool,
}

impl Packing<'_> {
    fn entry(&self, found: &Found<'_>, kind: Kind) -> Entry {
        let mut name = self.name.clone();
        name.extend_from_slice(found.name.to_bytes());
        entry(name, kind, &found.stat)
    }

    fn directory(&mut self, name: &[u8], stat: &Stat) -> Result<(), Stop> {
        let entry = entry(name.to_vec(), Kind::Directory, stat);
        self.archive.entry(&entry).map_err(gone)
    }

    fn regular(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(found.directory, found.name, flags, Mode::empty()) {
            Ok(file) => file,
            // Gone since it was looked at.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno).tried("open", found.path),
        };
        let stat = rustix::fs::fstat(&file).tried("look at", found.path)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return self.left_out(found);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut entry = self.entry(found, Kind::File { size });
        (entry.mode, entry.mtime) = (permission_bits(&stat), mtime(&stat));
        self.archive.entry(&entry).map_err(gone)?;
        match self.archive.content(size, &mut File::from(file), |_| {}) {
            Ok(Whole::Yes) => Ok(()),
            Ok(Whole::Padded) => {
                let note = Note::Padded(found.path.to_owned());
                self.archive.note(&note).map_err(gone)
            }
            Err(CopyError::Read(error)) => {
                self.torn = true;
                Err(error).tried("read", found.path)
            }
            Err(CopyError::Write(error)) => Err(gone(error)),
        }
    }

    fn left_out(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        let note = Note::LeftOut(found.path.to_owned());
        self.archive.note(&note).map_err(gone)
    }
}

impl Visit for Packing<'_> {
    fn file(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => self.regular(found),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(found.directory, found.name, Vec::new());
                let target = match target {
                    Ok(target) => target.into_bytes(),
                    Err(Errno::NOENT) => return Ok(()),
                    Err(errno) => return Err(errno).tried("read the link", found.path),
                };
                let entry = self.entry(found, Kind::Symlink { target });
                self.archive.entry(&entry).map_err(gone)
            }
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => self.left_out(found),
        }
    }

    fn enter(
        &mut self,
        found: &Found<'_>,
        opened: Result<BorrowedFd<'_>, Errno>,
    ) -> Result<Then, Stop> {
        match opened {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(Then::Pass),
            // Another file system.
            Err(Errno::XDEV) => {
                self.left_out(found)?;
                return Ok(Then::Pass);
            }
            Err(errno) => return Err(errno).tried("open", found.path),
        }
        self.name.extend_from_slice(found.name.to_bytes());
        self.name.push(b'/');
        let entry = entry(self.name.clone(), Kind::Directory, &found.stat);
        self.archive.entry(&entry).map_err(gone)?;
        Ok(Then::Enter)
    }

    fn leave(&mut self, found: &Found<'_>) -> Result<(), Stop> {
        let length = found.name.to_bytes().len() + 1;
        self.name.truncate(self.name.len() - length);
        Ok(())
    }
}

fn entry(name: Vec<u8>, kind: Kind, stat: &Stat) -> Entry {
    Entry {
        name,
        kind,
        mode: permission_bits(stat),
        mtime: mtime(stat),
    }
}

fn mtime(stat: &Stat) -> Time {
    Time {
        seconds: stat.st_mtime,
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
    }
}

fn gone(_: io::Error) -> Stop {
    Stop::Gone
}

/// Bytes that go over the channel, in pieces as large as it takes.
struct Outgoing<'a> {
    channel: &'a mut Channel,
    buffer: Vec<u8>,
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() == MAX_DATA {
            self.flush()?;
        }
        let taken = bytes.len().min(MAX_DATA - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = &self.buffer;
        let sent = self.channel.send_bytes(|out| {
            out[..buffer.len()].copy_from_slice(buffer);
            Ok(buffer.len())
        });
        self.buffer.clear();
        match sent {
            Ok(_) => Ok(()),
            Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
