//! Kill −9 between any two steps, and between any two steps of the recovery from that.
//!
//! The points are found by running: a life of a sprite is led once to count the points that it passes, and then
//! once for each of them, stopped there. The host is killed, another is opened on what is left, and what must
//! always hold is looked at.

mod support;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sprite_host::{
    DestroyError, Disks, FaultPoint, Faults, HostOptions, LookupError, NewSprite, WakeError,
};
use sprite_machine::{Beginning, Identity, MachineDriver, MachineSpec};
use sprite_testkit::{TestHost, eventually};
use sprite_types::{DriverKind, Egress, Generation, MachineId, SpriteId, SpriteName, SpriteStatus};
use support::{SOON, all, destroy, run, until_in_agreement, until_status};
use tokio::sync::Notify;

/// Counts the points that are passed, and stops at one of them.
#[derive(Default)]
struct Fuse {
    passed: AtomicUsize,
    points: Mutex<BTreeSet<FaultPoint>>,
    blown: Notify,
}

impl Fuse {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Stops at the `at`-th point that is passed from now on, counted from 0.
    fn faults(self: &Arc<Self>, at: Option<usize>) -> Faults {
        let fuse = self.clone();
        Faults::asking(move |point| {
            fuse.points
                .lock()
                .expect("nobody panics with it")
                .insert(point);
            let stop = Some(fuse.passed.fetch_add(1, Ordering::Relaxed)) == at;
            if stop {
                fuse.blown.notify_one();
            }
            stop
        })
    }

    fn passed(&self) -> usize {
        self.passed.load(Ordering::Relaxed)
    }
}

/// What the client of the host was told.
#[derive(Debug, Default)]
struct Told {
    created: Option<SpriteId>,
    /// A session runs that only memory knows of.
    session: bool,
    /// The host was closed in order.
    closed: bool,
    destroy_asked: bool,
    destroyed: bool,
}

fn name() -> SpriteName {
    "one".parse().expect("a legal name")
}

fn options(faults: Faults) -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        faults,
        ..TestHost::options()
    }
}

/// A life with everything in it that has steps.
async fn life(test: &TestHost, told: &Mutex<Told>) {
    let tell =
        |change: &dyn Fn(&mut Told)| change(&mut told.lock().expect("nobody panics with it"));
    let (host, org) = (&test.host, &test.principal.org);
    let sprite = host
        .create(org, NewSprite::named(name()))
        .await
        .expect("create");
    tell(&|told| told.created = Some(sprite.id));
    let awake = host.awake(sprite.id).await.expect("boot");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    drop(awake);
    until_status(host, sprite.id, SpriteStatus::Warm).await;
    let awake = host.awake(sprite.id).await.expect("thaw");
    host.restart(sprite.id).await.expect("restart");
    drop(awake);
    until_status(host, sprite.id, SpriteStatus::Warm).await;
    test.driver
        .machine_of(sprite.id)
        .expect("kept")
        .end("killed");
    until_status(host, sprite.id, SpriteStatus::Cold).await;
    let awake = host.awake(sprite.id).await.expect("boot");
    tell(&|told| told.destroy_asked = true);
    host.destroy(sprite.id).await.expect("destroy");
    tell(&|told| told.destroyed = true);
    drop(awake);
}

/// A life on a driver that keeps snapshots.
async fn snapshot_life(test: &TestHost, told: &Mutex<Told>) {
    let tell =
        |change: &dyn Fn(&mut Told)| change(&mut told.lock().expect("nobody panics with it"));
    let (host, org) = (&test.host, &test.principal.org);
    let sprite = host
        .create(org, NewSprite::named(name()))
        .await
        .expect("create");
    tell(&|told| told.created = Some(sprite.id));
    let awake = host.awake(sprite.id).await.expect("boot");
    let mut stream = awake.open(&support::command(&["sleep", "1000"]));
    let started = stream.receiver.recv().await.expect("started");
    assert!(started.is_some());
    tell(&|told| told.session = true);
    drop((awake, stream));
    for _ in 0..2 {
        until_status(host, sprite.id, SpriteStatus::Warm).await;
        let awake = host.awake(sprite.id).await.expect("load");
        let machine = test.driver.machine_of(sprite.id).expect("runs");
        assert_eq!(machine.live_sessions(), 1, "memory is kept");
        drop(awake);
    }
    host.close().await;
    tell(&|told| told.closed = true);
}

