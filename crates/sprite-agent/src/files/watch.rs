//! Tells what happens to files: inotify, and what it does not do by itself.
//!
//! A directory that comes to be below a watched one is watched first and looked through then: what it got in between
//! is told as created. Events that the kernel dropped because nobody read them are told as an overflow; the host's
//! slowness is the only cause, since nothing is kept here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::fs::{AtFlags, CWD};
use rustix::io::Errno;
use sprite_agent_api::fs::{FsEvent, FsEventKind, FsReply, WatchInput};

use super::channel::{Channel, Stop, Tried};
use super::resolve::{Paths, by_descriptor, is_directory, locate, locate_link};

/// Most directories that one watch has, those below the ones that were asked for included.
const MOST: usize = 1 << 16;
/// Most paths in one message.
const MOST_PATHS: usize = 1024;

const INTEREST: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::CREATE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK);

pub(super) fn watch(channel: &mut Channel, home: &str) -> Result<(), Stop> {
    let flags = CreateFlags::CLOEXEC | CreateFlags::NONBLOCK;
    let mut watching = Watching {
        inotify: inotify::init(flags).tried("watch", "")?,
        watched: HashMap::new(),
        asked: BTreeMap::new(),
        moved: None,
    };
    channel.say(&FsReply::Watching)?;
    loop {
        let (said, happened) = wait(channel, &watching.inotify).tried("watch", "")?;
        if said {
            match channel.message::<WatchInput>()? {
                WatchInput::Subscribe {
                    paths,
                    recursive,
                    working_dir,
                } => {
                    let from = Paths::new(home, working_dir.as_deref())?;
                    watching.subscribe(channel, &from, &paths, recursive)?;
                }
                WatchInput::Unsubscribe { paths, working_dir } => {
                    let from = Paths::new(home, working_dir.as_deref())?;
                    watching.unsubscribe(channel, &from, &paths)?;
                }
            }
        }
        if happened {
            watching.read(channel)?;
        }
    }
}

