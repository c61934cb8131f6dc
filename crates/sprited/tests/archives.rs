//! Directories of real machines as one stream: all of it comes as it is, and nothing leads anywhere else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::ffi::OsStr;
use std::fs;
use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use harness::{Server, ready, text};
use sprite_archive::{Entry, Kind, Time, Writer};
use sprite_client::{Error, Fs, Moved, Sprite, TransferError};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;

/// Everything below a directory, a line each: what it is, its name, mode, time and content.
fn seen(top: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(directory) = left.pop() {
        for found in fs::read_dir(&directory).unwrap() {
            let path = found.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = if about.is_dir() {
                left.push(path.clone());
                Vec::new()
            } else if about.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec()
            } else {
                fs::read(&path).unwrap()
            };
            let mode = if about.is_symlink() { 0 } else { about.mode() };
            lines.push(format!(
                "{:?} {mode:o} {}.{:09} {}",
                path.strip_prefix(top).unwrap(),
                about.mtime(),
                about.mtime_nsec(),
                String::from_utf8_lossy(&content),
            ));
        }
    }
    lines.sort();
    lines
}

fn tree(top: &Path) {
    fs::create_dir_all(top.join("sub/empty")).unwrap();
    fs::write(top.join("sub/file"), "content").unwrap();
    fs::write(top.join("program"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(top.join("program"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::write(top.join("n".repeat(200)), "long").unwrap();
    fs::write(top.join(OsStr::from_bytes(b"not \xff UTF-8")), "bytes").unwrap();
    fs::write(top.join("line\nfeed"), "").unwrap();
    symlink("sub/file", top.join("link")).unwrap();
    symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    fs::set_permissions(top.join("sub"), fs::Permissions::from_mode(0o550)).unwrap();
}

fn code(error: &Error) -> (String, String) {
    let refusal = error.refusal().unwrap_or_else(|| panic!("{error:?}"));
    (
        refusal.file_code.clone().unwrap_or_default(),
        refusal.message.clone(),
    )
}

fn named(name: &str, kind: Kind) -> Entry {
    Entry {
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o755,
        mtime: Time {
            seconds: 1_700_000_000,
            nanos: 0,
        },
    }
}

fn file(name: &str) -> Entry {
    named(name, Kind::File { size: 9 })
}

fn link(name: &str, target: &str) -> Entry {
    let target = target.as_bytes().to_vec();
    named(name, Kind::Symlink { target })
}

/// Entries as an archive; files hold `overrun!` and a line feed.
fn archive(entries: &[Entry]) -> Cursor<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.entry(entry).unwrap();
        if let Kind::File { size } = entry.kind {
            writer
                .content(size, &mut &b"overrun!\n"[..], |_| {})
                .unwrap();
        }
    }
    Cursor::new(writer.finish().unwrap())
}

#[tokio::test]
async fn a_directory_comes_back_as_it_went() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("tree").await;
    let here = TempDir::new().unwrap();
    let from = here.path().join("from");
    tree(&from);
    let expected = seen(&from);
    let _socket = UnixListener::bind(from.join("socket")).unwrap();
    let told = Arc::new(Mutex::new((0, Vec::new())));
    let hear = {
        let told = told.clone();
        move |moved| {
            let mut told = told.lock().unwrap();
            match moved {
                Moved::Bytes(bytes) => told.0 += bytes,
                Moved::LeftOut(path) => told.1.push(path),
                _other => {}
            }
        }
    };
    let push = sprite.fs().push_dir(&from, "there/new").on_progress(hear);
    let copied = push.send().await.unwrap();
    let counts = (copied.files, copied.directories, copied.links);
    assert_eq!(counts, (5, 2, 2));
    let (bytes, left_out) = told.lock().unwrap().clone();
    assert_eq!(bytes, copied.bytes);
    assert_eq!(left_out, [from.join("socket").display().to_string()]);
    let inside =
        "cd there/new; stat -c %U:%a program sub link | tr '\\n' ' '; ./program; stat -c %y sub";
    let time = fs::metadata(from.join("sub")).unwrap();
    let shown = text(&sprite, inside).await;
    assert!(
        shown.starts_with("sprite:751 sprite:550 sprite:777 ran"),
        "{shown}"
    );
    assert!(
        shown.contains(&format!(".{:09} ", time.mtime_nsec())),
        "{shown}"
    );

    let back = here.path().join("back");
    text(&sprite, "mkfifo there/new/fifo").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = {
        let told = told.clone();
        move |moved| {
            if let Moved::LeftOut(path) = moved {
                told.lock().unwrap().push(path);
            }
        }
    };
    let pull = sprite.fs().pull_dir("there/new", &back).on_progress(hear);
    assert_eq!(pull.receive().await.unwrap(), copied);
    assert_eq!(*told.lock().unwrap(), ["/home/sprite/there/new/fifo"]);
    assert_eq!(seen(&back), expected);
    // Over itself, both ways: what is there is replaced.
    fs::remove_file(from.join("socket")).unwrap();
    sprite
        .fs()
        .push_dir(&from, "there/new")
        .send()
        .await
        .unwrap();
    sprite
        .fs()
        .pull_dir("there/new", &back)
        .receive()
        .await
        .unwrap();
    assert_eq!(seen(&back), expected);
    server.finish();
}

#[tokio::test]
async fn what_cannot_be_copied_is_named() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("named").await;
    let root = sprite.fs().as_root();
    let here = TempDir::new().unwrap();
    text(
        &sprite,
        "mkdir -p part; echo a > part/a; echo b > part/closed; echo c > part/z; sudo chown root part/closed; sudo chmod 600 part/closed; echo > plain",
    )
    .await;
    // Read: the stream breaks off, and says why.
    let pulled = sprite
        .fs()
        .pull_dir("part", here.path().join("part"))
        .receive()
        .await;
    match pulled.unwrap_err() {
        TransferError::There(why) => assert!(why.contains("/home/sprite/part/closed"), "{why}"),
        other => panic!("{other:?}"),
    }
    let mut cut = sprite.fs().pack("part").await.unwrap();
    cut.read_to_end(&mut Vec::new()).await.unwrap_err();
    let pulled = root
        .pull_dir("part", here.path().join("part"))
        .receive()
        .await;
    assert_eq!(pulled.unwrap().files, 3);
    for (path, expected) in [
        ("none", "ENOENT"),
        ("plain", "ENOTDIR"),
        ("/root", "EACCES"),
    ] {
        assert_eq!(
            code(&sprite.fs().pack(path).await.unwrap_err()).0,
            expected,
            "{path}"
        );
    }
    // Write: what cannot be put in its place, and what is no archive.
    let entries = [file("first"), file("etc/passwd"), file("last")];
    let error = sprite
        .fs()
        .unpack("/", archive(&entries))
        .await
        .unwrap_err();
    assert_eq!(code(&error).0, "EACCES");
    let error = sprite
        .fs()
        .unpack("t", archive(&[file("ok"), file("d/"), file("ok/x")]))
        .await;
    let (kind, message) = code(&error.unwrap_err());
    assert_eq!(kind, "ENOTDIR");
    assert!(message.contains("/home/sprite/t/ok/x"), "{message}");
    assert_eq!(text(&sprite, "cat t/ok").await, "overrun!");
    let error = sprite
        .fs()
        .unpack("t", Cursor::new(vec![b'x'; 4096]))
        .await
        .unwrap_err();
    assert_eq!(code(&error).0, "EINVAL");
    let cut = archive(&[file("cut")]).into_inner()[..516].to_vec();
    let error = sprite
        .fs()
        .unpack("cut", Cursor::new(cut))
        .await
        .unwrap_err();
    assert!(code(&error).1.contains("/home/sprite/cut/cut"), "{error:?}");
    assert_eq!(text(&sprite, "ls -A cut").await, "");
    text(
        &sprite,
        "dd if=/dev/zero of=/dev/shm/fill bs=1M status=none || true",
    )
    .await;
    let mut large = Writer::new(Vec::new());
    large
        .entry(&named("large", Kind::File { size: 1 << 20 }))
        .unwrap();
    large
        .content(1 << 20, &mut std::io::repeat(1), |_| {})
        .unwrap();
    let large = Cursor::new(large.finish().unwrap());
    let error = sprite.fs().unpack("/dev/shm", large).await.unwrap_err();
    assert_eq!(
        (code(&error).0.as_str(), error.refusal().unwrap().status),
        ("ENOSPC", 507)
    );
    assert_eq!(text(&sprite, "ls -A /dev/shm").await, "fill");
    server.finish();
}