/// Opens a host on what is left, and looks at what must always hold.
async fn check(test: &mut TestHost, told: &Told) {
    test.reopen(options(Faults::default()))
        .await
        .expect("reopen");
    until_in_agreement(test).await;
    let org = test.principal.org.clone();
    let sprites = all(&test.host, &org).await;
    match told.created {
        Some(id) if !told.destroy_asked => {
            assert_eq!(
                sprites.iter().map(|sprite| sprite.id).collect::<Vec<_>>(),
                [id],
                "kept"
            );
        }
        Some(_) if told.destroyed => assert!(sprites.is_empty(), "{sprites:?}"),
        // Under way: all of it or nothing of it.
        Some(_) | None => assert!(sprites.len() <= 1),
    }
    let keeps = test.driver.keeps_snapshots();
    // What is there works.
    for sprite in &sprites {
        let slept = keeps && sprite.status == SpriteStatus::Warm;
        assert!(slept || !told.closed, "{:?} after a close", sprite.status);
        let awake = match test.host.awake(sprite.id).await {
            Ok(awake) => awake,
            // Its end was announced before the kill, and goes on.
            Err(WakeError::NotFound) if told.destroy_asked => continue,
            Err(error) => panic!("{error:?}"),
        };
        let live = test
            .driver
            .machine_of(sprite.id)
            .expect("runs")
            .live_sessions();
        assert!(
            !slept || live == usize::from(told.session),
            "memory is kept"
        );
        assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    }
    // And what is not there can be made.
    match destroy(&test.host, &org, &name()).await {
        Ok(()) | Err(DestroyError::NotFound) => {}
        Err(error) => panic!("{error:?}"),
    }
    let again = test.create("one").await;
    test.host.close().await;
    assert!(test.driver.machines().is_empty());
    let closed = test.host.sprite_by_id(again.id).await.expect("kept");
    let at_rest = if keeps {
        SpriteStatus::Warm
    } else {
        SpriteStatus::Cold
    };
    assert_eq!(closed.status, at_rest);
    until_in_agreement(test).await;
}

/// Leads a life until the point, and kills the host there. Says whether the point was reached.
async fn live_until(test: &mut TestHost, told: &Mutex<Told>, at: usize) -> bool {
    let fuse = Fuse::new();
    test.reopen(options(fuse.faults(Some(at))))
        .await
        .expect("reopen");
    // Opening passes points too.
    let reached = tokio::select! {
        biased;
        () = fuse.blown.notified() => true,
        () = life(test, told) => false,
    };
    test.host.clone().kill().await;
    reached
}

#[tokio::test]
async fn a_host_killed_at_any_point_leaves_what_the_next_one_mends() {
    let fuse = Fuse::new();
    let mut test = TestHost::new().await;
    test.reopen(options(fuse.faults(None)))
        .await
        .expect("reopen");
    let opening = fuse.passed();
    life(&test, &Mutex::default()).await;
    let points = fuse.passed();
    assert!(points > opening + 20, "{points}");

    let mut reached = 0;
    for at in opening..points {
        let mut test = TestHost::new().await;
        let told = Mutex::default();
        reached += usize::from(live_until(&mut test, &told, at).await);
        let told = told.into_inner().expect("nobody panics with it");
        check(&mut test, &told).await;
    }
    // The number of sleeps differs from run to run, so the last points may be missed; not many.
    assert!(
        reached + 6 >= points - opening,
        "{reached} of {}",
        points - opening
    );
    // Every point beside a step of a life was among them.
    let passed = fuse.points.lock().expect("nobody panics with it").clone();
    for point in [
        FaultPoint::CreateRecorded,
        FaultPoint::CreateDisk,
        FaultPoint::CreateCommitted,
        FaultPoint::WakeCommitted,
        FaultPoint::WakeStarted,
        FaultPoint::WakeReady,
        FaultPoint::ThawCommitted,
        FaultPoint::Thawed,
        FaultPoint::SleepSynced,
        FaultPoint::SleepFrozen,
        FaultPoint::SleepCommitted,
        FaultPoint::StopShutDown,
        FaultPoint::StopEnded,
        FaultPoint::StopCommitted,
        FaultPoint::DestroyMarked,
        FaultPoint::DestroyMachine,
        FaultPoint::DestroyDisk,
        FaultPoint::DestroyRow,
    ] {
        assert!(passed.contains(&point), "{point:?} is never passed");
    }
}

