//! What keeps a sprite awake, and what lives on while it sleeps (behaviour reference §4.1, §11.4).

mod support;

use std::ops::ControlFlow;
use std::time::Duration;

use sprite_agent_api::link::Stream;
use sprite_agent_api::message::{ExecSpec, Reply, Request};
use sprite_agent_api::{Frame, FrameKind};
use sprite_host::{Awake, Change, Connections, Hold, HostOptions, IdleTimeout, SleepError};
use sprite_testkit::{TestHost, eventually};
use sprite_types::{DriverKind, SpriteId, SpriteStatus};
use support::{SOON, command, run, until_in_agreement, until_status};
use tokio::time::timeout;

const KINDS: [DriverKind; 2] = [DriverKind::Container, DriverKind::Microvm];

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn host(kind: DriverKind, idle_timeout: Option<Duration>) -> TestHost {
    let test = TestHost::with(HostOptions {
        idle_timeout,
        cold_after: Duration::from_secs(3600),
        ..TestHost::options()
    })
    .await;
    test.driver.pretend(kind);
    test
}

/// A sprite with a command that somebody is attached to.
async fn attached(test: &TestHost, hold: Hold) -> (SpriteId, Awake, Stream) {
    let sprite = test.create("one").await.id;
    let mut awake = test.host.awake(sprite).await.expect("awake");
    let Request::Exec(cat) = command(&["cat"]) else {
        unreachable!("a command is an exec")
    };
    let mut stream = awake.open(&Request::Exec(ExecSpec { stdin: true, ..cat }));
    let started = stream.receiver.recv().await.expect("started");
    let started: Reply = started.expect("a frame").message().expect("a reply");
    assert!(matches!(started, Reply::Started(_)));
    awake.lasts(hold);
    (sprite, awake, stream)
}

/// Sends a line, and waits until it comes back.
async fn echo(stream: &mut Stream, line: &str) {
    let frame = Frame::data(FrameKind::Stdin, line.as_bytes().to_vec().into());
    stream.sender.send(frame).await.expect("sent");
    let mut back = Vec::new();
    while back.len() < line.len() {
        let frame = timeout(SOON, stream.receiver.recv()).await;
        let frame = frame.expect("in time").expect("no error").expect("a frame");
        back.extend_from_slice(&frame.payload);
    }
    assert_eq!(back, line.as_bytes());
}

async fn status(test: &TestHost, sprite: SpriteId) -> SpriteStatus {
    test.host.sprite_by_id(sprite).await.expect("a row").status
}

#[tokio::test]
async fn connections_live_over_sleeps_and_what_is_sent_wakes() {
    for kind in KINDS {
        for hold in [Hold::Session, Hold::Connection, Hold::Presence] {
            let test = host(kind, None).await;
            let (sprite, _awake, mut stream) = attached(&test, hold).await;
            for round in 0..5 {
                test.host.sleep(sprite, PATIENCE).await.expect("asleep");
                assert_eq!(status(&test, sprite).await, SpriteStatus::Warm);
                echo(&mut stream, &format!("line {round} of {kind} {hold:?}\n")).await;
                until_status(&test.host, sprite, SpriteStatus::Running).await;
            }
            until_in_agreement(&test).await;
        }
    }
}

/// Output that was under way when the sprite fell asleep is not lost, and is there when somebody else wakes it.
#[tokio::test]
async fn others_wake_it_and_streams_go_on() {
    for kind in KINDS {
        let test = host(kind, None).await;
        let (sprite, _awake, mut stream) = attached(&test, Hold::Presence).await;
        test.host.sleep(sprite, PATIENCE).await.expect("asleep");
        let call = test.host.awake(sprite).await.expect("awake");
        assert_eq!(
            run(&call, &["echo", "there"]).await,
            Some((0, "there\n".to_owned()))
        );
        echo(&mut stream, "still here\n").await;
        until_in_agreement(&test).await;
    }
}

#[tokio::test]
async fn presence_lets_it_sleep_and_traffic_does_not() {
    for kind in KINDS {
        let test = host(kind, Some(Duration::from_millis(300))).await;
        let (sprite, awake, mut stream) = attached(&test, Hold::Presence).await;
        // As long as something goes to and fro more often than that, it is not idle.
        let begun = tokio::time::Instant::now();
        let machine = test.driver.machine_of(sprite).expect("runs");
        while begun.elapsed() < Duration::from_secs(2) {
            echo(&mut stream, "tick\n").await;
        }
        assert_eq!(machine.freezes(), 0, "{kind}");
        drop(machine);
        timeout(SOON, awake.until_asleep())
            .await
            .expect("it is idle");
        until_status(&test.host, sprite, SpriteStatus::Warm).await;
        echo(&mut stream, "back\n").await;
        until_status(&test.host, sprite, SpriteStatus::Warm).await;
    }
}

#[tokio::test]
async fn sessions_and_connections_hold() {
    for hold in [Hold::Session, Hold::Connection] {
        let test = host(DriverKind::Container, Some(Duration::from_millis(20))).await;
        let (sprite, awake, stream) = attached(&test, hold).await;
        let asleep = timeout(Duration::from_millis(500), awake.until_asleep()).await;
        assert!(asleep.is_err(), "{hold:?} does not hold");
        drop((awake, stream));
        until_status(&test.host, sprite, SpriteStatus::Warm).await;
    }
}

