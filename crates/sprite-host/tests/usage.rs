//! What sprites have used is counted once, whatever becomes of the process that counts.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use sprite_host::{Catalog, Faults, Host, HostOptions, NewSprite, Sprite, SpriteUsage, UsageError};
use sprite_machine::Statistics;
use sprite_testkit::{TestHost, eventually};
use sprite_types::{DriverKind, SpriteId, SpriteStatus};
use support::{SOON, until_in_agreement, until_status};
use tokio::sync::Notify;

const SECOND: u64 = 1_000_000;

fn counters(seconds: u64) -> Statistics {
    Statistics {
        cpu_usec: seconds * SECOND,
        memory_bytes: 100 << 20,
        pids: 1,
        bytes_in: seconds * 10,
        bytes_out: seconds,
    }
}

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        ..TestHost::options()
    }
}

/// What the sprite has used; it is looked at that the times of its states are its life.
async fn usage(host: &Host, sprite: &Sprite) -> SpriteUsage {
    let usage = host.usage(sprite).await.expect("usage");
    let used = usage.used;
    let life = (usage.until - usage.since).whole_microseconds();
    let all = used.running_micros + used.warm_micros + used.cold_micros;
    assert_eq!(i128::from(all), life, "{usage:?}");
    assert_eq!(usage.since, sprite.created_at);
    usage
}

fn use_up(test: &TestHost, sprite: SpriteId, seconds: u64) {
    let machine = test.driver.machine_of(sprite).expect("a machine");
    machine.set_used(counters(seconds));
}

#[tokio::test]
async fn what_a_machine_counts_is_told_at_once_and_kept_over_sleep_and_a_killed_host() {
    for kind in [DriverKind::Container, DriverKind::Microvm] {
        let mut test = TestHost::new().await;
        test.driver.pretend(kind);
        test.reopen(sleepy()).await.expect("reopen");
        let sprite = test.create("one").await;
        let awake = test.host.awake(sprite.id).await.expect("awake");
        use_up(&test, sprite.id, 2);
        let running = usage(&test.host, &sprite).await;
        assert_eq!(running.status, SpriteStatus::Running);
        assert_eq!(running.used.cpu_micros, 2 * SECOND);
        assert_eq!((running.used.bytes_in, running.used.bytes_out), (20, 2));
        assert_eq!(running.memory_bytes, Some(100 << 20));
        use_up(&test, sprite.id, 3);
        drop(awake);
        until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
        test.reopen(sleepy()).await.expect("reopen");
        let warm = usage(&test.host, &sprite).await;
        assert_eq!(warm.status, SpriteStatus::Warm);
        assert_eq!(warm.used.cpu_micros, 3 * SECOND);
        assert_eq!(warm.memory_bytes, None);
        assert!(warm.used.running_micros >= running.used.running_micros);
        assert_eq!(
            warm.used.memory_mib_micros,
            u128::from(warm.used.running_micros) * 100
        );
        let awake = test.host.awake(sprite.id).await.expect("awake");
        // A thawed machine goes on counting; one that was loaded begins anew.
        let (told, wanted) = match kind {
            DriverKind::Container => (7, 7),
            DriverKind::Microvm => (4, 7),
        };
        use_up(&test, sprite.id, told);
        let again = usage(&test.host, &sprite).await;
        assert_eq!(again.used.cpu_micros, wanted * SECOND, "{kind}");
        drop(awake);
    }
}

#[tokio::test]
async fn a_machine_that_ends_was_counted_to_its_end_and_the_next_begins_anew() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    use_up(&test, sprite.id, 5);
    test.host.restart(sprite.id).await.expect("restart");
    drop(awake);
    let awake = test.host.awake(sprite.id).await.expect("awake");
    let first = usage(&test.host, &sprite).await;
    assert_eq!(first.used.cpu_micros, 5 * SECOND);
    use_up(&test, sprite.id, 1);
    let machine = test.driver.machine_of(sprite.id).expect("a machine");
    machine.end("killed");
    until_status(&test.host, sprite.id, SpriteStatus::Cold).await;
    drop(awake);
    let cold = usage(&test.host, &sprite).await;
    assert_eq!(cold.used.cpu_micros, 6 * SECOND);
    test.host.destroy(sprite.id).await.expect("destroy");
    let gone = test.host.usage(&sprite).await;
    assert!(matches!(gone, Err(UsageError::NotFound)));
}

#[tokio::test]
async fn a_machine_that_was_lost_was_counted_until_shortly_before() {
    let mut test = TestHost::with(HostOptions {
        sample_every: Duration::from_millis(5),
        ..TestHost::options()
    })
    .await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    use_up(&test, sprite.id, 9);
    let catalog = Catalog::open(&test.catalog_file()).await.expect("open");
    eventually(SOON, async || {
        let metered = catalog.usage(sprite.id, sprite.created_at).await;
        let used = metered.expect("read").expect("a sprite").meter.usage;
        if used.cpu_micros == 9 * SECOND {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(used)
        }
    })
    .await;
    catalog.close().await;
    test.host.clone().kill().await;
    drop(awake);
    // The host lost power, and its machines with it.
    for machine in test.driver.machines() {
        machine.end("lost");
    }
    test.reopen(TestHost::options()).await.expect("reopen");
    let cold = usage(&test.host, &sprite).await;
    assert_eq!(cold.status, SpriteStatus::Cold);
    assert_eq!(cold.used.cpu_micros, 9 * SECOND);
    assert_eq!(cold.used.warm_micros, 0);
}