/// Waits until the host says something, or something happens.
fn wait(channel: &Channel, inotify: &OwnedFd) -> Result<(bool, bool), Errno> {
    let mut fds = [
        PollFd::new(channel.socket(), PollFlags::IN),
        PollFd::new(inotify, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
    let [said, happened] = fds;
    Ok((!said.revents().is_empty(), !happened.revents().is_empty()))
}

struct Watching {
    inotify: OwnedFd,
    /// What each of the kernel's watches is on.
    watched: HashMap<i32, Watched>,
    /// What was asked for, and whether what is below it as well.
    asked: BTreeMap<String, bool>,
    /// A name that something lost, until it is known whether it got another one.
    moved: Option<(u32, FsEvent)>,
}

struct Watched {
    path: String,
    recursive: bool,
}

impl Watching {
    fn subscribe(
        &mut self,
        channel: &mut Channel,
        from: &Paths,
        paths: &[String],
        recursive: bool,
    ) -> Result<(), Stop> {
        let mut subscribed = Vec::new();
        for path in paths.iter().take(MOST_PATHS) {
            let added = from.absolute(path).and_then(|path| {
                self.add(&path, recursive).tried("watch", &path)?;
                Ok(path)
            });
            match added {
                Ok(path) => {
                    self.asked.insert(path.clone(), recursive);
                    if recursive {
                        self.add_below(channel, &path, &mut |_, _| Ok(()))?;
                    }
                    subscribed.push(path);
                }
                Err(Stop::Refused(error)) => cannot(channel, error.errno, path)?,
                Err(Stop::Gone) => return Err(Stop::Gone),
            }
        }
        if paths.len() > MOST_PATHS {
            let message = format!("only the first {MOST_PATHS} paths of a message are watched");
            warn(channel, &message, "")?;
        }
        channel.say(&FsReply::Subscribed {
            paths: subscribed,
            recursive,
        })
    }

    fn unsubscribe(
        &mut self,
        channel: &mut Channel,
        from: &Paths,
        paths: &[String],
    ) -> Result<(), Stop> {
        let mut gone = Vec::new();
        for path in paths.iter().take(MOST_PATHS) {
            match from.absolute(path) {
                Ok(path) => {
                    self.asked.remove(&path);
                    gone.push(path);
                }
                Err(Stop::Refused(error)) => cannot(channel, error.errno, path)?,
                Err(Stop::Gone) => return Err(Stop::Gone),
            }
        }
        let asked = &self.asked;
        let unwanted: Vec<i32> = self
            .watched
            .iter()
            .filter(|(_, watched)| !wanted(asked, &watched.path))
            .map(|(id, _)| *id)
            .collect();
        for id in unwanted {
            self.watched.remove(&id);
            // The kernel may have dropped it already.
            let _ = inotify::remove_watch(&self.inotify, id);
        }
        channel.say(&FsReply::Unsubscribed { paths: gone })
    }

    /// Watches one file or directory.
    fn add(&mut self, path: &str, recursive: bool) -> Result<(), Errno> {
        if self.watched.len() >= MOST {
            return Err(Errno::NOSPC);
        }
        // By the descriptor, so that the path is resolved in our way and no other.
        let (place, _) = locate(path)?;
        self.add_place(&place, path, recursive)
    }

    fn add_place(&mut self, place: &OwnedFd, path: &str, recursive: bool) -> Result<(), Errno> {
        let id = inotify::add_watch(&self.inotify, by_descriptor(place), INTEREST)?;
        let watched = self.watched.entry(id).or_insert_with(|| Watched {
            path: path.to_owned(),
            recursive,
        });
        // It may have been renamed since.
        path.clone_into(&mut watched.path);
        watched.recursive |= recursive;
        Ok(())
    }

    /// Watches all directories below one, and tells what is there to `seen`.
    fn add_below(
        &mut self,
        channel: &mut Channel,
        top: &str,
        seen: &mut dyn FnMut(&mut Channel, FsEvent) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut left = BTreeSet::from([top.to_owned()]);
        while let Some(path) = left.pop_first() {
            let Ok((place, stat)) = locate_link(&path) else {
                // Gone already.
                continue;
            };
            if !is_directory(&stat) {
                continue;
            }
            let full = self.watched.len() >= MOST;
            let added = match full {
                true => Err(Errno::NOSPC),
                false => self.add_place(&place, &path, true),
            };
            if let Err(errno) = added {
                cannot(channel, errno.raw_os_error(), &path)?;
                if full || errno == Errno::NOSPC {
                    return Ok(());
                }
                continue;
            }
            let Ok(directory) = super::resolve::readable(&place) else {
                continue;
            };
            for entry in rustix::fs::Dir::new(directory)
                .into_iter()
                .flatten()
                .flatten()
            {
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let below = join(&path, OsStr::from_bytes(name.to_bytes()));
                let event = event(FsEventKind::Create, below, None);
                if event.is_dir {
                    left.insert(event.path.clone());
                }
                seen(channel, event)?;
            }
        }
        Ok(())
    }

    /// Tells all that the kernel has to tell now.
    fn read(&mut self, channel: &mut Channel) -> Result<(), Stop> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut happened = Vec::new();
        {
            let mut reader = inotify::Reader::new(self.inotify.as_fd(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(raw) => {
                        let name = raw
                            .file_name()
                            .map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                        happened.push((raw.wd(), raw.events(), raw.cookie(), name));
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno).tried("watch", ""),
                }
                if reader.is_buffer_empty() {
                    break;
                }
            }
        }
        for (id, flags, cookie, name) in happened {
            self.happened(channel, id, flags, cookie, name.as_deref())?;
        }
        // Both names of a rename come together: who has none by now has left what is watched.
        self.settle(channel)
    }

    fn settle(&mut self, channel: &mut Channel) -> Result<(), Stop> {
        match self.moved.take() {
            Some((_, event)) => channel.say(&FsReply::Event(event)),
            None => Ok(()),
        }
    }

    fn happened(
        &mut self,
        channel: &mut Channel,
        id: i32,
        flags: ReadFlags,
        cookie: u32,
        name: Option<&OsStr>,
    ) -> Result<(), Stop> {
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            return warn(channel, "overflow: events were missed", "");
        }
        if flags.contains(ReadFlags::IGNORED) {
            self.watched.remove(&id);
            return Ok(());
        }
        let Some(watched) = self.watched.get(&id) else {
            // Of a watch that was given up meanwhile.
            return Ok(());
        };
        let recursive = watched.recursive;
        let path = match name {
            Some(name) => join(&watched.path, name),
            None => watched.path.clone(),
        };
        let is_dir = flags.contains(ReadFlags::ISDIR);
        if flags.contains(ReadFlags::MOVED_TO) {
            return self.arrived(channel, path, cookie, recursive && is_dir);
        }
        self.settle(channel)?;
        let kind = if flags.contains(ReadFlags::CREATE) {
            FsEventKind::Create
        } else if flags.intersects(ReadFlags::DELETE | ReadFlags::DELETE_SELF) {
            FsEventKind::Remove
        } else if flags.intersects(ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF) {
            FsEventKind::Rename
        } else if flags.contains(ReadFlags::ATTRIB) {
            FsEventKind::Chmod
        } else {
            FsEventKind::Write
        };
        // Of a directory that is watched both by itself and from above, the one above tells.
        let by_itself = ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF;
        if name.is_none() && flags.intersects(by_itself) && !self.asked.contains_key(&path) {
            return Ok(());
        }
        if name.is_none() && kind == FsEventKind::Chmod && !self.asked.contains_key(&path) {
            return Ok(());
        }
        let mut told = event(kind, path, None);
        told.is_dir |= is_dir;
        if flags.contains(ReadFlags::MOVED_FROM) {
            self.moved = Some((cookie, told));
            return Ok(());
        }
        let path = told.path.clone();
        channel.say(&FsReply::Event(told))?;
        if kind == FsEventKind::Create && is_dir && recursive {
            let mut tell = |channel: &mut Channel, event| channel.say(&FsReply::Event(event));
            self.add_below(channel, &path, &mut tell)?;
        }
        Ok(())
    }

    /// Something got a name here: from elsewhere, or from another name here.
    fn arrived(
        &mut self,
        channel: &mut Channel,
        path: String,
        cookie: u32,
        look_below: bool,
    ) -> Result<(), Stop> {
        let event = match self.moved.take() {
            Some((other, mut from)) if other == cookie => {
                let now = event(FsEventKind::Rename, path.clone(), None);
                from.dest = Some(now.path);
                (from.size, from.is_dir) = (now.size, now.is_dir);
                from
            }
            Some((_, from)) => {
                channel.say(&FsReply::Event(from))?;
                event(FsEventKind::Create, path.clone(), None)
            }
            None => event(FsEventKind::Create, path.clone(), None),
        };
        channel.say(&FsReply::Event(event))?;
        if look_below {
            // Watches go along with what is moved: only their paths are others now.
            self.add_below(channel, &path, &mut |_, _| Ok(()))?;
        }
        Ok(())
    }
}

