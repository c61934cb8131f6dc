//! Checkpoints: what was kept comes back, whatever fails or dies in between.

mod support;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sprite_host::{
    Checkpoint, CheckpointError, CreateError, DeleteCheckpointError, FaultPoint, Faults, ForkOf,
    Host, HostOptions, MOST_CHECKPOINTS, NewSprite, Policy, ResourceRequest, RestoreError, Sprite,
};
use sprite_testkit::{Step, TestHost, eventually};
use sprite_types::{
    CheckpointId, DriverKind, Egress, NetworkPolicy, NetworkRule, Preset, SpriteId, SpriteStatus,
};
use support::{SOON, run, until_in_agreement, until_status};
use tokio::sync::Notify;

const V1: CheckpointId = CheckpointId::Asked(1);
const V2: CheckpointId = CheckpointId::Asked(2);
const AUTO1: CheckpointId = CheckpointId::Automatic(1);

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        ..TestHost::options()
    }
}

async fn keep(host: &Host, sprite: &Sprite) -> Checkpoint {
    let made = host.checkpoint(sprite.id, String::new()).await;
    made.expect("make a checkpoint")
}

async fn restore(host: &Host, sprite: &Sprite, to: CheckpointId) -> Result<(), RestoreError> {
    host.restore(sprite.id, to).await?.done().await
}

async fn ids(host: &Host, sprite: &Sprite) -> Vec<CheckpointId> {
    let found = host.checkpoints(sprite.id).await.expect("list");
    found.all.iter().map(|it| it.id).collect()
}

fn disk(test: &TestHost, sprite: &Sprite) -> String {
    test.disks.state(sprite.id, None).expect("a disk")
}

