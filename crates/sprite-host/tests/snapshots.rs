//! Sprites whose memory is written to disk while they sleep.

mod support;

use std::time::Duration;

use sprite_host::{HostOptions, WakeError};
use sprite_testkit::{Step, TestHost};
use sprite_types::{DriverKind, SpriteId, SpriteStatus};
use support::{run, until_in_agreement, until_status};

fn options() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        // Nothing here may depend on it.
        cold_after: Duration::from_millis(1),
        ..TestHost::options()
    }
}

/// A sprite that sleeps, with a session that only its memory knows of.
async fn asleep() -> (TestHost, SpriteId) {
    let test = TestHost::with(options()).await;
    test.driver.pretend(DriverKind::Microvm);
    let sprite = test.create("one").await.id;
    let awake = test.host.awake(sprite).await.expect("awake");
    let mut stream = awake.open(&support::command(&["sleep", "1000"]));
    let started = stream.receiver.recv().await.expect("started");
    assert!(started.is_some());
    drop((awake, stream));
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_in_agreement(&test).await;
    (test, sprite)
}

/// Wakes the sprite and says how many sessions are in its memory.
async fn sessions(test: &TestHost, sprite: SpriteId) -> usize {
    let awake = test.host.awake(sprite).await.expect("awake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    test.driver
        .machine_of(sprite)
        .expect("runs")
        .live_sessions()
}

#[tokio::test]
async fn a_sprite_asleep_has_no_machine_and_no_task_and_wakes_with_its_memory() {
    let (test, sprite) = asleep().await;
    assert!(test.driver.machines().is_empty());
    assert_eq!(test.host.active(), 0);
    assert_eq!(sessions(&test, sprite).await, 1);
}

#[tokio::test]
async fn memory_is_given_up_for_an_upgrade_if_it_is_of_an_older_server() {
    let (test, sprite) = asleep().await;
    assert!(!test.host.upgrade(sprite).await.expect("looks"));
    assert_eq!(test.driver.started(), 1, "it sleeps on");
    test.driver.renew();
    assert!(test.host.upgrade(sprite).await.expect("upgrades"));
    assert_eq!(sessions(&test, sprite).await, 0);
}

#[tokio::test]
async fn memory_outlives_the_server() {
    let (mut test, sprite) = asleep().await;
    test.host.close().await;
    test.reopen(options()).await.expect("reopen");
    assert_eq!(sessions(&test, sprite).await, 1);
    // Awake this time: it is put to sleep, not stopped.
    test.host.close().await;
    test.reopen(options()).await.expect("reopen");
    assert_eq!(sessions(&test, sprite).await, 1);
}

#[tokio::test]
async fn a_load_that_fails_is_tried_again_and_loses_nothing() {
    let (test, sprite) = asleep().await;
    test.driver.fail(Step::Load, 1);
    assert_eq!(sessions(&test, sprite).await, 1);

    let (test, sprite) = asleep().await;
    test.driver.fail(Step::Load, 2);
    let error = test.host.awake(sprite).await.expect_err("two failures");
    assert!(error.to_string().contains("load the snapshot"), "{error}");
    until_in_agreement(&test).await;
    assert_eq!(sessions(&test, sprite).await, 1);
}

#[tokio::test]
async fn memory_that_cannot_be_used_is_told_and_the_disk_boots() {
    let (test, sprite) = asleep().await;
    let directory = sprite_host::Disks::snapshots(&*test.disks, sprite).await;
    let memory = directory.expect("a directory").join("memory");
    std::fs::remove_file(memory).expect("lose the memory");
    assert_eq!(sessions(&test, sprite).await, 0);
    let row = test.host.sprite_by_id(sprite).await.expect("kept");
    let failure = row.failure.expect("told");
    assert!(failure.contains("memory could not be used"), "{failure}");
}

#[tokio::test]
async fn a_sprite_that_cannot_be_put_to_sleep_runs_on() {
    let test = TestHost::with(options()).await;
    test.driver.pretend(DriverKind::Microvm);
    test.driver.fail(Step::Snapshot, 1);
    let sprite = test.create("one").await.id;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    assert_eq!(test.driver.started(), 1);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_machine_that_ends_while_its_memory_is_written_leaves_a_sprite_that_boots() {
    let test = TestHost::with(options()).await;
    test.driver.pretend(DriverKind::Microvm);
    let mut writing = test.driver.hold(Step::Snapshot);
    let sprite = test.create("one").await.id;
    writing.reached().await;
    test.driver.fail(Step::Snapshot, 1);
    test.driver.fail(Step::Thaw, 1);
    test.driver.machine_of(sprite).expect("runs").end("killed");
    drop(writing);
    assert_eq!(sessions(&test, sprite).await, 0);
    assert_eq!(test.driver.started(), 2);
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn only_a_restart_drops_memory() {
    let (test, sprite) = asleep().await;
    test.host.restart(sprite).await.expect("restart");
    assert_eq!(sessions(&test, sprite).await, 0);
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_server_with_another_driver_keeps_the_memory_it_cannot_use() {
    let (mut test, sprite) = asleep().await;
    test.driver.pretend(DriverKind::Container);
    test.reopen(options()).await.expect("reopen");
    let error = test.host.awake(sprite).await.expect_err("another driver");
    assert!(matches!(error, WakeError::Failed { .. }), "{error:?}");
    test.driver.pretend(DriverKind::Microvm);
    test.reopen(options()).await.expect("reopen");
    assert_eq!(sessions(&test, sprite).await, 1);
}
