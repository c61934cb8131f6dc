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

use rustix::event::{PollFd, PollFlags, Timespec, poll};
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

/// How long the new name of what was renamed may come after its old one, which is all that a file leaves that is moved
/// to where nobody watches. The kernel tells of both one after the other, and a reader may come in between.
/// Source: inotify(7), "Dealing with rename() events".
const OTHER_NAME_WITHIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

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
        let within = watching.moved.is_some().then_some(&OTHER_NAME_WITHIN);
        let (said, happened) = wait(channel, &watching.inotify, within).tried("watch", "")?;
        if !said && !happened {
            // Who has no other name by now has left what is watched.
            watching.settle(channel)?;
        }
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

/// Waits until the host says something, or something happens; at most so long, if that is said.
fn wait(
    channel: &Channel,
    inotify: &OwnedFd,
    within: Option<&Timespec>,
) -> Result<(bool, bool), Errno> {
    let mut fds = [
        PollFd::new(channel.socket(), PollFlags::IN),
        PollFd::new(inotify, PollFlags::IN),
    ];
    rustix::io::retry_on_intr(|| poll(&mut fds, within))?;
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
        Ok(())
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
        if kind == FsEventKind::Chmod && name.is_some_and(is_the_kernels) && !is_there(&path) {
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

/// Whether the kernel may have given a file this name, that has none yet: `#` and its inode. What is written all at once
/// is such a file until then.
fn is_the_kernels(name: &OsStr) -> bool {
    let inode = name.as_bytes().strip_prefix(b"#");
    inode.is_some_and(|inode| !inode.is_empty() && inode.iter().all(u8::is_ascii_digit))
}

fn is_there(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;

    use rustix::fs::{Mode, OFlags};
    use sprite_agent_api::Frame;

    use super::*;

    /// Who is told.
    struct Reader(UnixStream);

    impl Reader {
        fn next(&mut self) -> FsReply {
            let mut head = [0; super::super::channel::HEAD];
            self.0.read_exact(&mut head).expect("a frame");
            let [a, b, c, d, _] = head;
            let mut payload = vec![0; u32::from_le_bytes([a, b, c, d]) as usize - 1];
            self.0.read_exact(&mut payload).expect("a whole frame");
            serde_json::from_slice(&payload).expect("a reply")
        }

        fn event(&mut self) -> FsEvent {
            match self.next() {
                FsReply::Event(event) => event,
                other => panic!("not an event: {other:?}"),
            }
        }
    }

    /// Watches a directory until who is told is dropped.
    fn watch_one(directory: &Path) -> Reader {
        // Where the process stands that does this: paths are resolved from there.
        std::env::set_current_dir("/").expect("the root");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        std::thread::spawn(move || watch(&mut Channel::new(theirs), "/"));
        let mut reader = Reader(ours);
        assert!(matches!(reader.next(), FsReply::Watching));
        let subscribe = Frame::control(&WatchInput::Subscribe {
            paths: vec![directory.display().to_string()],
            recursive: true,
            working_dir: None,
        });
        for part in [&subscribe.head()[..], &subscribe.payload] {
            reader.0.write_all(part).expect("the watch listens");
        }
        let told = reader.next();
        assert!(matches!(told, FsReply::Subscribed { .. }), "{told:?}");
        reader
    }

    #[test]
    fn a_rename_has_both_names_whenever_they_are_read() {
        const RENAMES: usize = 20_000;
        let directory = tempfile::tempdir().expect("a directory");
        let names = ["a", "b"].map(|name| directory.path().join(name));
        std::fs::write(&names[0], "").expect("a file");
        let mut reader = watch_one(directory.path());
        let there = names.clone();
        // Fewer than the kernel keeps for a slow reader.
        let (done, told_of) = std::sync::mpsc::sync_channel(64);
        let renames = std::thread::spawn(move || {
            let [a, b] = &there;
            for (from, to) in [(a, b), (b, a)].into_iter().cycle().take(RENAMES) {
                std::fs::rename(from, to).expect("rename");
                done.send(()).expect("somebody reads");
            }
        });
        let [a, b] = names.map(|name| name.display().to_string());
        for (from, to) in [(&a, &b), (&b, &a)].into_iter().cycle().take(RENAMES) {
            told_of.recv().expect("it was renamed");
            let told = reader.event();
            let wanted = (FsEventKind::Rename, from, Some(to));
            assert_eq!((told.what, &told.path, told.dest.as_ref()), wanted);
        }
        renames.join().expect("all renamed");
    }

    #[test]
    fn who_leaves_what_is_watched_has_no_other_name() {
        let (watched, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
        let (watched, elsewhere) = (watched.expect("one"), elsewhere.expect("another"));
        let file = watched.path().join("a");
        std::fs::write(&file, "").expect("a file");
        let mut reader = watch_one(watched.path());
        std::fs::rename(&file, elsewhere.path().join("a")).expect("rename");
        let told = reader.event();
        assert_eq!(told.path, file.display().to_string());
        assert_eq!((told.what, told.dest), (FsEventKind::Rename, None));
    }

    #[test]
    fn a_file_is_told_of_when_it_has_a_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut reader = watch_one(directory.path());
        let place = rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty());
        let place = place.expect("the directory");
        let flags = OFlags::TMPFILE | OFlags::WRONLY;
        let file = rustix::fs::openat(&place, ".", flags, Mode::RUSR).expect("a nameless file");
        rustix::fs::fchmod(&file, Mode::RWXU).expect("chmod");
        let by = by_descriptor(&file);
        rustix::fs::linkat(CWD, by, &place, "#1", AtFlags::SYMLINK_FOLLOW).expect("a name");
        let path = directory.path().join("#1");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .expect("chmod");
        let mut kinds = Vec::new();
        while kinds.last() != Some(&FsEventKind::Chmod) {
            let told = reader.event();
            assert_eq!(told.path, path.display().to_string());
            kinds.push(told.what);
        }
        assert_eq!(kinds[0], FsEventKind::Create);
    }
}
