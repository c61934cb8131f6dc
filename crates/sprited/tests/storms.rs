//! Files under clients and environments that mean harm: who is slow, or loud, or large, is so at its own cost.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{FileEventKind, FileNotice, FileWatch, Sprite};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// How long others may take while somebody means harm: much longer than ever, on a busy computer too.
const UNHARMED: Duration = Duration::from_secs(60);

const MIB: u64 = 1 << 20;

/// The most memory that a process has had so far, in bytes.
fn peak(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib << 10
}

/// The processes that move files: the server, the agent of the only machine, and what handles files for it. A virtual
/// machine's are its own affair, bounded by its memory.
fn movers(server: &Server) -> Vec<(&'static str, u64)> {
    let mut movers = vec![("sprited", u64::from(server.pid()))];
    if driver() == "microvm" {
        return movers;
    }
    let agent = server.agent_pid();
    movers.push(("agent", agent));
    let mut family = vec![agent];
    while let Some(pid) = family.pop() {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten();
        for thread in threads.flatten() {
            let children = std::fs::read_to_string(thread.path().join("children"));
            for child in children.unwrap_or_default().split_whitespace() {
                let child: u64 = child.parse().unwrap();
                family.push(child);
                let name = std::fs::read_to_string(format!("/proc/{child}/comm"));
                if name.unwrap_or_default().trim() == "sprite-files" {
                    movers.push(("files", child));
                }
            }
        }
    }
    movers
}

/// Fails if one of the processes has grown by more than so many bytes since the first look.
struct Bounded(Vec<(&'static str, u64, u64)>);

impl Bounded {
    async fn begin(server: &Server, sprite: &Sprite) -> Self {
        // All have done what there is to do before.
        sprite
            .fs()
            .write("warm", vec![b'x'; 4 << 20])
            .await
            .unwrap();
        sprite.fs().read("warm").await.unwrap();
        let movers = movers(server).into_iter();
        Self(movers.map(|(name, pid)| (name, pid, peak(pid))).collect())
    }

    fn by(&self, most: u64) {
        for (name, pid, before) in &self.0 {
            let grown = peak(*pid).saturating_sub(*before);
            println!(
                "{name} grew by {} MiB to {} MiB",
                grown / MIB,
                peak(*pid) / MIB
            );
            assert!(grown < most, "{name} grew by {grown} bytes");
        }
    }
}

/// What others do meanwhile works.
async fn others_are_unharmed(sprite: &Sprite) {
    let others = async {
        assert_eq!(text(sprite, "echo here").await, "here");
        sprite.fs().write("other", "unharmed").await.unwrap();
        assert_eq!(sprite.fs().read("other").await.unwrap(), "unharmed");
        sprite
            .fs()
            .list("/etc")
            .await
            .unwrap()
            .next()
            .await
            .unwrap();
    };
    tokio::time::timeout(UNHARMED, others).await.unwrap();
}

async fn until(watch: &mut FileWatch, mut found: impl FnMut(&FileNotice) -> bool) -> u64 {
    let mut seen = 0;
    loop {
        let next = tokio::time::timeout(UNHARMED, watch.next()).await;
        let notice = next.unwrap().unwrap().unwrap();
        seen += 1;
        if found(&notice) {
            return seen;
        }
    }
}

#[tokio::test]
async fn a_storm_of_events_is_told_as_an_overflow_and_costs_others_nothing() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("storm").await;
    text(&sprite, "mkdir storm calm").await;
    let bounded = Bounded::begin(&server, &sprite).await;
    let mut watch = sprite
        .fs()
        .watch("storm")
        .recursive()
        .begin()
        .await
        .unwrap();
    let mut calm = sprite.fs().watch("calm").begin().await.unwrap();
    // Nobody reads the one; the other is read. 100,000 files: each is made, and touched.
    let storm = text(&sprite, "cd storm; seq 100000 | xargs touch; echo done");
    let (done, ()) = tokio::join!(storm, others_are_unharmed(&sprite));
    assert_eq!(done, "done");
    sprite.fs().write("calm/file", "x").await.unwrap();
    let told = |notice: &FileNotice| matches!(notice, FileNotice::Happened(event) if event.path.ends_with("/calm/file"));
    until(&mut calm, told).await;
    others_are_unharmed(&sprite).await;
    // Now it is read: events, then that some were missed, then what comes later.
    let missed = |notice: &FileNotice| matches!(notice, FileNotice::Missed { message, .. } if message.contains("overflow"));
    let before = until(&mut watch, missed).await;
    assert!(before > 1 && before < 200_000, "{before}");
    text(&sprite, "mkdir storm/later; echo > storm/later/file").await;
    let later = |notice: &FileNotice| {
        matches!(notice, FileNotice::Happened(event)
            if event.path.ends_with("/later/file") && event.event == FileEventKind::Create)
    };
    until(&mut watch, later).await;
    bounded.by(64 * MIB);
    server.finish();
}

/// Gives bytes one by one, and then waits for ever.
struct Slow {
    given: Arc<AtomicU64>,
}

impl AsyncRead for Slow {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // Nobody wakes it: it is given up by the test.
        if self.given.fetch_add(1, Ordering::Relaxed) >= 3 {
            return Poll::Pending;
        }
        buffer.put_slice(b"x");
        Poll::Ready(Ok(()))
    }
}

