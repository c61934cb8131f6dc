//! Files of the fake machine: names and bytes, and nothing of what a kernel does with them.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sprite_agent_api::fs::{
    FsCall, FsChanged, FsEntry, FsError, FsEvent, FsEventKind, FsKind, FsPair, FsRange, FsReply,
    FsSpec, FsUnpacked, WatchInput,
};
use sprite_agent_api::link::{LinkError, Receiver, Sender};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA};
use sprite_archive::{Entry, Item, Kind, Reader, Time, Writer};

/// Reading a file with this name never ends by itself.
const ENDLESS: &str = "/endless";

/// Source: include/uapi/asm-generic/errno-base.h.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EINVAL: i32 = 22;

#[derive(Default)]
pub(super) struct Files {
    files: Mutex<BTreeMap<String, Bytes>>,
}

impl Files {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Performs one operation; where it cannot, it says why.
    pub(super) async fn perform(
        &self,
        spec: FsSpec,
        sender: &Sender,
        receiver: &mut Receiver,
    ) -> Result<(), LinkError> {
        let done = match spec.call {
            FsCall::Read { path, range } => self.read(&path, range, sender).await?,
            FsCall::Write { path, mode, .. } => {
                say(sender, FsReply::Writing { path: path.clone() }).await?;
                let mut bytes = Vec::new();
                while let Some(frame) = receiver.recv().await? {
                    bytes.extend_from_slice(&frame.payload);
                }
                let size = bytes.len() as u64;
                self.files().insert(path.clone(), bytes.into());
                FsReply::Written {
                    path,
                    size,
                    mode: mode.unwrap_or(0o644),
                }
            }
            FsCall::List { path, .. } => self.list(&path, sender).await?,
            FsCall::Delete { path, .. } => match self.files().remove(&path) {
                Some(_) => changed(path, None),
                None => refused(ENOENT, path),
            },
            FsCall::Rename { source, dest } => {
                let bytes = self.files().remove(&source);
                match bytes {
                    Some(bytes) => {
                        self.files().insert(dest.clone(), bytes);
                        changed(source, Some(dest))
                    }
                    None => refused(ENOENT, source),
                }
            }
            FsCall::Copy { source, dest, .. } => {
                let bytes = self.files().get(&source).cloned();
                match bytes {
                    Some(bytes) => {
                        self.files().insert(dest.clone(), bytes);
                        changed(source, Some(dest))
                    }
                    None => refused(ENOENT, source),
                }
            }
            FsCall::Chmod { path, .. } => self.known(path, |path| changed(path, None)),
            // As in any system, files are given away by root alone.
            FsCall::Chown { path, .. } if spec.as_root => {
                self.known(path, |path| changed(path, None))
            }
            FsCall::Chown { path, .. } => self.known(path, |path| refused(EPERM, path)),
            FsCall::Watch => return watch(sender, receiver).await,
            FsCall::Unpack { path } => {
                say(sender, FsReply::Unpacking { path: path.clone() }).await?;
                let mut bytes = Vec::new();
                while let Some(frame) = receiver.recv().await? {
                    bytes.extend_from_slice(&frame.payload);
                }
                self.unpack(path, &bytes)
            }
            FsCall::Pack { path } => {
                say(sender, FsReply::Packing { path: path.clone() }).await?;
                let archive = self.pack(&path);
                for piece in archive.chunks(MAX_DATA) {
                    let piece = Bytes::copy_from_slice(piece);
                    sender.send(Frame::data(FrameKind::Stdout, piece)).await?;
                }
                FsReply::Done
            }
        };
        say(sender, done).await
    }

    fn known(&self, path: String, then: impl FnOnce(String) -> FsReply) -> FsReply {
        let known = self.files().contains_key(&path);
        if known {
            then(path)
        } else {
            refused(ENOENT, path)
        }
    }

