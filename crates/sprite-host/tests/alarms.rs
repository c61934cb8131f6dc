//! What wakes a sprite that nobody asks for: its alarms, and what comes from outside.

mod support;

use std::ops::ControlFlow;
use std::time::Duration;

use sprite_host::{AlarmError, HostOptions};
use sprite_testkit::{TestHost, eventually};
use sprite_types::{SpriteId, SpriteStatus};
use support::{SOON, until_status};
use time::OffsetDateTime;

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..TestHost::options()
    }
}

fn in_millis(millis: u64) -> OffsetDateTime {
    let at = OffsetDateTime::now_utc() + Duration::from_millis(millis);
    at.replace_microsecond(at.microsecond()).expect("in range")
}

async fn alarms(test: &TestHost, sprite: SpriteId) -> usize {
    test.host.alarms(sprite).await.expect("the catalog").len()
}

async fn until_none(test: &TestHost, sprite: SpriteId) {
    eventually(SOON, async || match alarms(test, sprite).await {
        0 => ControlFlow::Break(()),
        left => ControlFlow::Continue(left),
    })
    .await;
}

#[tokio::test]
async fn an_alarm_wakes_its_sprite_once_and_is_gone() {
    let test = TestHost::with(sleepy()).await;
    let (sprite, other) = (test.create("s").await.id, test.create("other").await.id);
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_status(&test.host, other, SpriteStatus::Warm).await;
    let machine = test.driver.machine_of(sprite).expect("it sleeps in it");
    let slept = machine.freezes();
    let at = in_millis(1_500);
    test.host.put_alarm(sprite, at).await.expect("an alarm");
    test.host.put_alarm(sprite, at).await.expect("the same");
    assert_eq!(alarms(&test, sprite).await, 1);
    assert_eq!(machine.freezes(), slept, "to record it wakes nobody");
    until_none(&test, sprite).await;
    assert!(OffsetDateTime::now_utc() >= at, "not before its time");
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    assert_eq!(machine.freezes(), slept + 1, "woken once");
    let others = test.driver.machine_of(other).expect("it sleeps in it");
    assert_eq!(others.freezes(), 1, "nobody else was woken");
}

/// An earlier moment that comes later is not waited for behind the first.
#[tokio::test]
async fn the_next_alarm_of_all_sprites_rings_next() {
    let test = TestHost::with(sleepy()).await;
    let (late, soon) = (test.create("late").await.id, test.create("soon").await.id);
    let hour = in_millis(3_600_000);
    test.host.put_alarm(late, hour).await.expect("an alarm");
    let at = in_millis(1_500);
    test.host.put_alarm(soon, at).await.expect("an alarm");
    until_none(&test, soon).await;
    assert_eq!(alarms(&test, late).await, 1);
}

#[tokio::test]
async fn what_was_due_while_no_host_ran_rings_at_the_next_start() {
    let mut test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    let at = in_millis(1_500);
    test.host.put_alarm(sprite, at).await.expect("an alarm");
    test.host.close().await;
    while OffsetDateTime::now_utc() < at {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    test.reopen(sleepy()).await.expect("reopen");
    until_none(&test, sprite).await;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
}

#[tokio::test]
async fn alarms_are_bounded_ordered_and_deleted() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("s").await.id;
    let first = in_millis(3_600_000);
    for minute in (0..64_u32).rev() {
        let at = first + Duration::from_secs(60) * minute;
        test.host.put_alarm(sprite, at).await.expect("an alarm");
    }
    let more = test.host.put_alarm(sprite, in_millis(1_800_000)).await;
    assert!(
        matches!(more, Err(AlarmError::TooMany { limit: 64 })),
        "{more:?}"
    );
    let past = test.host.put_alarm(sprite, OffsetDateTime::now_utc()).await;
    assert!(matches!(past, Err(AlarmError::Past)), "{past:?}");
    let all = test.host.alarms(sprite).await.expect("the catalog");
    assert!(all.is_sorted() && all[0] == first, "{all:?}");
    test.host
        .delete_alarms(sprite, Some(first))
        .await
        .expect("one");
    let again = test.host.delete_alarms(sprite, Some(first)).await;
    assert!(matches!(again, Err(AlarmError::NotFound)), "{again:?}");
    assert_eq!(alarms(&test, sprite).await, 63);
    test.host.delete_alarms(sprite, None).await.expect("all");
    assert_eq!(alarms(&test, sprite).await, 0);
}

/// Whatever comes at a time, and whoever cannot be woken at first.
#[tokio::test]
async fn what_comes_from_outside_wakes_a_sprite() {
    let test = TestHost::with(sleepy()).await;
    let (sprite, other) = (test.create("s").await.id, test.create("other").await.id);
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_status(&test.host, other, SpriteStatus::Warm).await;
    let machine = test.driver.machine_of(sprite).expect("it sleeps in it");
    let slept = machine.freezes();
    for _ in 0..10 {
        test.driver.call(sprite);
    }
    eventually(SOON, async || match machine.freezes() > slept {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })
    .await;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    let others = test.driver.machine_of(other).expect("it sleeps in it");
    assert_eq!(others.freezes(), 1, "nobody else was woken");
}
