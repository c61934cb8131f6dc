//! Checkpoints and forks, against the create of the same run.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::samples::Samples;
use super::wire::Api;
use super::{Row, against, create_and_exec, succeed};
use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::server::{Build, Server};

const SOURCE: &str = "source";
const EMPTY: &str = "empty";

const TIMES: usize = 20;
const AT_ONCE: usize = 20;

/// What the larger disk holds, in MiB.
const DATA_MIB: u64 = 2048;

/// Measures every row of checkpoints, on a server of its own.
///
/// # Errors
/// Something cannot be measured.
pub(super) fn rows(host: Host, build: Build) -> Outcome<Vec<Row>> {
    let server = Server::start(
        host,
        build,
        "bench-checkpoints",
        &["--idle-timeout", "never"],
    )?;
    let token = server.token("bench")?;
    let api = Api::new(server.url(), &token);
    let creates = timed(|number| {
        let name = format!("create-{number}");
        let took = create_and_exec(&api, &name)?;
        api.destroy(&name)?;
        Ok(took)
    })?;
    for name in [EMPTY, SOURCE] {
        create_and_exec(&api, name)?;
    }
    let fill = format!("head -c {DATA_MIB}M /dev/urandom > data; sync");
    succeed(&api, SOURCE, &["sh", "-c", &fill])?;
    let keep = |name: &str| {
        timed(|_| {
            // Something is new in each.
            succeed(&api, name, &["sh", "-c", "date +%N > now"])?;
            let begun = Instant::now();
            api.checkpoint(name)?;
            Ok(begun.elapsed())
        })
    };
    let (empty, full) = (keep(EMPTY)?, keep(SOURCE)?);
    let restores = timed(|_| {
        let begun = Instant::now();
        api.restore(SOURCE, "v1")?;
        succeed(&api, SOURCE, &["true"])?;
        Ok(begun.elapsed())
    })?;
    let forks = timed(|number| {
        let name = format!("fork-{number}");
        let took = fork_and_exec(&api, &name)?;
        api.destroy(&name)?;
        Ok(took)
    })?;
    let at_once = forks_at_once(&api)?;
    server.remove()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let each = forks.p50().mul_f64(AT_ONCE as f64 / cores as f64);
    Ok(vec![
        against("checkpoint", &full, &empty, 2.0),
        against("restore", &restores, &creates, 2.0),
        against("fork", &forks, &creates, 1.3),
        against("forks at once", &at_once, &Samples::new(vec![each]), 2.0),
    ])
}

fn timed(work: impl Fn(usize) -> Outcome<Duration>) -> Outcome<Samples> {
    let times: Outcome<Vec<_>> = (0..TIMES).map(work).collect();
    times.map(Samples::new)
}

fn fork_and_exec(api: &Api, name: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    api.fork(SOURCE, name)?;
    succeed(api, name, &["true"])?;
    Ok(begun.elapsed())
}

/// Many forks of one sprite at once, each followed by a command.
fn forks_at_once(api: &Api) -> Outcome<Samples> {
    let barrier = Barrier::new(AT_ONCE + 1);
    let took = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    fork_and_exec(api, &format!("at-once-{number}")).map(drop)
                })
            })
            .collect();
        barrier.wait();
        let begun = Instant::now();
        for thread in threads {
            let ended = thread.join();
            ended.unwrap_or_else(|_| Err(Failure::Check("a thread failed".to_owned())))?;
        }
        Ok(begun.elapsed())
    });
    let took: Outcome<Duration> = took;
    let took = took?;
    for number in 0..AT_ONCE {
        api.destroy(&format!("at-once-{number}"))?;
    }
    Ok(Samples::new(vec![took]))
}
