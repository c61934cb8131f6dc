//! `sprite file`: what goes into a sprite, and what a sprite may do here.

mod harness;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use futures_util::{SinkExt, StreamExt};
use harness::{Conn, Fake, Home, Seen};
use sprite_archive::{Entry, Item, Kind, Note, Reader, Time, Writer};
use tokio_tungstenite::tungstenite::Message;

fn entry(name: &str, kind: Kind) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o6755,
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 0,
        },
    }
}

fn link(name: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    entry(name, Kind::Symlink { target })
}

fn file(name: &str) -> Entry {
    entry(name, Kind::File { size: 4 })
}

fn archive(entries: &[Entry]) -> Writer<Vec<u8>> {
    let mut archive = Writer::new(Vec::new());
    for entry in entries {
        archive.entry(entry).expect("memory takes it");
        if let Kind::File { size } = entry.kind {
            let written = archive.content(size, &mut &b"evil"[..], |_| {});
            written.expect("memory takes it");
        }
    }
    archive
}

fn whole(entries: &[Entry]) -> Vec<u8> {
    archive(entries).finish().expect("memory takes it")
}

/// A server whose sprite has a directory, and packs these bytes of it; `whole`: and ends the answer.
async fn packing(bytes: Vec<u8>, ends: bool) -> Fake {
    Fake::start(move |seen: Seen, mut conn: Conn| {
        let bytes = bytes.clone();
        async move {
            if seen.path().ends_with("/fs/list") {
                let list = r#"{"path":"/srv","entries":[],"count":0}"#;
                return conn.reply(200, list).await;
            }
            conn.chunked().await;
            conn.chunk(&bytes).await;
            if ends {
                conn.chunk(b"").await;
                return Some(conn);
            }
            None
        }
    })
    .await
}

#[tokio::test]
async fn a_directory_is_sent_as_one_archive() {
    let fake = Fake::start(|seen: Seen, conn: Conn| async move {
        assert_eq!(
            (seen.method.as_str(), seen.query("path")),
            ("PUT", vec!["/srv".to_owned()])
        );
        let said = r#"{"path":"/srv","files":2,"directories":1,"links":1,"bytes":5}"#;
        conn.reply(200, said).await
    })
    .await;
    let home = Home::of(&fake);
    let from = home.work().join("from");
    fs::create_dir_all(from.join("sub")).expect("a directory");
    fs::write(from.join("sub/file"), "hello").expect("written");
    fs::write(from.join("program"), "").expect("written");
    fs::set_permissions(from.join("program"), fs::Permissions::from_mode(0o750)).expect("set");
    symlink("/etc/passwd", from.join("link")).expect("a link");
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).expect("a socket");
    let ran = home
        .run(&["file", "push", "-s", "a", "--json", "from", "/srv"])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let told: serde_json::Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!((&told["files"], &told["bytes"]), (&2.into(), &5.into()));
    assert!(ran.stderr.contains("left out from/socket"), "{ran:?}");
    let sent = fake.seen();
    assert_eq!(sent.len(), 1, "one request for all");
    let mut archive = Reader::new(&sent[0].body[..]);
    let mut entries = Vec::new();
    while let Some(item) = archive.next_item().expect("an archive") {
        if let Item::Entry(entry) = item {
            entries.push((entry.shown(), entry.mode, entry.kind));
        }
    }
    let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["./", "link", "program", "sub/", "sub/file"]);
    assert_eq!(entries[2].1, 0o750);
    let target = b"/etc/passwd".to_vec();
    assert_eq!(entries[1].2, Kind::Symlink { target });
    let missing = home.run(&["file", "push", "-s", "a", "none", "/srv"]).await;
    assert_eq!(missing.code, 1, "{missing:?}");
}

