//! Tasks outlive the host, and hold a sprite through it.

mod support;

use std::time::Duration;

use sprite_host::{HostOptions, IfTaken, PutTaskError, TaskError, WakeError};
use sprite_testkit::TestHost;
use sprite_types::{SpriteId, SpriteStatus, TaskName};
use support::until_status;

const HOUR: Duration = Duration::from_secs(3600);

fn name(text: &str) -> TaskName {
    text.parse().expect("a legal name")
}

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..TestHost::options()
    }
}

async fn put(test: &TestHost, sprite: SpriteId, expire: Duration) {
    let put = test
        .host
        .put_task(sprite, name("a"), expire, IfTaken::Extend);
    put.await.expect("a task");
}

#[tokio::test]
async fn a_task_holds_its_sprite_through_a_restart_of_the_host() {
    let mut test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, HOUR).await;
    for _ in 0..2 {
        test.reopen(sleepy()).await.expect("reopen");
        let tasks = test.host.tasks(sprite).await.expect("the catalog");
        assert_eq!(tasks.len(), 1);
        // Ten idle times.
        tokio::time::sleep(Duration::from_millis(500)).await;
        until_status(&test.host, sprite, SpriteStatus::Running).await;
        let machine = test.driver.machine_of(sprite).expect("it runs");
        assert_eq!(machine.freezes(), 0, "it never slept");
    }
    test.host
        .delete_task(sprite, &name("a"))
        .await
        .expect("delete");
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
}

/// It was stopped in order with the host; its task wants it awake.
#[tokio::test]
async fn a_sprite_with_a_task_is_woken_by_the_next_start() {
    let mut test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    let idle = test.create("idle").await.id;
    put(&test, sprite, HOUR).await;
    test.host.close().await;
    test.reopen(sleepy()).await.expect("reopen");
    until_status(&test.host, sprite, SpriteStatus::Running).await;
    until_status(&test.host, idle, SpriteStatus::Cold).await;
}

#[tokio::test]
async fn a_task_that_expired_while_the_host_was_away_holds_nothing() {
    let mut test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, Duration::from_millis(300)).await;
    test.host.close().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    test.reopen(sleepy()).await.expect("reopen");
    until_status(&test.host, sprite, SpriteStatus::Cold).await;
    assert!(
        test.host
            .tasks(sprite)
            .await
            .expect("the catalog")
            .is_empty()
    );
    let missing = test.host.delete_task(sprite, &name("a")).await;
    assert!(matches!(missing, Err(TaskError::NotFound)), "{missing:?}");
}

#[tokio::test]
async fn tasks_go_with_their_sprite() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    put(&test, sprite, HOUR).await;
    test.host.destroy(sprite).await.expect("destroy");
    assert!(
        test.host
            .tasks(sprite)
            .await
            .expect("the catalog")
            .is_empty()
    );
    let put = test
        .host
        .put_task(sprite, name("a"), HOUR, IfTaken::Refuse)
        .await;
    assert!(
        matches!(put, Err(PutTaskError::Wake(WakeError::NotFound))),
        "{put:?}"
    );
}