async fn works(host: &Host, sprite: &Sprite) {
    let awake = host.awake(sprite.id).await.expect("wake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
}

#[tokio::test]
async fn a_restore_brings_back_what_was_kept_and_keeps_what_it_replaces() {
    for driver in [DriverKind::Container, DriverKind::Microvm] {
        let test = TestHost::new().await;
        test.driver.pretend(driver);
        let (host, sprite) = (&test.host, test.create("one").await);
        works(host, &sprite).await;
        test.disks.write(sprite.id, "one");
        let made = host.checkpoint(sprite.id, "before".to_owned()).await;
        let made = made.expect("make a checkpoint");
        assert_eq!((made.id, made.source), (V1, None));
        assert_eq!(made.comment, "before");
        test.disks.write(sprite.id, "two");
        assert_eq!(keep(host, &sprite).await.source, Some(V1));
        test.disks.write(sprite.id, "three");

        let before = test.driver.machine_of(sprite.id).expect("runs");
        restore(host, &sprite, V1).await.expect("restore");
        let machine = test.driver.machine_of(sprite.id).expect("runs");
        assert!(!Arc::ptr_eq(&before, &machine), "another machine");
        assert_eq!(disk(&test, &sprite), "one");
        assert_eq!(ids(host, &sprite).await, [AUTO1, V2, V1]);
        let found = host.checkpoints(sprite.id).await.expect("list");
        assert_eq!(found.source, Some(V1));
        assert_eq!(found.all[0].source, Some(V2), "what was replaced");

        // And back again.
        restore(host, &sprite, AUTO1).await.expect("restore");
        assert_eq!(disk(&test, &sprite), "three");
        works(host, &sprite).await;
        until_in_agreement(&test).await;
    }
}

#[tokio::test]
async fn a_sprite_that_sleeps_is_kept_without_being_woken() {
    for driver in [DriverKind::Container, DriverKind::Microvm] {
        let test = TestHost::with(sleepy()).await;
        test.driver.pretend(driver);
        let (host, sprite) = (&test.host, test.create("one").await);
        until_status(host, sprite.id, SpriteStatus::Warm).await;
        test.disks.write(sprite.id, "one");
        keep(host, &sprite).await;
        let row = host.sprite_by_id(sprite.id).await.expect("there");
        assert_eq!(row.status, SpriteStatus::Warm);
        assert_eq!(
            test.disks.state(sprite.id, Some(V1)).as_deref(),
            Some("one")
        );
        test.disks.write(sprite.id, "two");
        restore(host, &sprite, V1).await.expect("restore");
        assert_eq!(disk(&test, &sprite), "one");
        until_status(host, sprite.id, SpriteStatus::Warm).await;
    }
}

/// What a machine that runs has in memory is written out first; if that fails nothing is kept, and its number is not
/// given again.
#[tokio::test]
async fn what_runs_is_written_out_first() {
    let test = TestHost::new().await;
    let (host, sprite) = (&test.host, test.create("one").await);
    works(host, &sprite).await;
    test.driver.fail(Step::Sync, 1);
    let refused = host.checkpoint(sprite.id, String::new()).await;
    assert!(
        matches!(&refused, Err(CheckpointError::Failed { .. })),
        "{refused:?}"
    );
    assert!(ids(host, &sprite).await.is_empty());
    assert_eq!(test.disks.state(sprite.id, Some(V1)), None);

    let mut writing = test.driver.hold(Step::Sync);
    let (owner, id) = (host.clone(), sprite.id);
    let made = tokio::spawn(async move { owner.checkpoint(id, String::new()).await });
    writing.reached().await;
    test.disks.write(sprite.id, "written at last");
    drop(writing);
    let made = made.await.expect("no panic").expect("made");
    assert_eq!(made.id, V2);
    assert_eq!(
        test.disks.state(sprite.id, Some(V2)).as_deref(),
        Some("written at last")
    );
}

#[tokio::test]
async fn checkpoints_are_deleted_but_that_on_which_a_sprite_stands() {
    let test = TestHost::new().await;
    let (host, sprite) = (&test.host, test.create("one").await);
    keep(host, &sprite).await;
    let refused = host.delete_checkpoint(sprite.id, V1).await;
    assert!(
        matches!(refused, Err(DeleteCheckpointError::InUse { id: V1 })),
        "{refused:?}"
    );
    keep(host, &sprite).await;
    host.delete_checkpoint(sprite.id, V1).await.expect("delete");
    assert_eq!(test.disks.state(sprite.id, Some(V1)), None);
    for gone in [V1, AUTO1] {
        let refused = host.delete_checkpoint(sprite.id, gone).await;
        assert!(
            matches!(refused, Err(DeleteCheckpointError::NotFound { .. })),
            "{refused:?}"
        );
        let refused = host.restore(sprite.id, gone).await;
        assert!(
            matches!(refused, Err(RestoreError::NotFound { .. })),
            "{refused:?}"
        );
    }
    // Its file cannot be removed now: it is no checkpoint any more all the same, and the next start removes it.
    keep(host, &sprite).await;
    test.disks.fail(Step::DeleteCheckpoint, 1);
    host.delete_checkpoint(sprite.id, V2).await.expect("delete");
    assert!(test.disks.state(sprite.id, Some(V2)).is_some());
    let mut test = test;
    test.reopen(TestHost::options()).await.expect("reopen");
    assert_eq!(test.disks.state(sprite.id, Some(V2)), None);
    assert_eq!(ids(&test.host, &sprite).await, [CheckpointId::Asked(3)]);

    test.host.destroy(sprite.id).await.expect("destroy");
    assert_eq!(
        test.disks.state(sprite.id, Some(CheckpointId::Asked(3))),
        None
    );
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_sprite_has_so_many_checkpoints_and_no_more() {
    let test = TestHost::new().await;
    let (host, sprite) = (&test.host, test.create("one").await);
    host.restart(sprite.id).await.expect("restart");
    for _ in 0..MOST_CHECKPOINTS {
        keep(host, &sprite).await;
    }
    let refused = host.checkpoint(sprite.id, String::new()).await;
    assert!(
        matches!(refused, Err(CheckpointError::TooMany { .. })),
        "{refused:?}"
    );
    let refused = host.checkpoint(sprite.id, "x".repeat(1025)).await;
    assert!(
        matches!(refused, Err(CheckpointError::Comment { bytes: 1025 })),
        "{refused:?}"
    );
    host.delete_checkpoint(sprite.id, V1).await.expect("delete");
    keep(host, &sprite).await;

    // Of those made by themselves the newest are kept.
    for _ in 0..8 {
        restore(host, &sprite, V2).await.expect("restore");
    }
    let all = ids(host, &sprite).await;
    let automatic: Vec<_> = all.iter().filter(|id| id.is_automatic()).collect();
    let newest = [8, 7, 6, 5, 4].map(CheckpointId::Automatic);
    assert_eq!(automatic, newest.iter().collect::<Vec<_>>());
    assert_eq!(test.disks.state(sprite.id, Some(AUTO1)), None);
}

/// The disk is as it was or has the checkpoint's state, what it had is never lost, and the sprite runs on.
#[tokio::test]
async fn a_restore_that_fails_costs_nothing() {
    for step in [Step::Checkpoint, Step::Restore] {
        let test = TestHost::new().await;
        let (host, sprite) = (&test.host, test.create("one").await);
        works(host, &sprite).await;
        test.disks.write(sprite.id, "one");
        keep(host, &sprite).await;
        test.disks.write(sprite.id, "two");
        test.disks.fail(step, 1);
        let failed = restore(host, &sprite, V1).await;
        assert!(
            matches!(&failed, Err(RestoreError::Failed { .. })),
            "{step:?}: {failed:?}"
        );
        works(host, &sprite).await;
        assert_eq!(disk(&test, &sprite), "two", "{step:?}");
        let kept = match step {
            Step::Restore => vec![AUTO1, V1],
            _ => vec![V1],
        };
        assert_eq!(ids(host, &sprite).await, kept, "{step:?}");
        restore(host, &sprite, V1).await.expect("restore");
        assert_eq!(disk(&test, &sprite), "one");
    }
}

#[tokio::test]
async fn one_restore_is_under_way_at_a_time() {
    let test = TestHost::new().await;
    let (host, sprite) = (&test.host, test.create("one").await);
    works(host, &sprite).await;
    keep(host, &sprite).await;
    keep(host, &sprite).await;
    keep(host, &sprite).await;
    let mut swapping = test.disks.hold(Step::Restore);
    let restoring = host.restore(sprite.id, V1).await.expect("begin");
    swapping.reached().await;
    let refused = host.restore(sprite.id, V2).await;
    assert!(
        matches!(refused, Err(RestoreError::UnderWay { to: V1 })),
        "{refused:?}"
    );
    let refused = host.delete_checkpoint(sprite.id, V1).await;
    assert!(
        matches!(refused, Err(DeleteCheckpointError::InUse { id: V1 })),
        "{refused:?}"
    );
    drop(swapping);
    restoring.done().await.expect("restore");
    restore(host, &sprite, V2).await.expect("restore");
}

async fn fork(host: &Host, of: &Sprite, from: ForkOf, name: &str) -> Result<Sprite, CreateError> {
    let new = NewSprite {
        from: Some(from),
        ..NewSprite::named(name.parse().expect("a legal name"))
    };
    host.create(&of.org, new).await
}

#[tokio::test]
async fn a_fork_begins_with_the_disk_and_everything_that_goes_with_it() {
    let test = TestHost::new().await;
    let host = &test.host;
    let new = NewSprite {
        environment: [("A".to_owned(), "1".to_owned())].into(),
        resources: ResourceRequest {
            storage_gb: Some(7),
            memory_mib: Some(512),
            ..ResourceRequest::default()
        },
        ..NewSprite::named("source".parse().expect("a legal name"))
    };
    let source = host.create(&test.principal.org, new).await;
    let source = source.expect("create");
    works(host, &source).await;
    let closed = Policy::Network(NetworkPolicy {
        rules: vec![NetworkRule::Include {
            include: Preset::Defaults,
        }],
    });
    host.set_policy(&source, closed).await.expect("close it");
    test.disks.write(source.id, "one");
    keep(host, &source).await;
    test.disks.write(source.id, "in memory");
    let now = ForkOf {
        sprite: source.id,
        checkpoint: None,
    };
    // What runs is written out first, and runs on.
    let mut writing = test.driver.hold(Step::Sync);
    let (owner, of) = (host.clone(), source.clone());
    let forked = tokio::spawn(async move { fork(&owner, &of, now, "fork").await });
    writing.reached().await;
    test.disks.write(source.id, "two");
    drop(writing);
    let forked = forked.await.expect("no panic").expect("fork");
    assert_eq!(disk(&test, &forked), "two");
    assert_ne!(forked.id, source.id);
    // A disk that was run on is nothing for a memory that new disks begin with.
    assert_eq!((source.incarnation.0, forked.incarnation.0), (1, 2));
    assert_eq!(forked.environment, source.environment);
    assert_eq!(forked.resources, source.resources);
    let policies = host.policies(&forked).await.expect("policies");
    assert_eq!(policies.policies.network.egress(), Egress::Closed);
    assert!(ids(host, &forked).await.is_empty());
    let row = host.sprite_by_id(source.id).await.expect("there");
    assert_eq!(row.status, SpriteStatus::Running);

    let then = ForkOf {
        checkpoint: Some(V1),
        ..now
    };
    let old = fork(host, &source, then, "old").await.expect("fork");
    assert_eq!(disk(&test, &old), "one");
    works(host, &old).await;

    // What cannot be is refused, and leaves nothing.
    let nowhere = ForkOf {
        sprite: SpriteId::random(),
        ..now
    };
    let refused = fork(host, &source, nowhere, "x").await;
    assert!(matches!(refused, Err(CreateError::NoSource)), "{refused:?}");
    let never = ForkOf {
        checkpoint: Some(V2),
        ..now
    };
    let refused = fork(host, &source, never, "x").await;
    assert!(
        matches!(refused, Err(CreateError::NoCheckpoint { id: V2 })),
        "{refused:?}"
    );
    let larger = NewSprite {
        from: Some(now),
        resources: ResourceRequest {
            storage_gb: Some(8),
            ..ResourceRequest::default()
        },
        ..NewSprite::named("x".parse().expect("a legal name"))
    };
    let refused = host.create(&source.org, larger).await;
    assert!(
        matches!(
            refused,
            Err(CreateError::ForkSize {
                asked: 8,
                of_source: 7
            })
        ),
        "{refused:?}"
    );
    test.driver.fail(Step::Sync, 1);
    let refused = fork(host, &source, now, "x").await;
    assert!(
        matches!(refused, Err(CreateError::WriteOut(_))),
        "{refused:?}"
    );

    // The source goes, and they stay.
    host.destroy(source.id).await.expect("destroy");
    assert_eq!(disk(&test, &forked), "two");
    works(host, &forked).await;
    until_in_agreement(&test).await;
}

/// Stops the host at a point, once.
async fn killed_at(test: &mut TestHost, point: FaultPoint, work: impl AsyncFnOnce(&Host)) {
    let (armed, blown) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let (asked, told) = (armed.clone(), blown.clone());
    let faults = Faults::asking(move |passed| {
        let stop = passed == point && asked.swap(false, Ordering::Relaxed);
        if stop {
            told.notify_one();
        }
        stop
    });
    let options = HostOptions {
        faults,
        ..TestHost::options()
    };
    test.reopen(options).await.expect("reopen");
    armed.store(true, Ordering::Relaxed);
    let host = test.host.clone();
    let reached = tokio::select! {
        biased;
        () = blown.notified() => true,
        () = work(&host) => false,
    };
    assert!(reached, "{point:?} is never passed");
    drop(host);
    test.reopen(TestHost::options()).await.expect("reopen");
}

#[tokio::test]
async fn a_checkpoint_cut_off_at_any_point_is_whole_or_nothing() {
    for (point, whole) in [
        (FaultPoint::CheckpointAnnounced, false),
        (FaultPoint::CheckpointCloned, false),
        (FaultPoint::CheckpointCommitted, true),
    ] {
        let mut test = TestHost::new().await;
        let sprite = test.create("one").await;
        works(&test.host, &sprite).await;
        test.disks.write(sprite.id, "one");
        let id = sprite.id;
        killed_at(&mut test, point, async |host| {
            host.checkpoint(id, String::new()).await.expect("made");
        })
        .await;
        let kept = if whole { vec![V1] } else { Vec::new() };
        assert_eq!(ids(&test.host, &sprite).await, kept, "{point:?}");
        let file = test.disks.state(sprite.id, Some(V1));
        assert_eq!(file.is_some(), whole, "{point:?}");
        assert_eq!(keep(&test.host, &sprite).await.id, V2, "{point:?}");
        works(&test.host, &sprite).await;
    }
    // So does one that goes.
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await;
    keep(&test.host, &sprite).await;
    keep(&test.host, &sprite).await;
    let id = sprite.id;
    killed_at(&mut test, FaultPoint::CheckpointDropped, async |host| {
        host.delete_checkpoint(id, V1).await.expect("delete");
    })
    .await;
    assert_eq!(ids(&test.host, &sprite).await, [V2]);
    assert_eq!(test.disks.state(sprite.id, Some(V1)), None);
}

#[tokio::test]
async fn a_restore_cut_off_at_any_point_is_gone_on_with() {
    for driver in [DriverKind::Container, DriverKind::Microvm] {
        for point in [
            FaultPoint::RestoreAnnounced,
            FaultPoint::StopShutDown,
            FaultPoint::StopEnded,
            FaultPoint::StopCommitted,
            FaultPoint::RestoreKept,
            FaultPoint::RestoreSwapped,
            FaultPoint::RestoreCommitted,
            FaultPoint::WakeCommitted,
            FaultPoint::WakeReady,
        ] {
            let mut test = TestHost::new().await;
            test.driver.pretend(driver);
            let sprite = test.create("one").await;
            works(&test.host, &sprite).await;
            test.disks.write(sprite.id, "one");
            keep(&test.host, &sprite).await;
            test.disks.write(sprite.id, "two");
            let id = sprite.id;
            killed_at(&mut test, point, async |host| {
                let restoring = host.restore(id, V1).await.expect("begin");
                restoring.done().await.expect("restored");
            })
            .await;
            works(&test.host, &sprite).await;
            eventually(SOON, async || match disk(&test, &sprite).as_str() {
                "one" => ControlFlow::Break(()),
                other => ControlFlow::Continue(format!("{driver} {point:?}: {other}")),
            })
            .await;
            eventually(SOON, async || match ids(&test.host, &sprite).await {
                all if all == [AUTO1, V1] => ControlFlow::Break(()),
                other => ControlFlow::Continue(format!("{driver} {point:?}: {other:?}")),
            })
            .await;
            let kept = test.disks.state(sprite.id, Some(AUTO1));
            assert_eq!(kept.as_deref(), Some("two"), "{driver} {point:?}");
            works(&test.host, &sprite).await;
            until_in_agreement(&test).await;
        }
    }
}