    async fn read(
        &self,
        path: &str,
        range: Option<FsRange>,
        sender: &Sender,
    ) -> Result<FsReply, LinkError> {
        let Some(bytes) = self.files().get(path).cloned() else {
            return Ok(refused(ENOENT, path.to_owned()));
        };
        let size = bytes.len() as u64;
        let (offset, end) = match range {
            None => (0, size),
            Some(FsRange::From { first, last }) => {
                (first, last.map_or(size, |last| (last + 1).min(size)))
            }
            Some(FsRange::Last { length }) => (size.saturating_sub(length), size),
        };
        if range.is_some() && offset >= end {
            return Ok(FsReply::Unsatisfiable { size });
        }
        let endless = path == ENDLESS;
        let reading = FsReply::Reading {
            path: path.to_owned(),
            size: (!endless).then_some(size),
            offset,
            length: (!endless).then_some(end - offset),
            mode: 0o644,
        };
        say(sender, reading).await?;
        let part = |at: u64| usize::try_from(at).expect("it is in memory");
        let mut rest = bytes.slice(part(offset)..part(end));
        loop {
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(MAX_DATA));
                sender.send(Frame::data(FrameKind::Stdout, piece)).await?;
            }
            if !endless {
                return Ok(FsReply::Done);
            }
            rest = bytes.clone();
        }
    }

    /// Keeps the files of an archive.
    fn unpack(&self, path: String, bytes: &[u8]) -> FsReply {
        let mut archive = Reader::new(bytes);
        let mut unpacked = FsUnpacked {
            path,
            ..FsUnpacked::default()
        };
        loop {
            match archive.next_item() {
                Ok(Some(Item::Entry(entry))) if matches!(entry.kind, Kind::File { .. }) => {
                    let mut content = Vec::new();
                    let read = archive.read_to_end(&mut content);
                    unpacked.bytes += read.expect("it is in memory") as u64;
                    unpacked.files += 1;
                    let name = format!("{}/{}", unpacked.path, entry.shown());
                    self.files().insert(name, content.into());
                }
                Ok(Some(_)) => {}
                Ok(None) => return FsReply::Unpacked(unpacked),
                Err(error) => {
                    return FsReply::Refused(FsError {
                        errno: EINVAL,
                        step: format!("unpack: {error}, at"),
                        path: unpacked.path,
                    });
                }
            }
        }
    }

    /// The files below a path.
    fn pack(&self, path: &str) -> Vec<u8> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let mut archive = Writer::new(Vec::new());
        for (name, bytes) in self.files().iter() {
            let Some(name) = name.strip_prefix(&below) else {
                continue;
            };
            let size = bytes.len() as u64;
            let entry = Entry {
                name: name.as_bytes().to_vec(),
                kind: Kind::File { size },
                mode: 0o644,
                mtime: Time {
                    seconds: 1_700_000_000,
                    nanos: 0,
                },
            };
            archive.entry(&entry).expect("memory takes it");
            let written = archive.content(size, &mut &bytes[..], |_| {});
            written.expect("memory takes it");
        }
        archive.finish().expect("memory takes it")
    }

    /// A file lists itself; a directory is whatever has files below it.
    async fn list(&self, path: &str, sender: &Sender) -> Result<FsReply, LinkError> {
        let below = format!("{}/", path.trim_end_matches('/'));
        let entries: Vec<FsEntry> = self
            .files()
            .iter()
            .filter(|(known, _)| *known == path || known.starts_with(&below))
            .map(|(known, bytes)| entry(known, bytes.len() as u64))
            .collect();
        if entries.is_empty() {
            return Ok(refused(ENOENT, path.to_owned()));
        }
        say(
            sender,
            FsReply::Listing {
                path: path.to_owned(),
            },
        )
        .await?;
        for entry in entries {
            say(
                sender,
                FsReply::Entries {
                    entries: vec![entry],
                },
            )
            .await?;
        }
        Ok(FsReply::Done)
    }
}

fn entry(path: &str, size: u64) -> FsEntry {
    FsEntry {
        name: path.rsplit('/').next().unwrap_or(path).to_owned(),
        path: path.to_owned(),
        kind: FsKind::File,
        size,
        mode: 0o644,
        mtime: 1_700_000_000,
        mtime_nanos: 0,
        uid: 1000,
        gid: 1000,
        target: None,
        errno: None,
    }
}

/// Tells of one write to each path that is watched.
async fn watch(sender: &Sender, receiver: &mut Receiver) -> Result<(), LinkError> {
    say(sender, FsReply::Watching).await?;
    while let Some(frame) = receiver.recv().await? {
        match frame.message::<WatchInput>() {
            Ok(WatchInput::Subscribe {
                paths, recursive, ..
            }) => {
                let subscribed = FsReply::Subscribed {
                    paths: paths.clone(),
                    recursive,
                };
                say(sender, subscribed).await?;
                for path in paths {
                    let event = FsEvent {
                        what: FsEventKind::Write,
                        path,
                        dest: None,
                        unix_nanos: 1_700_000_000_000_000_000,
                        size: 1,
                        is_dir: false,
                    };
                    say(sender, FsReply::Event(event)).await?;
                }
            }
            Ok(WatchInput::Unsubscribe { paths, .. }) => {
                say(sender, FsReply::Unsubscribed { paths }).await?;
            }
            Err(_) => {}
        }
    }
    Ok(())
}

fn changed(path: String, dest: Option<String>) -> FsReply {
    FsReply::Changed(FsChanged {
        paths: vec![FsPair { path, dest }],
        count: 1,
        ..FsChanged::default()
    })
}

fn refused(errno: i32, path: String) -> FsReply {
    FsReply::Refused(FsError {
        errno,
        step: "open".to_owned(),
        path,
    })
}

async fn say(sender: &Sender, reply: FsReply) -> Result<(), LinkError> {
    sender.send(Frame::control(&reply)).await
}
