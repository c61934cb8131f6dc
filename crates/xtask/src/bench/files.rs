//! Files: the rate of the API against `cp`, and many small files against `tar` in the sprite's namespaces.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::samples::Samples;
use super::wire::Api;
use super::{MARK, Row, against, marked};
use crate::failure::{Failure, Outcome};
use crate::program::Program;
use crate::server::Server;

const SPRITE: &str = "files";
const BYTES: u64 = 1 << 30;
const ROUNDS: usize = 3;
const SMALL_FILES: usize = 1000;
const SMALL_ROUNDS: usize = 5;

/// Brings a tree into a sprite's namespaces by hand, and to its disk.
const TAR: &str = r#"
set -eu
tar -C "$1" -c . | nsenter --all --target "$2" sh -euc 'mkdir "$1"; tar -C "$1" -x; sync -f "$1"' sh "$3"
"#;

/// Measures every row of files.
///
/// # Errors
/// Something cannot be measured.
pub(super) fn rows(server: &Server, api: &Api, token: &str) -> Outcome<Vec<Row>> {
    // In the pool, so that the floor is of the same file system.
    let place = server.data().join("pool/.floor-files");
    fs::create_dir(&place).map_err(Failure::io("make a directory in the pool"))?;
    api.create(SPRITE)?;
    let measured = std::thread::scope(|scope| {
        // A process of the environment, whose namespaces the floor enters. It ends with the sprite.
        scope.spawn(|| api.exec(SPRITE, &["sleep", MARK]));
        let measured = marked().and_then(|pid| {
            let (write, read) = rates(api, &place)?;
            Ok(vec![write, read, small(server, token, pid, &place)?])
        });
        api.destroy(SPRITE).and(measured)
    });
    fs::remove_dir_all(&place).map_err(Failure::io("clear the pool"))?;
    measured
}

/// One file into a sprite and out of it, against copying it within the pool: to the disk, as an answered write is,
/// and into memory, as what is read is.
fn rates(api: &Api, place: &Path) -> Outcome<(Row, Row)> {
    let (source, copy) = (place.join("source"), place.join("copy"));
    fill(&source).map_err(Failure::io("fill a file"))?;
    let (mut writes, mut copies) = (Vec::new(), Vec::new());
    let (mut reads, mut looks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        copies.push(timed(|| {
            cp(&source, &copy)?;
            Program::new("sync").args([&copy]).read().map(drop)
        })?);
        writes.push(timed(|| {
            api.write_file(SPRITE, "/home/sprite/large", &source)
        })?);
        looks.push(timed(|| cp(&source, &copy))?);
        reads.push(timed(|| {
            api.read_file(SPRITE, "/home/sprite/large", &copy)
        })?);
        let length = fs::metadata(&copy).map_err(Failure::io("look at the copy"))?;
        if length.len() != BYTES {
            return Err(Failure::Check(format!("{} bytes came", length.len())));
        }
    }
    let write = rate("file write", writes, copies);
    Ok((write, rate("file read", reads, looks)))
}

fn rate(name: &'static str, times: Vec<Duration>, floors: Vec<Duration>) -> Row {
    let (time, floor) = (Samples::new(times).p50(), Samples::new(floors).p50());
    let share = floor.as_secs_f64() / time.as_secs_f64();
    let rate = |time: Duration| format!("{:.0} MB/s", BYTES as f64 / 1e6 / time.as_secs_f64());
    Row {
        name,
        measured: format!("{} ({:.0} %)", rate(time), share * 100.0),
        floor: rate(floor),
        limit: "40 %".to_owned(),
        holds: share >= 0.4,
    }
}

fn timed(work: impl FnOnce() -> Outcome) -> Outcome<Duration> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed())
}

fn fill(path: &Path) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    // Not zeroes, which something on the way might treat in its own way.
    let piece: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    for _ in 0..BYTES / (1 << 20) {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

fn cp(from: &Path, to: &Path) -> Outcome {
    let program = Program::new("cp").args(["--reflink=never"]);
    program.args([from, to]).read().map(drop)
}

/// A directory of small files by the command, against the same by hand.
fn small(server: &Server, token: &str, pid: u32, place: &Path) -> Outcome<Row> {
    let tree = place.join("tree");
    make_tree(&tree).map_err(Failure::io("make small files"))?;
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for round in 0..SMALL_ROUNDS {
        let here: Vec<PathBuf> = vec![tree.clone()];
        floors.push(timed(|| {
            let program = Program::new("sh").args(["-c", TAR, "sh"]).args(&here);
            let there = format!("/home/sprite/tar-{round}");
            program.args([&pid.to_string(), &there]).read().map(drop)
        })?);
        times.push(timed(|| {
            let program = Program::new(server.sprite())
                .env("HOME", server.home()?)
                .env("SPRITE_URL", server.url())
                .env("SPRITE_TOKEN", token)
                .args(["file", "push", "-s", SPRITE])
                .args(&here);
            let there = format!("/home/sprite/push-{round}");
            program.args([&there]).read().map(drop)
        })?);
    }
    Ok(against(
        "file push",
        &Samples::new(times),
        &Samples::new(floors),
        3.0,
    ))
}

/// As sources are: some thousand bytes each, a hundred in a directory.
fn make_tree(top: &Path) -> std::io::Result<()> {
    for number in 0..SMALL_FILES {
        let directory = top.join(format!("directory-{}", number / 100));
        fs::create_dir_all(&directory)?;
        let content = vec![b'x'; 500 + number * 7];
        fs::write(directory.join(format!("file-{number}")), content)?;
    }
    Ok(())
}
