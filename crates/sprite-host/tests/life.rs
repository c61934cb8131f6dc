//! What the host promises while nothing crashes.

mod support;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use sprite_agent_api::message::{Reply, Request};
use sprite_agent_api::{Frame, FrameKind};
use sprite_host::{
    AuthError, Catalog, Change, CheckStatus, CreateError, DestroyError, EnvironmentError,
    HostOptions, ListQuery, LookupError, NewSprite, ResourceRequest, RestartError, Scope, UrlAuth,
    WakeError, WatchEvent, Who,
};
use sprite_testkit::{Step, TestHost, eventually};
use sprite_types::{Label, SpriteId, SpriteName, SpriteStatus, TokenId};
use support::{SOON, all, command, run, until_in_agreement, until_status};

fn name(text: &str) -> SpriteName {
    text.parse().expect("a legal name")
}

fn sleepy() -> HostOptions {
    HostOptions {
        idle_timeout: Some(Duration::from_millis(20)),
        ..TestHost::options()
    }
}

#[tokio::test]
async fn a_new_sprite_boots_by_itself_and_runs_commands() {
    let test = TestHost::new().await;
    let mut new = NewSprite::named(name("one"));
    new.environment = BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]);
    new.resources = ResourceRequest {
        storage_gb: Some(7),
        ..ResourceRequest::default()
    };
    let sprite = test
        .host
        .create(&test.principal.org, new)
        .await
        .expect("create");
    assert_eq!(test.disks.made_from(sprite.id).as_deref(), Some("base 7"));
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    let script = ["sh", "-c", "hostname; echo $COLOUR; echo oops >&2; exit 3"];
    assert_eq!(
        run(&awake, &script).await,
        Some((3, "one\ngreen\noops\n".to_owned()))
    );
    assert_eq!(test.driver.started(), 1);
    assert_eq!(
        test.host
            .sprite_by_id(sprite.id)
            .await
            .expect("there")
            .machine,
        Some(awake.machine())
    );
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn bad_sprites_are_refused_and_nothing_is_left() {
    let test = TestHost::new().await;
    let org = &test.principal.org;
    let create = async |change: &dyn Fn(&mut NewSprite)| {
        let mut new = NewSprite::named(name("one"));
        change(&mut new);
        test.host.create(org, new).await.expect_err("bad")
    };
    let labels = |n: usize| -> Vec<Label> {
        (0..n)
            .map(|i| format!("l{i}").parse().expect("a label"))
            .collect()
    };
    let error = create(&|new| new.labels = labels(Label::MOST + 1)).await;
    assert!(
        matches!(error, CreateError::Labels { count: 33 }),
        "{error}"
    );
    let error = create(&|new| new.resources.cpus = Some(65)).await;
    assert!(matches!(error, CreateError::Resources(_)), "{error}");
    for (key, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y")] {
        let error =
            create(&|new| drop(new.environment.insert(key.to_owned(), value.to_owned()))).await;
        assert!(matches!(error, CreateError::Environment(_)), "{error}");
    }
    let error = create(&|new| {
        drop(
            new.environment
                .insert("A".to_owned(), "x".repeat(256 << 10)),
        )
    })
    .await;
    assert!(
        matches!(
            error,
            CreateError::Environment(EnvironmentError::TooLong { .. })
        ),
        "{error}"
    );
    assert!(all(&test.host, org).await.is_empty());
    assert_eq!(test.driver.started(), 0);
    // At the limit all is well.
    let mut new = NewSprite::named(name("one"));
    new.labels = labels(Label::MOST);
    test.host.create(org, new).await.expect("create");
}

#[tokio::test]
async fn a_create_that_fails_frees_the_name() {
    let test = TestHost::new().await;
    let org = &test.principal.org;
    test.disks.fail(Step::CreateDiskFull, 1);
    let error = test
        .host
        .create(org, NewSprite::named(name("one")))
        .await
        .expect_err("full");
    assert!(matches!(error, CreateError::NoSpace(_)), "{error}");
    test.disks.fail(Step::CreateDisk, 1);
    let error = test
        .host
        .create(org, NewSprite::named(name("one")))
        .await
        .expect_err("broken");
    assert!(matches!(error, CreateError::Disk(_)), "{error}");
    test.create("one").await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn limits_on_sprites_hold() {
    let options = HostOptions {
        max_sprites: 1,
        ..TestHost::options()
    };
    let test = TestHost::with(options).await;
    test.create("one").await;
    let error = test
        .host
        .create(&test.principal.org, NewSprite::named(name("two")))
        .await;
    assert!(matches!(error, Err(CreateError::TooMany { limit: 1 })));
    let again = test
        .host
        .create(&test.principal.org, NewSprite::named(name("one")))
        .await;
    assert!(matches!(again, Err(CreateError::NameTaken { .. })));
}

#[tokio::test]
async fn an_idle_sprite_sleeps_and_wakes_as_it_was() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await;
    let warm = until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    assert!(warm.last_warming_at.is_some());
    let machine = test.driver.machine_of(sprite.id).expect("kept");
    assert!(machine.is_frozen());
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(awake.machine(), machine.identity().machine);
    assert!(!machine.is_frozen());
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    assert_eq!(test.driver.started(), 1);
    // Every leaving of rest is a run of its own.
    let now = test.host.sprite_by_id(sprite.id).await.expect("there");
    assert_eq!(now.incarnation, warm.incarnation.next());
    drop(awake);
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
}