/// What only root may touch, with its names, times and sums.
async fn secret(sprite: &Sprite) -> String {
    let look = "sudo sh -c 'ls -laR --time-style=full-iso /secret; cat /secret/*; ls -a /'";
    text(sprite, look).await
}

#[tokio::test]
async fn hostile_archives_reach_nothing_outside() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("hostile").await;
    text(
        &sprite,
        "sudo sh -c 'mkdir /secret; echo secret > /secret/file; chmod 700 /secret'; mkdir top",
    )
    .await;
    let before = secret(&sprite).await;
    // As root, who may go everywhere: it is the names that lead nowhere.
    let fs = sprite.fs().as_root();
    let directory = |name: &str| named(name, Kind::Directory);
    let other = |target: &str| {
        let target = target.as_bytes().to_vec();
        named("other", Kind::HardLink { target })
    };
    for entries in [
        vec![file("../../../secret/file")],
        vec![file("a/../../../../secret/file")],
        vec![file("/secret/file")],
        vec![link("l", "/secret"), file("l/file")],
        vec![link("l", "../../../secret"), file("l/new")],
        vec![link("l", "/secret"), directory("l")],
        vec![link("l", "/secret"), directory("l/new")],
        vec![link("l", "/"), link("l/new", "x")],
        vec![link("l", "/secret"), other("l/file")],
        vec![other("../../../secret/file")],
    ] {
        let unpacked = fs.unpack("top", archive(&entries)).await;
        let error = unpacked.expect_err(&format!("{entries:?}"));
        let (kind, message) = code(&error);
        assert!(kind == "EINVAL" || kind == "ENOTDIR", "{kind} {entries:?}");
        let shown = entries.last().unwrap().shown();
        assert!(message.contains(&shown), "{message} does not name {shown}");
        text(&sprite, "sudo rm -rf top; mkdir top").await;
    }
    // A link has the name of a file: it is replaced.
    let entries = [link("f", "/secret/file"), file("f")];
    fs.unpack("top", archive(&entries)).await.unwrap();
    assert_eq!(
        text(&sprite, "stat -c %F top/f; cat top/f").await,
        "regular file\noverrun!"
    );
    assert_eq!(secret(&sprite).await, before);
    server.finish();
}