#[tokio::test]
async fn a_host_that_counts_closes_at_once() {
    let mut test = TestHost::new().await;
    test.create("one").await;
    tokio::time::timeout(SOON, test.host.close())
        .await
        .expect("in time");
    test.reopen(TestHost::options()).await.expect("reopen");
    tokio::time::timeout(SOON, test.host.close())
        .await
        .expect("in time");
}

/// Stops a host at the `at`-th point that it passes.
struct Fuse {
    passed: AtomicUsize,
    blown: AtomicBool,
    told: Notify,
}

impl Fuse {
    fn new(at: usize) -> (Arc<Self>, Faults) {
        let fuse = Arc::new(Self {
            passed: AtomicUsize::new(0),
            blown: AtomicBool::new(false),
            told: Notify::new(),
        });
        let asked = fuse.clone();
        let faults = Faults::asking(move |_| {
            let stop = asked.passed.fetch_add(1, Ordering::SeqCst) == at;
            if stop {
                asked.blown.store(true, Ordering::SeqCst);
                asked.told.notify_one();
            }
            stop
        });
        (fuse, faults)
    }
}

/// What each machine of the life used, in seconds.
const EACH: u64 = 4;

/// A life in which every machine that runs uses [`EACH`] seconds.
async fn life(test: &TestHost) {
    let (host, org) = (&test.host, &test.principal.org);
    let new = NewSprite::named("one".parse().expect("a legal name"));
    let sprite = host.create(org, new).await.expect("create");
    for _ in 0..2 {
        let awake = host.awake(sprite.id).await.expect("awake");
        use_up(test, sprite.id, EACH);
        drop(awake);
        until_status(host, sprite.id, SpriteStatus::Warm).await;
    }
    host.restart(sprite.id).await.expect("restart");
    let awake = host.awake(sprite.id).await.expect("awake");
    use_up(test, sprite.id, EACH);
    drop(awake);
    host.close().await;
}

/// Kills the host at the `at`-th point that it passes. What was used then is neither forgotten nor counted twice, and
/// the times of the states are the life of the sprite. Whether the life was over before.
async fn killed_at(at: usize, kind: DriverKind) -> bool {
    let options = |faults| HostOptions { faults, ..sleepy() };
    let mut test = TestHost::new().await;
    test.driver.pretend(kind);
    let (fuse, faults) = Fuse::new(at);
    let opened = tokio::select! {
        biased;
        () = fuse.told.notified() => None,
        host = test.open_another(options(faults)) => Some(host.expect("open")),
    };
    if let Some(host) = opened {
        test.host.clone().kill().await;
        test.host = host;
        tokio::select! {
            biased;
            () = fuse.told.notified() => {}
            () = life(&test) => {}
        }
    }
    let finished = !fuse.blown.load(Ordering::SeqCst);
    test.host.clone().kill().await;
    // Machines that are left have used what they say; those that are gone, at most so much each.
    let left = left(&test).await;
    let most = EACH * test.driver.started() as u64;
    test.reopen(options(Faults::default()))
        .await
        .expect("reopen");
    until_in_agreement(&test).await;
    for sprite in &support::all(&test.host, &test.principal.org).await {
        let used = usage(&test.host, sprite).await.used;
        let cpu = used.cpu_micros / SECOND;
        assert!(left <= cpu && cpu <= most, "{left} {cpu} {most} at {at}");
        assert_eq!(cpu % EACH, 0, "at {at}");
        // Looked at again, nothing is new.
        let again = usage(&test.host, sprite).await.used;
        assert_eq!(again.cpu_micros / SECOND, cpu, "at {at}");
    }
    finished
}

/// Lives at a time: each mostly waits for its catalog.
const AT_ONCE: usize = 8;

async fn killed_at_any_point(kind: DriverKind) {
    let mut at = 0;
    loop {
        let lives = (at..at + AT_ONCE).map(|at| killed_at(at, kind));
        if join_all(lives).await.contains(&true) {
            break;
        }
        at += AT_ONCE;
    }
    assert!(at > 15, "{at}");
}

#[tokio::test]
async fn a_host_killed_at_any_point_counts_everything_once() {
    killed_at_any_point(DriverKind::Container).await;
}

#[tokio::test]
async fn a_host_killed_at_any_point_counts_everything_once_over_snapshots() {
    killed_at_any_point(DriverKind::Microvm).await;
}

/// What the machines used that are there.
async fn left(test: &TestHost) -> u64 {
    let mut seconds = 0;
    let machines = test.driver.machines();
    // What one counted that has ended is lost with the host that had not recorded it.
    for machine in machines.iter().filter(|machine| !machine.has_ended()) {
        use sprite_machine::Machine;
        let used = machine.statistics().await.expect("counters");
        seconds += used.cpu_usec / SECOND;
    }
    seconds
}
