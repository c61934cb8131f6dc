//! Files of real machines: what is told is what is on the disk, and nothing inside leads anywhere else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{EntryKind, Error, Fs};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// The kernel's word for why something was refused.
fn code(error: &Error) -> String {
    let refusal = error.refusal().unwrap_or_else(|| panic!("{error:?}"));
    refusal
        .file_code
        .clone()
        .unwrap_or_else(|| panic!("{refusal:?}"))
}

async fn names(fs: &Fs, path: &str) -> Vec<String> {
    let mut entries = fs.list(path).await.unwrap();
    let mut names = Vec::new();
    while let Some(entry) = entries.next().await.unwrap() {
        names.push(entry.name);
    }
    names
}

/// Gives so many bytes, and then fails or ends.
#[derive(Default)]
struct Bytes {
    left: usize,
    fails: bool,
    given: Arc<AtomicUsize>,
}

impl Bytes {
    fn ending(left: usize) -> Self {
        Self {
            left,
            ..Self::default()
        }
    }

    fn failing(left: usize) -> Self {
        Self {
            left,
            fails: true,
            ..Self::default()
        }
    }
}

impl AsyncRead for Bytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 && self.fails {
            return Poll::Ready(Err(io::Error::other("the reader broke")));
        }
        let length = self.left.min(buffer.remaining());
        buffer.initialize_unfilled_to(length).fill(b'x');
        buffer.advance(length);
        self.left -= length;
        self.given.fetch_add(length, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn a_file_is_replaced_whole_and_its_link_stays() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("whole").await;
    let fs = sprite.fs();
    let written = fs.write("a/b/file", "old").await.unwrap();
    assert_eq!(
        (written.path.as_str(), written.size),
        ("/home/sprite/a/b/file", 3)
    );
    text(
        &sprite,
        "cd a/b; chmod 750 file; ln -s file link; ln -s ../../far/away away; mkdir ../../far",
    )
    .await;
    // Through links, also one that leads to nothing yet.
    let written = fs.write("a/b/link", "new").await.unwrap();
    assert_eq!(written.path, "/home/sprite/a/b/file");
    fs.write("a/b/away", "there").await.unwrap();
    let seen = text(
        &sprite,
        "cd a/b; readlink link; cat file; echo; stat -c %a:%U file; cat ../../far/away",
    )
    .await;
    assert_eq!(seen, "file\nnew\n750:sprite\nthere");

    // A reader that breaks, and a client that goes away in the middle, change nothing and leave nothing.
    let broken = Bytes::failing(3 << 20);
    fs.write_file("a/b/file").from(broken).await.unwrap_err();
    let endless = Bytes::ending(usize::MAX);
    let writing = fs.write_file("a/b/file").from(endless);
    tokio::time::timeout(Duration::from_millis(500), writing)
        .await
        .unwrap_err();
    assert_eq!(fs.read("a/b/file").await.unwrap(), "new");
    assert_eq!(names(&fs, "a/b").await, ["away", "file", "link"]);
    server.finish();
}

