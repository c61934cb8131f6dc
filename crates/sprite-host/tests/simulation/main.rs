//! Random lives of a whole host in simulated time: what must always hold does, whatever fails and whenever it dies.
//!
//! A seed decides all of it: what clients ask for and when, how long every step of the catalog, the driver, the
//! agent and the disks takes and which of them fail, when machines end, when the host is killed. `SIMULATION_SEED=n`
//! runs one seed again and shows what happens in it; `SIMULATION_SECONDS=n` runs seeds for that long.

mod clients;
mod model;
mod stage;
mod world;

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sprite_host::{DestroyError, Host};
use sprite_testkit::Seeded;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::clients::Client;
use crate::world::{ANSWERED, World};

/// Seeds of every run of the tests.
const SEEDS: u64 = 500;

/// How a run ended.
struct Run {
    /// What was broken; nothing, if all is well.
    broken: Vec<String>,
    /// What happened, in two numbers.
    trace: (u64, u64),
    /// What happened last.
    shown: String,
}

/// One life of a data directory: some hosts one after the other, each in a storm, each followed by a calm.
async fn live(seed: u64, directory: TempDir) -> Run {
    let mut chance = Seeded::new(seed);
    let world = World::new(seed, &mut chance, directory);
    for _ in 0..1 + chance.below(2) {
        if !world.look().is_empty() {
            break;
        }
        storm(&world, &mut chance).await;
    }
    if world.look().is_empty() {
        end(&world).await;
    }
    Run {
        broken: world.look(),
        trace: world.weather.hash(),
        shown: world.weather.shown(),
    }
}

/// Opens a host, and again if it could not or is killed meanwhile.
async fn opened(world: &World, chance: &mut Seeded) -> Host {
    for attempt in 0.. {
        // It cannot fail for ever.
        world.weather.calm(attempt > 5);
        let patience = match chance.below(4) {
            0 => Duration::from_millis(chance.below(200)),
            _ => ANSWERED,
        };
        match timeout(patience, world.open()).await {
            Ok(Ok(host)) => return host,
            Ok(Err(error)) => world.weather.note(&format!("not opened: {error}")),
            Err(_) if patience == ANSWERED => world.model.broken("a host does not open".to_owned()),
            Err(_) => world.weather.note("killed while it opened"),
        }
    }
    unreachable!("a calm open succeeds")
}

/// A host that much happens to, and how it ends.
async fn storm(world: &Arc<World>, chance: &mut Seeded) {
    let mut host = opened(world, chance).await;
    world.weather.calm(false);
    let mut clients = JoinSet::new();
    for _ in 0..4 + chance.below(8) {
        let client = Client {
            world: world.clone(),
            host: host.clone(),
            chance: Seeded::new(chance.any()),
        };
        clients.spawn(client.acts());
        let pause = [20, 1_000, 30_000][usize::try_from(chance.below(3)).expect("small")];
        sleep(Duration::from_millis(chance.below(pause))).await;
        if !world.look().is_empty() {
            return;
        }
        match chance.below(40) {
            0 | 1 => {
                world.weather.note("killed");
                clients.shutdown().await;
                host.kill().await;
                world.model.nobody_holds();
                host = opened(world, chance).await;
                world.weather.calm(false);
            }
            2 => {
                close(world, &host).await;
                clients.shutdown().await;
                world.model.nobody_holds();
                host.kill().await;
                host = opened(world, chance).await;
                world.weather.calm(false);
            }
            _ => {}
        }
    }
    // Every client is content in the end; their requests have deadlines of their own.
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client does not panic");
    }
    world.rest(&host).await;
    host.kill().await;
    world.model.nobody_holds();
}

async fn close(world: &World, host: &Host) {
    world.weather.note("closed");
    world.model.closing(true);
    if timeout(ANSWERED, host.close()).await.is_err() {
        world.model.broken("a host does not close".to_owned());
    }
    world.model.closing(false);
}

/// Everything is destroyed, and nothing is left.
async fn end(world: &World) {
    world.weather.calm(true);
    let host = world.open().await.expect("a calm open");
    for row in world.rows() {
        world.model.drop_asked(row.id, true);
        // One whose end was announced goes by itself.
        if let Err(error) = host.destroy(row.id).await
            && !matches!(error, DestroyError::NotFound)
        {
            let name = world.name(row.id);
            world
                .model
                .broken(format!("{name} is not destroyed: {error}"));
        }
    }
    if !world.rows().is_empty() || !world.driver.machines().is_empty() || host.active() > 0 {
        world
            .model
            .broken("something is left at the end".to_owned());
    }
    host.kill().await;
}

/// A new catalog, made once and copied for every seed.
fn template() -> TempDir {
    let directory = directory();
    let catalog = stage::at_once(sprite_host::Catalog::open(
        &directory.path().join("catalog.db"),
    ));
    stage::at_once(catalog.expect("make a catalog").close());
    directory
}

fn directory() -> TempDir {
    tempfile::tempdir_in(sprite_testkit::quick()).expect("make a directory")
}

fn run(seed: u64, template: &Path) -> Run {
    let directory = directory();
    std::fs::copy(
        template.join("catalog.db"),
        directory.path().join("catalog.db"),
    )
    .expect("copy the catalog");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("make a runtime");
    let lived =
        std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(seed, directory))));
    lived.unwrap_or_else(|_| Run {
        broken: vec!["it panics; the message is above".to_owned()],
        trace: (0, 0),
        shown: String::new(),
    })
}

/// Runs seeds on as many threads as there are processors, until there is none left.
fn run_all(next: impl Fn() -> Option<u64> + Sync) -> u64 {
    let template = template();
    let (done, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed)
                    && let Some(seed) = next()
                {
                    let Run { broken, shown, .. } = run(seed, template.path());
                    failed.fetch_or(!broken.is_empty(), Ordering::Relaxed);
                    assert!(
                        broken.is_empty(),
                        "{shown}\n\nSIMULATION_SEED={seed} breaks:\n{}",
                        broken.join("\n")
                    );
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner()
}

fn wanted(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn what_must_always_hold_does_for_every_seed() {
    if let Some(seed) = wanted("SIMULATION_SEED") {
        let Run {
            broken,
            shown,
            trace,
        } = run(seed, template().path());
        println!("{shown}\n\n{trace:x?}");
        assert!(broken.is_empty(), "{}", broken.join("\n"));
        return;
    }
    let next = AtomicU64::new(1);
    let done = run_all(|| {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        (seed <= SEEDS).then_some(seed)
    });
    assert_eq!(done, SEEDS);
}

#[test]
fn a_seed_is_a_whole_run() {
    let template = template();
    let traces = |_| {
        let one = |seed| run(seed, template.path()).trace;
        (1..=10).map(one).collect::<Vec<_>>()
    };
    let [once, again] = [(); 2].map(traces);
    assert_eq!(once, again);
    assert!(once.iter().all(|(_, lines)| *lines > 40), "{once:?}");
}

/// Other seeds each time, for as long as is said.
#[test]
#[ignore = "takes as long as SIMULATION_SECONDS says; cargo xtask soak simulation runs it"]
fn soak() {
    let lasts = Duration::from_secs(wanted("SIMULATION_SECONDS").unwrap_or(60));
    let began = std::time::Instant::now();
    let first = u64::from(std::process::id()) << 32;
    let next = AtomicU64::new(first);
    let done = run_all(|| (began.elapsed() < lasts).then(|| next.fetch_add(1, Ordering::Relaxed)));
    println!("{done} seeds from {first} on");
}