/// 40 readers that do not read and 20 writers that do not write: fewer than the operations that there may be at once,
/// and more than there are threads to wait with.
#[tokio::test]
async fn who_reads_or_writes_slowly_harms_nobody() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("slow").await;
    text(
        &sprite,
        "truncate -s 1G large; mkdir tree; truncate -s 1G tree/large",
    )
    .await;
    let bounded = Bounded::begin(&server, &sprite).await;
    let fs = sprite.fs();
    let mut readers = Vec::new();
    for number in 0..40 {
        let reader = match number % 2 {
            0 => fs.open("large").await,
            _ => fs.pack("tree").await,
        };
        readers.push(reader.unwrap());
    }
    let mut writers = Vec::new();
    for number in 0..20 {
        let given = Arc::new(AtomicU64::new(0));
        let reader = Slow {
            given: given.clone(),
        };
        let fs = fs.clone();
        writers.push((
            given,
            tokio::spawn(async move {
                match number % 2 {
                    0 => drop(fs.write_file(format!("slow-{number}")).from(reader).await),
                    _ => drop(fs.unpack("slow", reader).await),
                }
            }),
        ));
    }
    for (given, _) in &writers {
        eventually(UNHARMED, async || match given.load(Ordering::Relaxed) {
            given @ 0..4 => Err(format!("{given} bytes were asked for")),
            _all => Ok(()),
        })
        .await;
    }
    for _ in 0..5 {
        others_are_unharmed(&sprite).await;
    }
    bounded.by(128 * MIB);
    // They are given up: nothing of theirs stays, and what they held is free again.
    drop(readers);
    for (_, writer) in writers {
        writer.abort();
    }
    for _ in 0..3 {
        others_are_unharmed(&sprite).await;
    }
    assert_eq!(text(&sprite, "ls -d slow-* 2>/dev/null || true").await, "");
    server.finish();
}

/// Makes so many entries, and reads the list of them as slowly as it is written.
async fn directory_of(entries: u64) {
    let server = Server::start(&[]);
    let sprite = server.sprite("many").await;
    text(
        &sprite,
        &format!("mkdir many; cd many; seq {entries} | xargs touch"),
    )
    .await;
    let bounded = Bounded::begin(&server, &sprite).await;
    let fs = sprite.fs();
    let mut list = fs.list("many").await.unwrap();
    let mut seen = 0;
    while list.next().await.unwrap().is_some() {
        seen += 1;
    }
    assert_eq!(seen, entries);
    let mut pattern = 0;
    let mut list = fs.list_all("many").await.unwrap();
    while let Some(entry) = list.next().await.unwrap() {
        pattern += u64::from(entry.name.ends_with('7'));
    }
    assert_eq!(pattern, entries / 10);
    bounded.by(64 * MIB);
    fs.remove_all("many").await.unwrap();
    server.finish();
}

#[tokio::test]
async fn a_directory_of_many_entries_is_listed_in_bounded_memory() {
    if !ready() {
        return;
    }
    directory_of(100_000).await;
}

#[tokio::test]
#[ignore = "a million entries take minutes"]
async fn a_directory_of_a_million_entries_is_listed_in_bounded_memory() {
    if !ready() {
        return;
    }
    directory_of(1_000_000).await;
}

/// Zeroes, so many.
struct Zeroes(u64);

impl AsyncRead for Zeroes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = usize::try_from(self.0).unwrap().min(buffer.remaining());
        buffer.initialize_unfilled_to(length);
        buffer.advance(length);
        self.0 -= length as u64;
        Poll::Ready(Ok(()))
    }
}

/// Writes and reads so many bytes.
async fn stream(bytes: u64) {
    let server = Server::start(&[]);
    let sprite = server.sprite("stream").await;
    let bounded = Bounded::begin(&server, &sprite).await;
    let fs = sprite.fs();
    let written = fs.write_file("large").from(Zeroes(bytes)).await.unwrap();
    assert_eq!(written.size, bytes);
    let mut reader = fs.open("large").await.unwrap();
    let mut piece = vec![0; 1 << 20];
    let mut seen = 0;
    loop {
        match reader.read(&mut piece).await.unwrap() {
            0 => break,
            length => seen += length as u64,
        }
    }
    assert_eq!(seen, bytes);
    bounded.by(64 * MIB);
    server.finish();
}

#[tokio::test]
async fn a_large_file_is_moved_in_bounded_memory() {
    if !ready() {
        return;
    }
    stream(400 * MIB).await;
}

#[tokio::test]
#[ignore = "ten gigabytes take minutes, and as much disk"]
async fn ten_gigabytes_are_moved_in_bounded_memory() {
    if !ready() {
        return;
    }
    stream(10 << 30).await;
}