/// Whether a path is, or is right below, one that was asked for, or anywhere below one asked for recursively.
fn wanted(asked: &BTreeMap<String, bool>, path: &str) -> bool {
    asked.iter().any(|(top, recursive)| {
        path == top
            || (*recursive
                && path
                    .strip_prefix(top.trim_end_matches('/'))
                    .is_some_and(|below| below.starts_with('/')))
    })
}

fn join(directory: &str, name: &OsStr) -> String {
    format!(
        "{}/{}",
        directory.trim_end_matches('/'),
        name.to_string_lossy()
    )
}

fn event(what: FsEventKind, path: String, dest: Option<String>) -> FsEvent {
    // What is gone has no size.
    let stat = rustix::fs::statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).ok();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    FsEvent {
        what,
        dest,
        unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        size: stat
            .and_then(|stat| u64::try_from(stat.st_size).ok())
            .unwrap_or(0),
        is_dir: stat.is_some_and(|stat| is_directory(&stat)),
        path,
    }
}

fn cannot(channel: &mut Channel, errno: i32, path: &str) -> Result<(), Stop> {
    let message = match errno {
        libc::ENOSPC => "too many directories are watched".to_owned(),
        other => format!("cannot watch: {}", std::io::Error::from_raw_os_error(other)),
    };
    warn(channel, &message, path)
}

fn warn(channel: &mut Channel, message: &str, path: &str) -> Result<(), Stop> {
    channel.say(&FsReply::WatchError {
        message: message.to_owned(),
        path: path.chars().take(4096).collect(),
    })
}