#[tokio::test]
async fn a_hostile_sprite_reaches_nothing_outside_of_the_directory() {
    for entries in [
        vec![file("../outside/kept")],
        vec![file("a/../../outside/kept")],
        vec![link("l", "../outside"), file("l/kept")],
        vec![link("l", "../outside"), entry("l/new", Kind::Directory)],
        // One that was here before.
        vec![file("before/kept")],
        vec![file("/tmp/outside")],
    ] {
        let fake = packing(whole(&entries), true).await;
        let home = Home::of(&fake);
        let (outside, to) = (home.work().join("outside"), home.work().join("to"));
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("kept"), "kept").expect("written");
        fs::create_dir(&to).expect("a directory");
        symlink("../outside", to.join("before")).expect("a link");
        let ran = home.run(&["file", "pull", "-s", "a", "/srv", "to"]).await;
        assert_eq!(ran.code, 1, "{entries:?} {ran:?}");
        let shown = entries.last().expect("an entry").shown();
        assert!(ran.stderr.contains(&shown), "{ran:?} does not name {shown}");
        let kept = fs::read_to_string(outside.join("kept")).expect("it is there");
        assert_eq!(kept, "kept", "{entries:?}");
        assert_eq!(fs::read_dir(&outside).expect("a directory").count(), 1);
    }
}

#[tokio::test]
async fn what_comes_replaces_links_and_has_no_set_id_bits() {
    let fake = packing(whole(&[file("before"), link("away", "/nowhere")]), true).await;
    let home = Home::of(&fake);
    let to = home.work().join("to");
    fs::create_dir(&to).expect("a directory");
    fs::write(home.work().join("kept"), "kept").expect("written");
    symlink("../kept", to.join("before")).expect("a link");
    let ran = home.run(&["file", "pull", "-s", "a", "/srv", "to"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let there = fs::symlink_metadata(to.join("before")).expect("it is there");
    assert!(there.is_file());
    assert_eq!(there.permissions().mode() & 0o7777, 0o755);
    assert_eq!(
        fs::read_to_string(home.work().join("kept")).expect("it is there"),
        "kept"
    );
    assert!(
        fs::symlink_metadata(to.join("away"))
            .expect("it is there")
            .is_symlink()
    );
}

#[tokio::test]
async fn an_archive_that_breaks_off_is_a_failure_that_says_why() {
    let bytes = whole(&[file("one"), file("two")]);
    for (end, ends) in [
        (bytes.len() - 1024, true),
        (700, true),
        (700, false),
        (0, true),
    ] {
        let fake = packing(bytes[..end].to_vec(), ends).await;
        let home = Home::of(&fake);
        let ran = home.run(&["file", "pull", "-s", "a", "/srv", "to"]).await;
        assert_eq!(ran.code, 1, "{end} {ran:?}");
    }
    let mut broken = archive(&[file("one")]);
    let why = Note::Failed("open /srv/two: Permission denied\u{1b}[2J".to_owned());
    broken.note(&why).expect("memory takes it");
    let fake = packing(broken.into_inner(), false).await;
    let home = Home::of(&fake);
    let ran = home.run(&["file", "pull", "-s", "a", "/srv", "to"]).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("open /srv/two: Permission denied"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
    assert!(ran.stderr.contains("--root"), "{ran:?}");
}

#[tokio::test]
async fn events_of_files_are_told_a_line_each() {
    let fake = Fake::start(|seen: Seen, conn: Conn| async move {
        let mut socket = conn.websocket(&seen).await;
        for text in [
            r#"{"type":"error","message":"cannot watch: no such file","path":"/none"}"#,
            r#"{"type":"subscribed","paths":["/srv"],"recursive":true}"#,
            r#"{"type":"event","event":"create","path":"/srv/a\u001b","size":1,"isDir":false}"#,
            r#"{"type":"event","event":"rename","path":"/srv/a","dest":"/srv/b","size":1,"isDir":false}"#,
        ] {
            socket.send(Message::text(text)).await.expect("the client reads");
        }
        socket.close(None).await.expect("the client reads");
        // What the client still says is heard: dropped with it unread, the connection would be reset, and what was
        // said last with it.
        while let Some(Ok(_)) = socket.next().await {}
        None
    })
    .await;
    let home = Home::of(&fake);
    let ran = home
        .run(&["file", "watch", "-s", "a", "-r", "/srv", "/none"])
        .await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        ran.stdout,
        "create  /srv/a\u{fffd}\nrename  /srv/a -> /srv/b\n"
    );
    assert!(
        ran.stderr.contains("cannot watch: no such file /none"),
        "{ran:?}"
    );
    let ran = home
        .run(&["file", "watch", "-s", "a", "--json", "/srv"])
        .await;
    let lines: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["type"].as_str()).collect();
    assert_eq!(kinds, [Some("error"), Some("event"), Some("event")]);
}
