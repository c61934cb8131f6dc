//! `cargo xtask bench`: the numbers of SPECIFICATION.md, each against a floor taken in the same run.
//!
//! A floor is the same work with bare tools, so that the numbers mean the same on every computer. Everything is
//! measured as root on a server of our own; without root the command starts itself again by sudo. Virtual machines
//! are measured apart, where KVM is: see [`machines`].

mod checkpoints;
mod files;
mod floor;
pub mod machines;
mod ports;
mod processes;
mod samples;
mod sleepers;
mod url;
mod wire;

use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, Privilege};
use crate::packages;
use crate::program::Program;
use crate::server::{Build, Server};

use self::samples::Samples;
use self::wire::Api;

/// The rows of a server, as SPECIFICATION.md names them.
pub const NAMES: &[&str] = &[
    "create",
    "exec",
    "stdout",
    "proxy rate",
    "proxy connect",
    "port opened",
    "url rate",
    "url p99",
    "url warm",
    "url cold",
    "sleepers start",
    "sleepers list",
    "sleepers wake",
    "sleepers memory",
    "checkpoint",
    "restore",
    "fork",
    "forks at once",
    "file write",
    "file read",
    "file push",
    "creates at once",
    "memory",
    "size",
    "idle memory",
    "idle cpu",
];

/// Enough that the p99 is not the one slow start.
const CREATES: usize = 30;
const EXECS: usize = 200;
const AT_ONCE: usize = 50;
const IDLE_SPRITES: usize = 100;
const IDLE_FOR: Duration = Duration::from_secs(60);
const STDOUT_BYTES: u64 = 1 << 30;

/// Which rows are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every one.
    All,
    /// Those of checkpoints and forks.
    Checkpoints,
    /// Those of files.
    Files,
    /// Those of ports.
    Ports,
    /// Those of sprites that sleep, and many.
    Sleepers,
    /// Those of sprites' URLs.
    Url,
}

impl Part {
    const EVERY: [Self; 6] = [
        Self::All,
        Self::Checkpoints,
        Self::Files,
        Self::Ports,
        Self::Sleepers,
        Self::Url,
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Checkpoints => "checkpoints",
            Self::Files => "files",
            Self::Ports => "ports",
            Self::Sleepers => "sleepers",
            Self::Url => "url",
        }
    }

    /// The one of that word.
    pub fn of(word: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|part| part.name() == word)
    }

    /// Whether a part is measured when this is asked for.
    fn has(self, part: Self) -> bool {
        self == Self::All || self == part
    }
}

/// One measured row against its limit.
struct Row {
    name: &'static str,
    measured: String,
    floor: String,
    limit: String,
    holds: bool,
}

/// Measures every row.
///
/// # Errors
/// Something cannot be measured, or a number is over its limit.
pub fn run(host: Host, build: Build, part: Part, consent: Consent) -> Outcome {
    let needed: Vec<_> = [packages::SERVE, packages::BENCH].concat();
    let missing = packages::missing(&needed);
    let mut steps: Vec<String> = packages::announcement(&missing).into_iter().collect();
    steps.push(format!(
        "a server with up to {IDLE_SPRITES} sprites at once; all removed at the end"
    ));
    steps.push("the base image is made once and kept in /var/cache/sprited".to_owned());
    host.agree(&steps, consent)?;
    packages::install(&host, &missing)?;
    build.make()?;
    match host.privilege {
        Privilege::Root => measure(host, build, part),
        Privilege::Sudo | Privilege::None => {
            let own = std::env::current_exe().map_err(Failure::io("find this program"))?;
            let words = ["bench", part.name(), "--yes", "--built", build.name()];
            host.as_root(Program::new(own).args(words))?.run()
        }
    }
}

/// As [`run`], on a server that is built already.
///
/// # Errors
/// As [`run`].
pub fn measure(host: Host, build: Build, part: Part) -> Outcome {
    let mut failures = Vec::new();
    let mut tell = |row: Row| {
        tell(&row);
        if !row.holds {
            failures.push(row.name);
        }
    };
    if part.has(Part::Files) || part.has(Part::Ports) {
        let server = Server::start(host, build, "bench", &["--idle-timeout", "never"])?;
        let token = server.token("bench")?;
        let api = Api::new(server.url(), &token);
        if part == Part::All {
            sprites(&server, &api, &mut tell)?;
        }
        if part.has(Part::Ports) {
            ports::rows(&api)?.into_iter().for_each(&mut tell);
        }
        if part.has(Part::Files) {
            files::rows(&server, &api, &token)?
                .into_iter()
                .for_each(&mut tell);
        }
        if part == Part::All {
            idle(&server, &api)?.into_iter().for_each(&mut tell);
        }
        server.remove()?;
    }
    if part.has(Part::Checkpoints) {
        checkpoints::rows(host, build)?
            .into_iter()
            .for_each(&mut tell);
    }
    if part.has(Part::Sleepers) {
        sleepers::rows(host, build)?.into_iter().for_each(&mut tell);
    }
    if part.has(Part::Url) {
        url::rows(host, build)?.into_iter().for_each(&mut tell);
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::Check(format!(
            "over the limit: {}",
            failures.join(", ")
        )))
    }
}