#[tokio::test]
async fn large_files_and_parts_of_files_come_as_they_are() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("large").await;
    let fs = sprite.fs();
    let large = Bytes::ending(200 << 20);
    fs.write_file("large")
        .mode(0o600)
        .from(large)
        .await
        .unwrap();
    assert_eq!(
        text(&sprite, "stat -c %s:%a large").await,
        format!("{}:600", 200 << 20)
    );
    let mut reader = fs.open_at("large", 150 << 20).await.unwrap();
    assert_eq!(reader.length(), Some(50 << 20));
    let mut read = 0;
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = reader.read(&mut piece).await.unwrap();
        if length == 0 {
            break;
        }
        assert!(piece[..length].iter().all(|byte| *byte == b'x'));
        read += length;
    }
    assert_eq!(read, 50 << 20);

    fs.write("ten", "0123456789").await.unwrap();
    let part = async |range: &str| {
        let request = server
            .client()
            .raw("GET", "/v1/sprites/large/fs/read?path=ten");
        let mut answer = request.header("Range", range).send().await.unwrap();
        let told = answer.headers().find(|(name, _)| *name == "content-range");
        let told = told.map(|(_, value)| value.to_owned()).unwrap_or_default();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.unwrap() {
            body.extend_from_slice(&chunk);
        }
        (answer.status(), told, String::from_utf8(body).unwrap())
    };
    for (range, status, told, body) in [
        ("bytes=2-4", 206, "bytes 2-4/10", "234"),
        ("bytes=8-99", 206, "bytes 8-9/10", "89"),
        ("bytes=-3", 206, "bytes 7-9/10", "789"),
        ("bytes=0-1,3-4", 200, "", "0123456789"),
    ] {
        assert_eq!(
            part(range).await,
            (status, told.to_owned(), body.to_owned()),
            "{range}"
        );
    }
    let (status, told, _) = part("bytes=10-").await;
    assert_eq!((status, told.as_str()), (416, "bytes */10"));
    server.finish();
}

#[tokio::test]
async fn only_regular_files_are_opened_and_no_link_leads_into_processes() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("special").await;
    let fs = sprite.fs();
    text(
        &sprite,
        "mkfifo fifo; ln -s /proc/self/root out; ln -s loop loop; mkdir dir",
    )
    .await;
    for (path, expected) in [
        ("fifo", "EINVAL"),
        ("dir", "EISDIR"),
        ("none", "ENOENT"),
        ("loop", "ELOOP"),
        ("fifo/below", "ENOTDIR"),
        ("/etc/shadow", "EACCES"),
        ("/dev/zero", "EINVAL"),
        ("out/etc/passwd", "ELOOP"),
        ("/proc/self/root/etc/passwd", "ELOOP"),
        ("/proc/self/fd/0", "ELOOP"),
    ] {
        assert_eq!(
            code(&fs.read(path).await.unwrap_err()),
            expected,
            "read {path}"
        );
    }
    for (path, expected) in [
        ("fifo", "EINVAL"),
        ("dir", "EISDIR"),
        ("dir/", "EISDIR"),
        ("/", "EISDIR"),
        ("loop", "ELOOP"),
        ("/etc/passwd", "EACCES"),
        ("/new", "EACCES"),
        ("/dev/null", "EINVAL"),
        ("out/tmp/x", "ELOOP"),
    ] {
        assert_eq!(
            code(&fs.write(path, "x").await.unwrap_err()),
            expected,
            "write {path}"
        );
    }
    // Files that the kernel makes have no length, and are whole all the same.
    let version = fs.open("/proc/version").await.unwrap();
    assert_eq!(version.length(), None);
    let version = fs.read("/proc/version").await.unwrap();
    assert_eq!(
        version.trim_ascii(),
        text(&sprite, "cat /proc/version").await.as_bytes()
    );
    // Nothing of the host has a name here.
    let host = server.data_dir().display().to_string();
    assert_eq!(code(&fs.as_root().read(&host).await.unwrap_err()), "ENOENT");
    server.finish();
}