#[tokio::test]
async fn memory_on_disk_outlives_a_host_killed_at_any_point() {
    let new = async || {
        let test = TestHost::new().await;
        test.driver.pretend(DriverKind::Microvm);
        test
    };
    let fuse = Fuse::new();
    let mut test = new().await;
    test.reopen(options(fuse.faults(None)))
        .await
        .expect("reopen");
    let opening = fuse.passed();
    snapshot_life(&test, &Mutex::default()).await;
    let points = fuse.passed();
    for at in opening..points {
        let mut test = new().await;
        let told = Mutex::default();
        let fuse = Fuse::new();
        test.reopen(options(fuse.faults(Some(at))))
            .await
            .expect("reopen");
        tokio::select! {
            biased;
            () = fuse.blown.notified() => {}
            () = snapshot_life(&test, &told) => {}
        }
        test.host.clone().kill().await;
        let told = told.into_inner().expect("nobody panics with it");
        check(&mut test, &told).await;
    }
    let passed = fuse.points.lock().expect("nobody panics with it").clone();
    for point in [
        FaultPoint::SnapshotWritten,
        FaultPoint::SnapshotCommitted,
        FaultPoint::LoadPrepared,
        FaultPoint::LoadCommitted,
        FaultPoint::Loaded,
    ] {
        assert!(passed.contains(&point), "{point:?} is never passed");
    }
}

#[tokio::test]
async fn a_recovery_killed_at_any_point_is_done_by_the_next_one() {
    // Points of a life at which much is left: half a create, a running and a frozen machine, half a destroy.
    for first in (3..30).step_by(4) {
        for second in 0..6 {
            let mut test = TestHost::new().await;
            let told = Mutex::default();
            live_until(&mut test, &told, first).await;
            // What belongs to no sprite, too.
            test.disks
                .create(SpriteId::random(), "base", 1)
                .await
                .expect("an orphan");
            let fuse = Fuse::new();
            let opening = test.open_another(options(fuse.faults(Some(second))));
            let half_open = tokio::select! {
                biased;
                () = fuse.blown.notified() => None,
                host = opening => Some(host.expect("open")),
            };
            if let Some(host) = half_open {
                // The point may lie in what goes on behind the opening.
                let _ =
                    tokio::time::timeout(Duration::from_millis(20), fuse.blown.notified()).await;
                host.kill().await;
            }
            let told = told.into_inner().expect("nobody panics with it");
            check(&mut test, &told).await;
        }
    }
}

#[tokio::test]
async fn machines_are_adopted_with_what_runs_in_them() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    let mut stream = awake.open(&support::command(&["sleep", "1000"]));
    stream
        .receiver
        .recv()
        .await
        .expect("started")
        .expect("started");
    let machine = test.driver.machine_of(sprite.id).expect("runs");
    assert_eq!(machine.live_sessions(), 1);
    test.reopen(TestHost::options()).await.expect("reopen");
    drop((awake, stream));
    let again = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(again.machine(), machine.identity().machine);
    assert_eq!(machine.live_sessions(), 1);
    assert_eq!(test.driver.started(), 1);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_frozen_machine_stays_frozen_over_a_restart() {
    let options = || options(Faults::default());
    let mut test = TestHost::with(options()).await;
    let sprite = test.create("one").await;
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    test.reopen(options()).await.expect("reopen");
    let machine = test.driver.machine_of(sprite.id).expect("kept");
    assert!(machine.is_frozen());
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(awake.machine(), machine.identity().machine);
}