#[tokio::test]
async fn a_hold_keeps_a_sprite_awake() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await;
    let first = test.host.awake(sprite.id).await.expect("awake");
    let second = test.host.awake(sprite.id).await.expect("awake");
    drop(first);
    // Ten idle timeouts of its own clock.
    assert_eq!(
        run(&second, &["sleep", "0.2"]).await,
        Some((0, String::new()))
    );
    let now = test.host.sprite_by_id(sprite.id).await.expect("there");
    assert_eq!(
        (now.status, now.last_warming_at),
        (SpriteStatus::Running, None)
    );
    drop(second);
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
}

#[tokio::test]
async fn warm_becomes_cold_and_boots_again() {
    let options = HostOptions {
        cold_after: Duration::from_millis(20),
        ..sleepy()
    };
    let test = TestHost::with(options).await;
    let sprite = test.create("one").await;
    until_status(&test.host, sprite.id, SpriteStatus::Cold).await;
    until_in_agreement(&test).await;
    // A cold sprite has no task.
    eventually(SOON, async || match test.host.active() {
        0 => ControlFlow::Break(()),
        active => ControlFlow::Continue(active),
    })
    .await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
    assert_eq!(test.driver.started(), 2);
}

/// Those that have slept for the longest first; whoever runs is left alone.
#[tokio::test]
async fn sprites_that_sleep_give_their_memory_up_when_it_is_short() {
    let test = TestHost::with(sleepy()).await;
    let mut sleepers = Vec::new();
    for name in 0..10 {
        let sprite = test.create(&format!("s{name}")).await.id;
        until_status(&test.host, sprite, SpriteStatus::Warm).await;
        sleepers.push(sprite);
    }
    let awake = test.host.awake(sleepers[0]).await.expect("awake");
    test.driver.press();
    for sprite in &sleepers[1..9] {
        until_status(&test.host, *sprite, SpriteStatus::Cold).await;
    }
    for (sprite, status) in [
        (sleepers[0], SpriteStatus::Running),
        (sleepers[9], SpriteStatus::Warm),
    ] {
        let now = test.host.sprite_by_id(sprite).await.expect("there");
        assert_eq!(now.status, status);
    }
    test.driver.press();
    until_status(&test.host, sleepers[9], SpriteStatus::Cold).await;
    let now = test.host.sprite_by_id(sleepers[0]).await.expect("there");
    assert_eq!(now.status, SpriteStatus::Running);
    drop(awake);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_sleep_that_fails_leaves_the_sprite_running() {
    let test = TestHost::with(sleepy()).await;
    test.driver.fail(Step::Sync, 1);
    test.driver.fail(Step::Freeze, 1);
    let sprite = test.create("one").await;
    let warm = until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    assert_eq!(warm.failure, None);
    test.driver.fail(Step::Thaw, 1);
    let error = test.host.awake(sprite.id).await.expect_err("thaw fails");
    assert!(matches!(error, WakeError::Failed { .. }), "{error}");
    test.host
        .awake(sprite.id)
        .await
        .expect("the next one is fine");
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_machine_that_dies_ends_its_streams_and_the_next_wake_boots() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    let mut stream = awake.open(&command(&["sleep", "1000"]));
    let started = stream
        .receiver
        .recv()
        .await
        .expect("started")
        .expect("started");
    assert!(matches!(started.message(), Ok(Reply::Started(_))));
    test.driver
        .machine_of(sprite.id)
        .expect("runs")
        .end("killed");
    // Either nothing more comes, or the stream says that it broke; never an exit of zero.
    while let Ok(Some(frame)) = stream.receiver.recv().await {
        if let Ok(Reply::Exited { code }) = frame.message::<Reply>() {
            assert_ne!(code, 0);
        }
    }
    until_status(&test.host, sprite.id, SpriteStatus::Cold).await;
    until_in_agreement(&test).await;
    let next = test.host.awake(sprite.id).await.expect("awake");
    assert_ne!(next.machine(), awake.machine());
    assert_eq!(run(&next, &["true"]).await, Some((0, String::new())));
}

#[tokio::test]
async fn a_boot_that_fails_is_told_and_tried_again() {
    let test = TestHost::new().await;
    for step in [Step::Start, Step::Environment] {
        test.driver.fail(step, 2);
        let sprite = test.create(&format!("{step:?}").to_lowercase()).await;
        // The boot after the create took the first failure, this one takes the second, or both the same.
        let error = eventually(SOON, async || match test.host.awake(sprite.id).await {
            Err(error) => ControlFlow::Break(error),
            Ok(awake) => ControlFlow::Continue(awake.machine()),
        })
        .await;
        assert!(matches!(error, WakeError::Failed { .. }), "{error}");
        let awake = eventually(SOON, async || match test.host.awake(sprite.id).await {
            Ok(awake) => ControlFlow::Break(awake),
            Err(error) => ControlFlow::Continue(error),
        })
        .await;
        assert_eq!(run(&awake, &["true"]).await, Some((0, String::new())));
        assert_eq!(
            test.host
                .sprite_by_id(sprite.id)
                .await
                .expect("there")
                .failure,
            None
        );
    }
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_machine_that_cannot_be_removed_bars_another_until_it_can() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    test.driver.fail(Step::Destroy, 1);
    test.driver
        .machine_of(sprite.id)
        .expect("runs")
        .end("killed");
    drop(awake);
    let check = eventually(SOON, async || {
        match test.host.check(sprite.id).await.expect("check") {
            check if check.status == CheckStatus::Error => ControlFlow::Break(check),
            check => ControlFlow::Continue(check),
        }
    })
    .await;
    assert!(check.reason.contains("end the machine"), "{}", check.reason);
    let error = test.host.awake(sprite.id).await.expect_err("failed");
    assert!(matches!(error, WakeError::Failed { .. }), "{error}");
    assert_eq!(test.driver.started(), 1);
    test.host.restart(sprite.id).await.expect("restart");
    test.host.awake(sprite.id).await.expect("awake");
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_start_that_never_ends_is_given_up_and_waited_for() {
    let options = HostOptions {
        boot_within: Duration::from_millis(50),
        stop_within: Duration::from_millis(50),
        ..TestHost::options()
    };
    let test = TestHost::with(options).await;
    let held = test.driver.hold(Step::Start);
    let sprite = test.create("one").await;
    let error = test.host.awake(sprite.id).await.expect_err("too slow");
    assert!(matches!(error, WakeError::Failed { .. }), "{error}");
    // As long as the start has not ended, no other is begun.
    assert!(test.host.restart(sprite.id).await.is_err());
    assert_eq!(test.driver.started(), 1);
    drop(held);
    eventually(SOON, async || match test.host.restart(sprite.id).await {
        Ok(machine) => ControlFlow::Break(machine),
        Err(error) => ControlFlow::Continue(error),
    })
    .await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_slow_wake_is_told_as_starting() {
    let options = HostOptions {
        wake_within: Duration::from_millis(20),
        ..TestHost::options()
    };
    let test = TestHost::with(options).await;
    let held = test.driver.hold(Step::Environment);
    let sprite = test.create("one").await;
    let error = test.host.awake(sprite.id).await.expect_err("slow");
    assert!(matches!(error, WakeError::Starting { .. }), "{error}");
    drop(held);
    eventually(SOON, async || match test.host.awake(sprite.id).await {
        Ok(awake) => ControlFlow::Break(awake),
        Err(error) => ControlFlow::Continue(error),
    })
    .await;
    assert_eq!(test.driver.started(), 1);
}

#[tokio::test]
async fn restart_gives_another_machine() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let before = test.host.awake(sprite.id).await.expect("awake").machine();
    let after = test.host.restart(sprite.id).await.expect("restart");
    assert_ne!(before, after);
    // An agent that does not shut down is ended hard.
    test.driver.fail(Step::Shutdown, 1);
    assert_ne!(test.host.restart(sprite.id).await.expect("restart"), after);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn an_upgrade_restarts_what_an_older_server_started_and_nothing_else() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await.id;
    let before = test.host.awake(sprite).await.expect("awake").machine();
    assert!(!test.host.upgrade(sprite).await.expect("looks"));
    test.driver.renew();
    assert!(test.host.upgrade(sprite).await.expect("upgrades"));
    let after = test.host.awake(sprite).await.expect("awake").machine();
    assert_ne!(before, after);
    assert!(!test.host.upgrade(sprite).await.expect("looks"));
    assert_eq!(test.driver.started(), 2);
    test.host.destroy(sprite).await.expect("destroy");
    let gone = test.host.upgrade(sprite).await;
    assert!(matches!(gone, Err(RestartError::NotFound)));
}

#[tokio::test]
async fn a_destroyed_sprite_is_gone_in_every_state() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("running").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    test.host.destroy(sprite.id).await.expect("destroy");
    assert_eq!(run(&awake, &["true"]).await, None);
    let warm = test.create("warm").await;
    until_status(&test.host, warm.id, SpriteStatus::Warm).await;
    test.host.destroy(warm.id).await.expect("destroy");
    for id in [sprite.id, warm.id] {
        assert!(matches!(
            test.host.sprite_by_id(id).await,
            Err(LookupError::NotFound)
        ));
        assert!(matches!(
            test.host.awake(id).await,
            Err(WakeError::NotFound)
        ));
    }
    let again = test.host.destroy(warm.id).await;
    assert!(matches!(again, Err(DestroyError::NotFound)));
    // The name is free, the id is not.
    assert_ne!(test.create("warm").await.id, warm.id);
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn a_destroy_goes_on_until_it_is_done() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    test.disks.fail(Step::DeleteDisk, 4);
    let error = test
        .host
        .destroy(sprite.id)
        .await
        .expect_err("keeps failing");
    assert!(matches!(error, DestroyError::Step { .. }), "{error}");
    assert!(matches!(
        test.host.awake(sprite.id).await,
        Err(WakeError::NotFound)
    ));
    eventually(SOON, async || {
        match test.host.sprite_by_id(sprite.id).await {
            Err(LookupError::NotFound) => ControlFlow::Break(()),
            other => ControlFlow::Continue(other),
        }
    })
    .await;
    until_in_agreement(&test).await;
}

#[tokio::test]
async fn check_tells_how_a_sprite_is_without_waking_it() {
    let test = TestHost::with(sleepy()).await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    let check = test.host.check(sprite.id).await.expect("check");
    assert_eq!(check.status, CheckStatus::Healthy, "{}", check.reason);
    drop(awake);
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    let check = test.host.check(sprite.id).await.expect("check");
    assert_eq!(check.status, CheckStatus::Hibernated, "{}", check.reason);
    assert!(test.driver.machine_of(sprite.id).expect("kept").is_frozen());
    assert!(test.host.check(SpriteId::random()).await.is_err());
}

#[tokio::test]
async fn watchers_see_every_change_or_are_told_to_list_again() {
    let test = TestHost::with(sleepy()).await;
    let org = test.principal.org.clone();
    let mut watch = test.host.watch(&org);
    let sprite = test.create("one").await;
    until_status(&test.host, sprite.id, SpriteStatus::Warm).await;
    test.host.destroy(sprite.id).await.expect("destroy");
    let mut seen = Vec::new();
    loop {
        match watch.next().await.expect("open") {
            WatchEvent::Changed { sprite, .. } => seen.push(sprite.status),
            WatchEvent::Gone { sprite: gone, .. } => break assert_eq!(gone.id, sprite.id),
            WatchEvent::Missed => panic!("nobody was slow"),
        }
    }
    assert_eq!(
        seen,
        [
            SpriteStatus::Cold,
            SpriteStatus::Running,
            SpriteStatus::Warm
        ]
    );

    // A reader that does not read is told, and costs no more than what is kept.
    let two = test.create("two").await.id;
    let change = Change {
        url_auth: Some(UrlAuth::Public),
        ..Change::default()
    };
    for _ in 0..600 {
        test.host.update(two, change.clone()).await.expect("update");
    }
    assert!(matches!(watch.next().await, Some(WatchEvent::Missed)));
    test.host.close().await;
    while watch.next().await.is_some() {}
}

#[tokio::test]
async fn closing_stops_every_machine_in_order() {
    let test = TestHost::with(sleepy()).await;
    let held = test.create("held").await;
    let warm = test.create("warm").await;
    let awake = test.host.awake(held.id).await.expect("awake");
    until_status(&test.host, warm.id, SpriteStatus::Warm).await;
    test.host.close().await;
    assert!(test.driver.machines().is_empty());
    for sprite in all(&test.host, &test.principal.org).await {
        assert_eq!(sprite.status, SpriteStatus::Cold);
    }
    assert_eq!(run(&awake, &["true"]).await, None);
    assert!(matches!(
        test.host.awake(held.id).await,
        Err(WakeError::Closing)
    ));
    let late = test
        .host
        .create(&test.principal.org, NewSprite::named(name("late")))
        .await;
    assert!(matches!(late, Err(CreateError::Closing)));
    test.host.close().await;
}

fn test_token(test: &TestHost) -> &TokenId {
    match &test.principal.who {
        Who::Token(token) => token,
        Who::Sprite(sprite) => panic!("sprite {sprite} has no token"),
    }
}

#[tokio::test]
async fn tokens_open_their_organisation_and_no_other() {
    let test = TestHost::new().await;
    let other = test
        .host
        .create_token(&"other".parse().expect("slug"), "")
        .await
        .expect("token");
    let theirs = test.host.authenticate(&other).await.expect("theirs");
    assert_ne!(theirs.org, test.principal.org);
    let mixed = test.token.replace("personal/", "other/");
    let (start, secret) = test.token.rsplit_once('/').expect("four parts");
    let wrong = format!(
        "{start}/{}",
        secret.replace(|c: char| c.is_ascii_digit(), "a")
    );
    for bad in [mixed.as_str(), wrong.as_str()] {
        assert!(
            matches!(test.host.authenticate(bad).await, Err(AuthError::Unknown)),
            "{bad}"
        );
    }
    for bad in [
        "",
        "a/b/c",
        &format!("{}/x", test.token),
        &"x".repeat(10_000),
    ] {
        assert!(
            matches!(test.host.authenticate(bad).await, Err(AuthError::Malformed)),
            "{bad}"
        );
    }
    let (ours, token) = (&test.principal.org, test_token(&test));
    assert!(
        !test
            .host
            .revoke_token(&theirs.org, token)
            .await
            .expect("revoke")
    );
    assert!(test.host.authenticate(&test.token).await.is_ok());
    assert!(test.host.revoke_token(ours, token).await.expect("revoke"));
    assert!(matches!(
        test.host.authenticate(&test.token).await,
        Err(AuthError::Unknown)
    ));
}

#[tokio::test]
async fn a_token_that_another_process_revokes_is_refused_at_once() {
    let test = TestHost::new().await;
    assert!(test.host.authenticate(&test.token).await.is_ok());
    let other = Catalog::open(&test.catalog_file()).await.expect("open");
    let (org, token) = (&test.principal.org, test_token(&test));
    let at = time::OffsetDateTime::UNIX_EPOCH;
    assert!(other.revoke_token(org, token, at).await.expect("revoke"));
    let refused = test.host.authenticate(&test.token).await;
    assert!(matches!(refused, Err(AuthError::Unknown)), "{refused:?}");
}

#[tokio::test]
async fn lists_page_and_count() {
    let test = TestHost::new().await;
    let org = &test.principal.org;
    for name in ["b", "a-2", "a-1"] {
        test.create(name).await;
    }
    let query = |prefix: Option<&str>, after: Option<&str>, limit| ListQuery {
        scope: Scope::Organisation,
        prefix: prefix.map(str::to_owned),
        after: after.map(str::to_owned),
        limit,
    };
    let page = test
        .host
        .list(org, query(Some("a"), None, 1))
        .await
        .expect("list");
    assert_eq!(
        (page.sprites[0].name.as_str(), page.has_more),
        ("a-1", true)
    );
    let page = test
        .host
        .list(org, query(Some("a"), Some("a-1"), 1))
        .await
        .expect("list");
    assert_eq!(
        (page.sprites[0].name.as_str(), page.has_more),
        ("a-2", false)
    );
    let organisation = test.host.organisation(org).await.expect("there");
    assert_eq!(organisation.counts.total(), 3);
    assert_eq!(organisation.slug.as_str(), "personal");
}

#[tokio::test]
async fn streams_go_on_where_they_were_when_a_transport_breaks() {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    let machine = test.driver.machine_of(sprite.id).expect("runs");
    let Request::Exec(mut spec) = command(&["cat"]) else {
        panic!("an exec")
    };
    spec.stdin = true;
    let mut stream = awake.open(&Request::Exec(spec));
    let mut seen = String::new();
    let mut sent = String::new();
    for line in 0..50 {
        let text = format!("line {line}\n");
        sent.push_str(&text);
        stream
            .sender
            .send(Frame::data(FrameKind::Stdin, text.into()))
            .await
            .expect("send");
        if line % 5 == 0 {
            machine.cut_transports();
        }
        while seen.len() < sent.len() {
            let frame = stream
                .receiver
                .recv()
                .await
                .expect("goes on")
                .expect("goes on");
            if frame.kind == FrameKind::Stdout {
                seen.push_str(&String::from_utf8_lossy(&frame.payload));
            }
        }
    }
    assert_eq!(seen, sent);
}
