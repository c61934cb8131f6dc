//! What released hosts and agents said of files is understood for ever: see `frozen/README.md`.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sprite_agent_api::fs::{
    FsCall, FsChanged, FsEntry, FsError, FsEvent, FsEventKind, FsKind, FsPair, FsRange, FsReply,
    FsUnpacked, Owner, Parents, WatchInput,
};
use sprite_agent_api::message::{Failure, FailureKind};

/// Every line reads as its value and is written so today, and every variant has a line.
fn check<T>(file: &str, tag: &str, variants: &[&str], values: &[T])
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let path = format!("{}/tests/frozen/v1/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).expect("it is in the repository");
    let lines: Vec<&str> = text.lines().collect();
    let mut seen = BTreeSet::new();
    for (at, value) in values.iter().enumerate() {
        let now = serde_json::to_value(value).expect("messages are JSON");
        let line = lines.get(at).copied();
        let line = line.unwrap_or_else(|| panic!("{file} has no line {}: {now}", at + 1));
        let then: Value = serde_json::from_str(line).expect("a line is JSON");
        assert_eq!(now, then, "{file}");
        let read: T = serde_json::from_str(line).expect(line);
        assert_eq!(&read, value, "{file}");
        seen.insert(then[tag].as_str().expect("a tag").to_owned());
    }
    assert_eq!(lines.len(), values.len(), "{file}: a value for each line");
    let all: BTreeSet<String> = variants.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen, all, "{file}: a line for each variant");
}

fn path() -> String {
    "/srv/a".to_owned()
}

fn dest() -> String {
    "/srv/b".to_owned()
}

#[test]
fn calls_of_released_hosts_are_understood() {
    let read = |range| FsCall::Read {
        path: path(),
        range,
    };
    let write = |mode, parents| FsCall::Write {
        path: path(),
        mode,
        parents,
    };
    let calls = [
        read(None),
        read(Some(FsRange::From {
            first: 1,
            last: Some(2),
        })),
        read(Some(FsRange::Last { length: 3 })),
        write(Some(0o755), Parents::All),
        write(None, Parents::One),
        write(None, Parents::None),
        FsCall::List {
            path: path(),
            recursive: true,
            pattern: Some("*.rs".to_owned()),
        },
        FsCall::Delete {
            path: path(),
            recursive: true,
        },
        FsCall::Rename {
            source: path(),
            dest: dest(),
        },
        FsCall::Copy {
            source: path(),
            dest: dest(),
            recursive: true,
            preserve: true,
        },
        FsCall::Chmod {
            path: path(),
            mode: 0o644,
            recursive: false,
        },
        FsCall::Chown {
            path: path(),
            user: Some(Owner::Id(1000)),
            group: Some(Owner::Name("sprite".to_owned())),
            recursive: false,
        },
        FsCall::Watch,
        FsCall::Unpack { path: path() },
        FsCall::Pack { path: path() },
    ];
    let variants = [
        "read", "write", "list", "delete", "rename", "copy", "chmod", "chown", "watch", "unpack",
        "pack",
    ];
    check("fs-calls.jsonl", "call", &variants, &calls);
}

#[test]
fn replies_of_released_agents_are_understood() {
    let entry = |kind| FsEntry {
        name: "a".to_owned(),
        path: path(),
        kind,
        size: 5,
        mode: 0o644,
        mtime: 1_700_000_000,
        mtime_nanos: 123,
        uid: 1000,
        gid: 1000,
        target: Some("b".to_owned()),
        errno: Some(13),
    };
    let kinds = [
        FsKind::File,
        FsKind::Directory,
        FsKind::Symlink,
        FsKind::Fifo,
        FsKind::Socket,
        FsKind::BlockDevice,
        FsKind::CharDevice,
    ];
    let event = |what| {
        FsReply::Event(FsEvent {
            what,
            path: path(),
            dest: Some(dest()),
            unix_nanos: 1_700_000_000_000_000_000,
            size: 5,
            is_dir: false,
        })
    };
    let replies = [
        FsReply::Reading {
            path: path(),
            size: Some(10),
            offset: 2,
            length: Some(3),
            mode: 0o600,
        },
        FsReply::Unsatisfiable { size: 10 },
        FsReply::Writing { path: path() },
        FsReply::Written {
            path: path(),
            size: 5,
            mode: 0o644,
        },
        FsReply::Listing { path: path() },
        FsReply::Entries {
            entries: kinds.map(entry).to_vec(),
        },
        FsReply::Done,
        FsReply::Working { count: 7 },
        FsReply::Changed(FsChanged {
            paths: vec![FsPair {
                path: path(),
                dest: Some(dest()),
            }],
            count: 1,
            bytes: 5,
            uid: Some(0),
            gid: Some(0),
        }),
        FsReply::Watching,
        FsReply::Subscribed {
            paths: vec![path()],
            recursive: true,
        },
        FsReply::Unsubscribed {
            paths: vec![path()],
        },
        event(FsEventKind::Write),
        event(FsEventKind::Create),
        event(FsEventKind::Remove),
        event(FsEventKind::Rename),
        event(FsEventKind::Chmod),
        FsReply::WatchError {
            message: "overflow".to_owned(),
            path: String::new(),
        },
        FsReply::Refused(FsError {
            errno: 2,
            step: "open".to_owned(),
            path: path(),
        }),
        FsReply::Failed(Failure {
            kind: FailureKind::NotReady,
            message: "read the book".to_owned(),
        }),
        FsReply::Unpacking { path: path() },
        FsReply::Unpacked(FsUnpacked {
            path: path(),
            files: 3,
            directories: 2,
            links: 1,
            bytes: 5,
        }),
        FsReply::Packing { path: path() },
    ];
    let variants = [
        "reading",
        "unsatisfiable",
        "writing",
        "written",
        "listing",
        "entries",
        "done",
        "working",
        "changed",
        "watching",
        "subscribed",
        "unsubscribed",
        "event",
        "watch_error",
        "refused",
        "failed",
        "unpacking",
        "unpacked",
        "packing",
    ];
    check("fs-replies.jsonl", "reply", &variants, &replies);
}

#[test]
fn what_released_hosts_watch_is_understood() {
    let inputs = [
        WatchInput::Subscribe {
            paths: vec![path()],
            recursive: true,
            working_dir: Some("/srv".to_owned()),
        },
        WatchInput::Unsubscribe {
            paths: vec![path()],
            working_dir: None,
        },
    ];
    let variants = ["subscribe", "unsubscribe"];
    check("fs-watch.jsonl", "input", &variants, &inputs);
}