#[tokio::test]
async fn machines_that_did_not_survive_leave_cold_sprites() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    drop(test.host.awake(sprite.id).await.expect("awake"));
    // As after a reboot.
    test.host.clone().kill().await;
    test.driver
        .machine_of(sprite.id)
        .expect("runs")
        .end("power loss");
    test.reopen(TestHost::options()).await.expect("reopen");
    assert_eq!(
        test.host
            .sprite_by_id(sprite.id)
            .await
            .expect("kept")
            .status,
        SpriteStatus::Cold
    );
    until_in_agreement(&test).await;
    assert_eq!(test.host.active(), 0);
    test.host.awake(sprite.id).await.expect("awake");
}

#[tokio::test]
async fn a_sprite_of_another_driver_is_not_booted() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    test.host.close().await;
    test.driver.pretend(DriverKind::Microvm);
    test.reopen(TestHost::options()).await.expect("reopen");
    let error = test
        .host
        .awake(sprite.id)
        .await
        .expect_err("another driver's");
    assert!(
        error.to_string().contains("created with driver container"),
        "{error}"
    );
    assert_eq!(
        test.host
            .sprite_by_id(sprite.id)
            .await
            .expect("kept")
            .status,
        SpriteStatus::Cold
    );
    assert_eq!(test.driver.started(), 1);
}

#[tokio::test]
async fn an_adoption_that_fails_ends_the_machine() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    let before = test.host.awake(sprite.id).await.expect("awake").machine();
    test.driver.fail(sprite_testkit::Step::Environment, 1);
    test.reopen(TestHost::options()).await.expect("reopen");
    let awake = test.host.awake(sprite.id).await.expect("boots another");
    assert_ne!(awake.machine(), before);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn machines_that_no_row_announces_are_ended() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    drop(test.host.awake(sprite.id).await.expect("awake"));
    test.host.clone().kill().await;
    let ours = test.driver.machine_of(sprite.id).expect("runs").identity();
    // One of a sprite that does not exist, and one that an older owner of this sprite left.
    let stranger = Identity {
        sprite: SpriteId::random(),
        machine: MachineId::random(),
        ..ours
    };
    let older = Identity {
        machine: MachineId::random(),
        generation: Generation(0),
        ..ours
    };
    for identity in [stranger, older] {
        let disk = test.disks.path(sprite.id);
        let spec = MachineSpec {
            identity,
            disk,
            resources: sprite.resources,
            egress: Egress::Open,
            snapshots: None,
            beginning: Beginning::Boot,
        };
        test.driver.start_unchecked(spec).await;
    }
    test.reopen(TestHost::options()).await.expect("reopen");
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(awake.machine(), ours.machine);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn what_cannot_be_cleaned_up_is_told_and_kept() {
    let mut test = TestHost::new().await;
    test.disks
        .create(SpriteId::random(), "base", 1)
        .await
        .expect("an orphan");
    test.disks.fail(sprite_testkit::Step::DeleteDisk, 1);
    assert!(test.reopen(TestHost::options()).await.is_err());
    test.reopen(TestHost::options()).await.expect("reopen");
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_destroy_that_was_cut_off_is_finished() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    let mut held = test.disks.hold(sprite_testkit::Step::DeleteDisk);
    let host = test.host.clone();
    let destroying = tokio::spawn(async move { host.destroy(sprite.id).await });
    // It is at the disk, so it was announced.
    tokio::time::timeout(SOON, held.reached())
        .await
        .expect("the disk's turn");
    test.host.clone().kill().await;
    assert!(matches!(
        destroying.await.expect("joined"),
        Err(DestroyError::Closing)
    ));
    drop(held);
    test.reopen(TestHost::options()).await.expect("reopen");
    eventually(SOON, async || {
        match test.host.sprite_by_id(sprite.id).await {
            Err(LookupError::NotFound) => ControlFlow::Break(()),
            other => ControlFlow::Continue(other),
        }
    })
    .await;
    until_in_agreement(&test).await;
}