/// Somebody inside swaps a directory for a link to one that is root's, while root's files are handled below it.
#[tokio::test]
async fn races_inside_lead_archives_nowhere() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("races").await;
    text(&sprite, "sudo sh -c 'mkdir /secret; echo secret > /secret/file; chmod 700 /secret'; mkdir -p top/sub").await;
    let before = secret(&sprite).await;
    let swap = "cd top; while :; do ln -s /secret l; mv -T sub away; mv -T l sub; mv -T sub l; mv -T away sub; rm -f l; done 2>/dev/null";
    let mut swapping = sprite
        .command("sh")
        .args(["-c", swap])
        .spawn()
        .await
        .unwrap();
    let fs = sprite.fs().as_root();
    let entries = [
        named("sub", Kind::Directory),
        file("sub/file"),
        file("sub/new"),
    ];
    let (mut unpacked, mut packed) = (0, 0);
    for _ in 0..150 {
        // Whichever way each of them ends, it ends.
        unpacked += u32::from(fs.unpack("top", archive(&entries)).await.is_ok());
        packed += u32::from(pack(&fs).await);
        let _ = fs.read("top/none").await;
    }
    swapping
        .controls()
        .signal(&"KILL".parse().unwrap())
        .await
        .unwrap();
    swapping.wait().await.unwrap();
    assert!(unpacked > 0 && packed > 0, "{unpacked} {packed}");
    assert_eq!(secret(&sprite).await, before);
    server.finish();
}

/// Whether an archive came whole; nothing of the secret is in it either way.
async fn pack(fs: &Fs) -> bool {
    let Ok(mut reader) = fs.pack("top").await else {
        return false;
    };
    let mut bytes = Vec::new();
    let whole = reader.read_to_end(&mut bytes).await.is_ok();
    let holds = bytes.windows(7).any(|window| window == b"secret\n");
    assert!(!holds, "a link was followed");
    whole
}