/// The rows of sprites that run.
fn sprites(server: &Server, api: &Api, tell: &mut impl FnMut(Row)) -> Outcome {
    tell(size(server)?);
    let (create, machine_floor) = creates(server, api)?;
    tell(create);
    tell(execs(api)?);
    tell(stdout(api)?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tell(creates_at_once(api, machine_floor, cores)?);
    Ok(())
}

fn tell(row: &Row) {
    println!(
        "{:<16} {:<34} floor {:<24} limit {:<10} {}",
        row.name,
        row.measured,
        row.floor,
        row.limit,
        if row.holds { "ok" } else { "OVER" }
    );
}

fn size(server: &Server) -> Outcome<Row> {
    let bytes = std::fs::metadata(server.sprited())
        .map_err(Failure::io("look at sprited"))?
        .len();
    Ok(Row {
        name: "size",
        measured: megabytes(bytes),
        floor: "-".to_owned(),
        limit: "40 MB".to_owned(),
        holds: bytes <= 40_000_000,
    })
}

/// Create a sprite until the result of its first `true`.
fn creates(server: &Server, api: &Api) -> Outcome<(Row, Duration)> {
    let image = floor::base_image(&server.data())?;
    let floors = Samples::new(
        (0..CREATES)
            .map(|number| floor::machine(&image, number))
            .collect::<Outcome<_>>()?,
    );
    let mut times = Vec::new();
    for number in 0..CREATES {
        let name = format!("create-{number}");
        times.push(create_and_exec(api, &name)?);
        api.destroy(&name)?;
    }
    let row = against("create", &Samples::new(times), &floors, 3.0);
    Ok((row, floors.p50()))
}

fn create_and_exec(api: &Api, name: &str) -> Outcome<Duration> {
    let begun = Instant::now();
    api.create(name)?;
    succeed(api, name, &["true"])?;
    Ok(begun.elapsed())
}

fn succeed(api: &Api, name: &str, words: &[&str]) -> Outcome<u64> {
    let ended = api.exec(name, words)?;
    if ended.status == 0 {
        Ok(ended.stdout)
    } else {
        Err(Failure::Check(format!(
            "{words:?} in {name} ended with {}",
            ended.status
        )))
    }
}

/// `true` over a new WebSocket each time.
fn execs(api: &Api) -> Outcome<Row> {
    api.create("exec")?;
    let measured = std::thread::scope(|scope| {
        // A process of the environment, whose namespaces the floor enters. It ends with the sprite.
        scope.spawn(|| api.exec("exec", &["sleep", MARK]));
        let measured = marked().and_then(|pid| execs_beside(api, pid));
        api.destroy("exec").and(measured)
    });
    let (times, floors) = measured?;
    Ok(against("exec", &times, &floors, 2.5))
}

/// How long the process that is entered sleeps: a number by which nothing else is known.
const MARK: &str = "98765.4321";

/// The process that sleeps for [`MARK`], once it is there.
fn marked() -> Outcome<u32> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if let Some(pid) = processes::with_word(MARK)?.into_iter().next() {
            return Ok(pid);
        }
        // Nothing tells of a process of somebody else.
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Failure::Check(
        "the sprite's process is not seen".to_owned(),
    ))
}