/// Somebody inside swaps a directory for a link to one that is not theirs, all the time.
#[tokio::test]
async fn races_inside_reach_nothing_that_its_user_cannot() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("races").await;
    let fs = sprite.fs();
    text(
        &sprite,
        "sudo sh -c 'mkdir /secret; echo secret > /secret/file; chmod 700 /secret'; mkdir mine",
    )
    .await;
    let before = text(
        &sprite,
        "sudo sh -c 'ls -laR --time-style=full-iso /secret | sha256sum'",
    )
    .await;
    let swap = "while :; do ln -sfn /secret swap; rm swap; mkdir swap; echo mine > swap/file; rm -r swap; done 2>/dev/null";
    let mut swapping = sprite
        .command("sh")
        .args(["-c", swap])
        .spawn()
        .await
        .unwrap();
    // Emulated machines take seconds for what others do in milliseconds.
    let rounds = if driver() == "container" { 300 } else { 40 };
    for round in 0..rounds {
        match fs.read("swap/file").await {
            Ok(read) => assert_ne!(read, "secret\n"),
            Err(error) => assert!(error.refusal().is_some(), "{error:?}"),
        }
        // Whichever way each of them ends, it ends, and has touched nothing of others.
        let _ = fs.write("swap/file", format!("{round}")).await;
        let _ = fs.remove_all("swap").await;
        let _ = fs.chmod_all("swap", 0o777).await;
        let _ = fs.copy_all("swap", "mine/copy").await;
    }
    if let Err(error) = swapping.controls().signal(&"KILL".parse().unwrap()).await {
        panic!("{error}: {:?}", swapping.wait().await);
    }
    swapping.wait().await.unwrap();
    let after = text(
        &sprite,
        "sudo sh -c 'ls -laR --time-style=full-iso /secret | sha256sum'",
    )
    .await;
    assert_eq!(before, after);
    assert_eq!(text(&sprite, "! grep -rs secret mine").await, "");
    server.finish();
}

/// 20,000 entries here; a million is the same, only longer.
#[tokio::test]
async fn directories_of_any_size_are_listed_and_removed() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("many").await;
    let fs = sprite.fs();
    text(&sprite, "mkdir -p many/deep && cd many && seq -f f%06g 20000 | xargs touch && touch deep/last && ln -s /etc away && mkdir closed && sudo chown root closed && sudo chmod 700 closed").await;
    let mut entries = fs.list_all("many").await.unwrap();
    let (mut files, mut links, mut closed) = (0, 0, Vec::new());
    while let Some(entry) = entries.next().await.unwrap() {
        match entry.kind {
            EntryKind::File => files += 1,
            EntryKind::Symlink => links += 1,
            _ => closed.extend(entry.error.map(|error| (entry.name, error))),
        }
    }
    assert_eq!((files, links), (20_001, 1));
    assert_eq!(closed, [("closed".to_owned(), "EACCES".to_owned())]);
    assert_eq!(code(&fs.remove("many").await.unwrap_err()), "ENOTEMPTY");
    fs.as_root().remove_all("many").await.unwrap();
    assert_eq!(text(&sprite, "ls -A").await.matches("many").count(), 0);
    server.finish();
}

#[tokio::test]
async fn a_full_disk_and_a_helper_that_is_killed_are_told() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("trouble").await;
    let fs = sprite.fs();
    fs.write("file", "kept").await.unwrap();
    text(
        &sprite,
        "mkdir room; dd if=/dev/zero of=/dev/shm/fill bs=1M status=none || true",
    )
    .await;
    let full = fs
        .write("/dev/shm/more", vec![b'x'; 1 << 20])
        .await
        .unwrap_err();
    assert_eq!(
        (code(&full).as_str(), full.refusal().unwrap().status),
        ("ENOSPC", 507)
    );
    text(
        &sprite,
        "rm /dev/shm/fill; ls -A /dev/shm; test -z \"$(ls -A /dev/shm)\"",
    )
    .await;

    // Whoever is root inside can end it; then there is another one, and what was half done is undone.
    let endless = Bytes::ending(usize::MAX);
    let given = endless.given.clone();
    let writing = tokio::spawn(fs.write_file("file").from(endless));
    eventually(Duration::from_secs(30), async || {
        let given = given.load(Ordering::Relaxed);
        if given > 16 << 20 {
            Ok(())
        } else {
            Err(format!("{given} bytes"))
        }
    })
    .await;
    text(&sprite, "sudo pkill -KILL -x sprite-files").await;
    writing.await.unwrap().unwrap_err();
    assert_eq!(fs.read("file").await.unwrap(), "kept");
    // It cannot be touched by the user, and not looked into by anybody inside.
    text(&sprite, "! kill -KILL $(pgrep -x sprite-files) 2>/dev/null").await;
    server.finish();
}