#[tokio::test]
async fn what_is_in_use_inside_keeps_it_awake() {
    let test = host(DriverKind::Microvm, Some(Duration::from_millis(20))).await;
    let (sprite, awake, mut stream) = attached(&test, Hold::Connection).await;
    let machine = test.driver.machine_of(sprite).expect("runs");
    machine.set_in_use(Some("make"));
    let mut awake = awake;
    awake.lasts(Hold::Presence);
    let asleep = timeout(Duration::from_millis(500), awake.until_asleep()).await;
    assert!(asleep.is_err(), "something is in use");
    // Whoever asks for sleep gets it all the same.
    test.host.sleep(sprite, PATIENCE).await.expect("asleep");
    echo(&mut stream, "awake\n").await;
    test.driver
        .machine_of(sprite)
        .expect("runs")
        .set_in_use(None);
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
}

#[tokio::test]
async fn a_request_to_sleep_waits_for_calls_and_not_for_ever() {
    let test = host(DriverKind::Microvm, None).await;
    let sprite = test.create("one").await.id;
    let call = test.host.awake(sprite).await.expect("awake");
    let refused = test.host.sleep(sprite, Duration::from_millis(50)).await;
    assert!(matches!(refused, Err(SleepError::Held)), "{refused:?}");
    let (slept, ()) = tokio::join!(test.host.sleep(sprite, PATIENCE), async { drop(call) });
    slept.expect("asleep");
    assert_eq!(status(&test, sprite).await, SpriteStatus::Warm);
    test.host.sleep(sprite, PATIENCE).await.expect("still");

    test.host.restart(sprite).await.expect("restart");
    let name = "build".parse().expect("a name");
    let if_taken = sprite_host::IfTaken::Extend;
    let hour = Duration::from_secs(3600);
    let task = test.host.put_task(sprite, name, hour, if_taken).await;
    task.expect("a task");
    let refused = test.host.sleep(sprite, PATIENCE).await;
    assert!(matches!(refused, Err(SleepError::Held)), "{refused:?}");
}

/// A stream belongs to the memory in which it was opened: it never does anything in another.
#[tokio::test]
async fn streams_end_with_their_memory() {
    for kind in KINDS {
        let test = host(kind, None).await;
        let (sprite, _awake, mut stream) = attached(&test, Hold::Connection).await;
        test.host.sleep(sprite, PATIENCE).await.expect("asleep");
        test.host.restart(sprite).await.expect("restart");
        let ended = timeout(SOON, async {
            while let Ok(Some(frame)) = stream.receiver.recv().await {
                let exited = frame.message::<Reply>();
                assert!(
                    !matches!(exited, Ok(Reply::Exited { code: 0 })),
                    "a lost command did not succeed"
                );
            }
        });
        ended.await.expect("it ends");
        let machine = test.driver.machine_of(sprite).expect("runs");
        assert_eq!(machine.live_sessions(), 0, "nothing was begun again");
    }
}

/// Clients that are gone while the sprite sleeps are forgotten, and cost nothing.
#[tokio::test]
async fn who_leaves_while_it_sleeps_leaves_nothing() {
    let test = host(DriverKind::Microvm, None).await;
    let (sprite, awake, stream) = attached(&test, Hold::Connection).await;
    test.host.sleep(sprite, PATIENCE).await.expect("asleep");
    assert_eq!(test.host.active(), 1, "somebody is connected");
    drop((awake, stream));
    eventually(SOON, async || match test.host.active() {
        0 => ControlFlow::Break(()),
        active => ControlFlow::Continue(active),
    })
    .await;
    assert_eq!(status(&test, sprite).await, SpriteStatus::Warm);
    until_in_agreement(&test).await;
}

/// The settings of a sprite count at once, and after a restart of the server.
#[tokio::test]
async fn a_sprite_has_its_own_idle_time_and_its_own_word_for_connections() {
    let mut test = host(DriverKind::Microvm, Some(Duration::from_millis(50))).await;
    let (sprite, awake, mut stream) = attached(&test, Hold::Connection).await;
    let change = |timeout, connections| Change {
        idle_timeout: Some(timeout),
        connections: Some(connections),
        ..Change::default()
    };
    let (never, server) = (IdleTimeout::Never, IdleTimeout::Server);
    let changed = test
        .host
        .update(sprite, change(never, Connections::Traffic));
    changed.await.expect("changed");
    let asleep = timeout(Duration::from_millis(500), awake.until_asleep()).await;
    assert!(asleep.is_err(), "never is never");

    let changed = test
        .host
        .update(sprite, change(server, Connections::Traffic));
    changed.await.expect("changed");
    timeout(SOON, awake.until_asleep())
        .await
        .expect("an open connection alone does not hold it now");
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    echo(&mut stream, "awake\n").await;
    until_status(&test.host, sprite, SpriteStatus::Warm).await;
    drop((awake, stream));

    let never = change(never, Connections::Open);
    test.host.update(sprite, never).await.expect("changed");
    let options = HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..TestHost::options()
    };
    test.reopen(options).await.expect("reopen");
    let mut awake = test.host.awake(sprite).await.expect("awake");
    awake.lasts(Hold::Presence);
    let asleep = timeout(Duration::from_millis(500), awake.until_asleep()).await;
    assert!(asleep.is_err(), "never is never, for the next server too");
}