fn execs_beside(api: &Api, pid: u32) -> Outcome<(Samples, Samples)> {
    let (mut times, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..EXECS {
        floors.push(floor::enter(pid)?);
        let begun = Instant::now();
        succeed(api, "exec", &["true"])?;
        times.push(begun.elapsed());
    }
    Ok((Samples::new(times), Samples::new(floors)))
}

/// 1 GiB of output through the API, against the same through a local pipe.
fn stdout(api: &Api) -> Outcome<Row> {
    api.create("stdout")?;
    let bytes = STDOUT_BYTES.to_string();
    let (mut floors, mut times) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        floors.push(floor::pipe(STDOUT_BYTES)?);
        let begun = Instant::now();
        let seen = succeed(api, "stdout", &["head", "-c", &bytes, "/dev/zero"])?;
        times.push(begun.elapsed());
        if seen != STDOUT_BYTES {
            return Err(Failure::Check(format!("{seen} of {bytes} bytes came")));
        }
    }
    api.destroy("stdout")?;
    let (time, floor) = (Samples::new(times).p50(), Samples::new(floors).p50());
    let share = floor.as_secs_f64() / time.as_secs_f64();
    let rate =
        |time: Duration| format!("{:.0} MB/s", STDOUT_BYTES as f64 / 1e6 / time.as_secs_f64());
    Ok(Row {
        name: "stdout",
        measured: format!("{} ({:.0} %)", rate(time), share * 100.0),
        floor: rate(floor),
        limit: "25 %".to_owned(),
        holds: share >= 0.25,
    })
}

/// Many creates at once, each followed by a command.
fn creates_at_once(api: &Api, floor: Duration, cores: usize) -> Outcome<Row> {
    let barrier = Barrier::new(AT_ONCE + 1);
    let (took, outcomes) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    create_and_exec(api, &format!("at-once-{number}")).map(drop)
                })
            })
            .collect();
        barrier.wait();
        let begun = Instant::now();
        let outcomes: Vec<Outcome> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::Check("a thread failed".to_owned())))
            })
            .collect();
        (begun.elapsed(), outcomes)
    });
    outcomes.into_iter().collect::<Outcome>()?;
    for number in 0..AT_ONCE {
        api.destroy(&format!("at-once-{number}"))?;
    }
    let floor = floor.mul_f64(AT_ONCE as f64 / cores as f64);
    Ok(against(
        "creates at once",
        &Samples::new(vec![took]),
        &Samples::new(vec![floor]),
        3.0,
    ))
}

/// What many idle sprites cost.
fn idle(server: &Server, api: &Api) -> Outcome<Vec<Row>> {
    let pid = server
        .pid()
        .ok_or_else(|| Failure::Check("sprited is not running".to_owned()))?;
    let data = server.data();
    let memory = || -> Outcome<u64> { Ok(ours(pid, &data)?.into_iter().map(processes::pss).sum()) };
    let before = memory()?;
    for number in 0..IDLE_SPRITES {
        create_and_exec(api, &format!("idle-{number}"))?;
    }
    let each = memory()?.saturating_sub(before) / IDLE_SPRITES as u64;
    let cpu =
        || -> Outcome<Duration> { Ok(ours(pid, &data)?.into_iter().map(processes::cpu).sum()) };
    let begun = (Instant::now(), cpu()?);
    // Time has to pass for idle time to be measured.
    std::thread::sleep(IDLE_FOR);
    let used = cpu()?.saturating_sub(begun.1).as_secs_f64() / begun.0.elapsed().as_secs_f64();
    let resident = processes::rss(pid);
    for number in 0..IDLE_SPRITES {
        api.destroy(&format!("idle-{number}"))?;
    }
    let row = |name, measured, limit: &str, holds| Row {
        name,
        measured,
        floor: "-".to_owned(),
        limit: limit.to_owned(),
        holds,
    };
    Ok(vec![
        row(
            "memory",
            format!(
                "{:.1} MiB PSS for each sprite",
                each as f64 / f64::from(1 << 20)
            ),
            "8 MiB",
            each <= 8 << 20,
        ),
        row(
            "idle memory",
            format!("{} RSS", megabytes(resident)),
            "50 MB",
            resident <= 50_000_000,
        ),
        row(
            "idle cpu",
            format!("{:.3} % of a core", used * 100.0),
            "0.1 %",
            used <= 0.001,
        ),
    ])
}

/// The server, and whatever runs in the cgroups of its machines.
fn ours(server: u32, data: &Path) -> Outcome<Vec<u32>> {
    let mark = data.join("instance");
    let instance =
        std::fs::read_to_string(&mark).map_err(Failure::io(format!("read {}", mark.display())))?;
    let mut all = processes::family(server)?;
    all.extend(processes::in_group(&format!(
        "sprited-{}",
        instance.trim()
    ))?);
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

fn against(name: &'static str, times: &Samples, floors: &Samples, most: f64) -> Row {
    let factor = times.p50().as_secs_f64() / floors.p50().as_secs_f64();
    let pair = |samples: &Samples| {
        format!(
            "{:.1} / {:.1} ms",
            milliseconds(samples.p50()),
            milliseconds(samples.p99())
        )
    };
    Row {
        name,
        measured: format!("{} ({factor:.2} x)", pair(times)),
        floor: pair(floors),
        limit: format!("{most} x"),
        holds: factor <= most,
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
