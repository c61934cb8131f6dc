//! Commits that fail, as on a full disk: nothing runs that was not announced, and the next attempt goes on.
//!
//! A trigger in the catalog's file makes a kind of change fail until it is dropped.

mod support;

use std::ops::ControlFlow;
use std::time::Duration;

use sprite_host::{DestroyError, HostOptions, RestartError, WakeError};
use sprite_testkit::{Step, TestHost, eventually};
use sprite_types::{SpriteName, SpriteStatus};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use support::{SOON, run, until_in_agreement, until_status};

fn name() -> SpriteName {
    "one".parse().expect("a legal name")
}

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(10)),
        ..TestHost::options()
    }
}

/// Makes one kind of change fail.
struct Broken(SqliteConnection);

impl Broken {
    async fn when(test: &TestHost, change: &'static str) -> Self {
        let options = SqliteConnectOptions::new().filename(test.catalog_file());
        let mut connection = options.connect().await.expect("open the file");
        let trigger = format!(
            "CREATE TRIGGER broken BEFORE {change} BEGIN SELECT RAISE(ABORT, 'broken'); END"
        );
        sqlx::query(sqlx::AssertSqlSafe(trigger))
            .execute(&mut connection)
            .await
            .expect("break it");
        Self(connection)
    }

    async fn mended(mut self) {
        sqlx::query("DROP TRIGGER broken")
            .execute(&mut self.0)
            .await
            .expect("mend it");
    }
}

const LEAVING: &str = "UPDATE ON sprites WHEN NEW.status = 'running'";
const COLD: &str = "UPDATE ON sprites WHEN NEW.status = 'cold'";
const WARM: &str = "UPDATE ON sprites WHEN NEW.status = 'warm'";
const MARKING: &str = "INSERT ON intents WHEN NEW.operation = 'destroy'";
const DELETING: &str = "DELETE ON sprites";

async fn works(test: &TestHost, sprite: sprite_types::SpriteId) {
    let awake = test.host.awake(sprite).await.expect("awake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    until_in_agreement(test).await;
}

#[tokio::test]
async fn nothing_boots_that_could_not_be_announced() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    test.host.close().await;
    test.reopen(TestHost::options()).await.expect("reopen");
    let broken = Broken::when(&test, LEAVING).await;
    let error = test.host.awake(sprite).await.expect_err("not announced");
    assert!(matches!(error, WakeError::Failed { .. }), "{error}");
    assert!(test.driver.machines().is_empty());
    broken.mended().await;
    works(&test, sprite).await;
}

#[tokio::test]
async fn an_announcement_that_cannot_be_taken_back_is_taken_up() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    test.host.close().await;
    test.reopen(TestHost::options()).await.expect("reopen");
    let broken = Broken::when(&test, COLD).await;
    test.driver.fail(Step::Environment, 1);
    assert!(test.host.awake(sprite).await.is_err());
    assert!(test.driver.machines().is_empty());
    broken.mended().await;
    works(&test, sprite).await;
}

#[tokio::test]
async fn a_machine_whose_end_cannot_be_recorded_is_gone_all_the_same() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    drop(test.host.awake(sprite).await.expect("awake"));
    let broken = Broken::when(&test, COLD).await;
    let error = test.host.restart(sprite).await.expect_err("not recorded");
    assert!(matches!(error, RestartError::Failed { .. }), "{error}");
    assert!(test.driver.machines().is_empty());
    broken.mended().await;
    works(&test, sprite).await;
}

/// Nobody asks for the sprite again, and it is told as it is all the same.
#[tokio::test]
async fn an_end_that_could_not_be_recorded_is_recorded_later() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    drop(test.host.awake(sprite).await.expect("awake"));
    let broken = Broken::when(&test, COLD).await;
    test.driver.machine_of(sprite).expect("runs").end("killed");
    eventually(SOON, async || match test.driver.machines().len() {
        0 => ControlFlow::Break(()),
        left => ControlFlow::Continue(left),
    })
    .await;
    let told = test.host.sprite_by_id(sprite).await.expect("a row").status;
    assert_eq!(told, SpriteStatus::Running);
    broken.mended().await;
    until_status(&test.host, sprite, SpriteStatus::Cold).await;
    works(&test, sprite).await;
}

#[tokio::test]
async fn a_host_that_starts_again_finds_the_truth() {
    let mut test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    drop(test.host.awake(sprite).await.expect("awake"));
    let broken = Broken::when(&test, COLD).await;
    test.driver.machine_of(sprite).expect("runs").end("killed");
    eventually(SOON, async || match test.driver.machines().len() {
        0 => ControlFlow::Break(()),
        left => ControlFlow::Continue(left),
    })
    .await;
    broken.mended().await;
    test.reopen(TestHost::options()).await.expect("reopen");
    until_in_agreement(&test).await;
    works(&test, sprite).await;
}

#[tokio::test]
async fn a_sleep_that_cannot_be_recorded_does_not_happen() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await.id;
    let awake = test.host.awake(sprite).await.expect("awake");
    let broken = Broken::when(&test, WARM).await;
    drop(awake);
    // It is tried again and again.
    let machine = test.driver.machine_of(sprite).expect("runs");
    eventually(SOON, async || match machine.freezes() {
        freezes if freezes >= 2 => ControlFlow::Break(()),
        freezes => ControlFlow::Continue(freezes),
    })
    .await;
    works(&test, sprite).await;
    broken.mended().await;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn nothing_thaws_that_could_not_be_announced() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await.id;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    let broken = Broken::when(&test, LEAVING).await;
    let error = test.host.awake(sprite).await.expect_err("not announced");
    assert!(matches!(error, WakeError::Failed { .. }), "{error}");
    assert!(test.driver.machine_of(sprite).expect("kept").is_frozen());
    broken.mended().await;
    works(&test, sprite).await;
}

#[tokio::test]
async fn a_thaw_that_fails_and_cannot_be_taken_back_is_tried_again() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await.id;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    let broken = Broken::when(&test, WARM).await;
    test.driver.fail(Step::Thaw, 1);
    assert!(test.host.awake(sprite).await.is_err());
    broken.mended().await;
    works(&test, sprite).await;
    assert_eq!(test.driver.started(), 1);
}

#[tokio::test]
async fn a_destroy_that_cannot_be_announced_changes_nothing() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    let broken = Broken::when(&test, MARKING).await;
    let error = test.host.destroy(sprite).await.expect_err("not announced");
    assert!(matches!(error, DestroyError::Step { .. }), "{error}");
    works(&test, sprite).await;
    broken.mended().await;
    let broken = Broken::when(&test, DELETING).await;
    let error = test.host.destroy(sprite).await.expect_err("not deleted");
    assert!(matches!(error, DestroyError::Step { .. }), "{error}");
    broken.mended().await;
    // It goes on by itself.
    eventually(SOON, async || match test.host.sprite_by_id(sprite).await {
        Err(_) => ControlFlow::Break(()),
        Ok(sprite) => ControlFlow::Continue(sprite.status),
    })
    .await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_create_that_cannot_be_completed_is_undone() {
    let test = TestHost::new().await;
    for change in [LEAVING, "INSERT ON sprites", "INSERT ON intents"] {
        let broken = Broken::when(&test, change).await;
        let new = sprite_host::NewSprite::named(name());
        test.host
            .create(&test.principal.org, new)
            .await
            .expect_err("not recorded");
        until_in_agreement(&test).await;
        broken.mended().await;
    }
    let sprite = test.create("one").await.id;
    works(&test, sprite).await;
}
