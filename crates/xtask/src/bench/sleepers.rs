//! What sprites cost that sleep: a server with a hundred thousand of them against one with a hundred.
//!
//! They are rows that are generated into its catalog. One sprite is real, and is woken among them.

use std::time::{Duration, Instant};

use super::samples::Samples;
use super::wire::Api;
use super::{Row, against, processes, succeed};
use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::program::Program;
use crate::server::{Build, Server};

const SPRITE: &str = "one";
const FEW: u64 = 100;
const MANY: u64 = 100_000;

/// Most memory of the server for each of them, in bytes.
const EACH: u64 = 2 << 10;

const STARTS: usize = 5;
const LISTS: usize = 100;
const WAKES: usize = 20;

/// Sprites on one page of a list.
const PAGE: usize = 50;

/// What is measured with one number of sleepers.
struct Measured {
    start: Samples,
    list: Samples,
    wake: Samples,
    /// Resident, in bytes.
    memory: u64,
}

/// Measures every row of sleepers, on a server of its own.
///
/// # Errors
/// Something cannot be measured.
pub(super) fn rows(host: Host, build: Build) -> Outcome<Vec<Row>> {
    let mut server = Server::start(host, build, "bench-sleepers", &["--idle-timeout", "never"])?;
    let token = server.token("bench")?;
    Api::new(server.url(), &token).create(SPRITE)?;
    let few = measure(&mut server, &token, FEW)?;
    let many = measure(&mut server, &token, MANY)?;
    server.remove()?;
    let each = many.memory.saturating_sub(few.memory) / (MANY - FEW);
    Ok(vec![
        against("sleepers start", &many.start, &few.start, 1.5),
        against("sleepers list", &many.list, &few.list, 1.5),
        against("sleepers wake", &many.wake, &few.wake, 1.5),
        Row {
            name: "sleepers memory",
            measured: format!("{each} bytes RSS for each"),
            floor: "-".to_owned(),
            limit: format!("{EACH} bytes"),
            holds: each <= EACH,
        },
    ])
}

/// Fills the catalog up to `sleepers`, and measures.
fn measure(server: &mut Server, token: &str, sleepers: u64) -> Outcome<Measured> {
    server.kill()?;
    generate(server, sleepers)?;
    let mut starts = Vec::new();
    for start in 0..STARTS {
        if start > 0 {
            server.kill()?;
        }
        let begun = Instant::now();
        server.start_again()?;
        starts.push(begun.elapsed());
    }
    let api = Api::new(server.url(), token);
    let timed = |times: usize, work: &dyn Fn() -> Outcome<Duration>| {
        let times: Outcome<Vec<_>> = (0..times).map(|_| work()).collect();
        times.map(Samples::new)
    };
    let list = timed(LISTS, &|| {
        let begun = Instant::now();
        api.list(PAGE)?;
        Ok(begun.elapsed())
    })?;
    let wake = timed(WAKES, &|| {
        api.sleep(SPRITE)?;
        let begun = Instant::now();
        succeed(&api, SPRITE, &["true"])?;
        Ok(begun.elapsed())
    })?;
    let pid = server.pid();
    let pid = pid.ok_or_else(|| Failure::Check("sprited is not running".to_owned()))?;
    Ok(Measured {
        start: Samples::new(starts),
        list,
        wake,
        memory: processes::rss(pid),
    })
}

/// Rows of sprites that sleep with their memory on disk: copies of the real one's, with ids and names of their own.
fn generate(server: &Server, sleepers: u64) -> Outcome {
    let uuid = "lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8' \
                || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))";
    let script = format!(
        "CREATE TEMP TABLE many AS SELECT sprites.* FROM sprites, generate_series(1, {sleepers}) WHERE name = '{SPRITE}';
         UPDATE many SET id = 'sprite-' || {uuid}, machine_id = 'machine-' || {uuid},
             name = printf('sleeper-%06d', rowid), driver = 'microvm', status = 'warm';
         INSERT OR IGNORE INTO sprites SELECT * FROM many;
         SELECT COUNT(*) FROM sprites;"
    );
    let catalog = server.data().join("catalog.db");
    let rows = Program::new("sqlite3")
        .args([catalog])
        .args([&script])
        .read()?;
    let wanted = sleepers + 1;
    if rows.trim() == wanted.to_string() {
        Ok(())
    } else {
        Err(Failure::Check(format!(
            "{} rows in the catalog, and not {wanted}",
            rows.trim()
        )))
    }
}
