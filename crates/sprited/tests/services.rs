//! Services on a real server: started, kept running, stopped, told of; over sleep, crashes and boots. On each driver.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, eventually, ready, text};
use sprite_client::{
    Error, ServiceEventKind as Kind, ServiceEvents, ServiceState, ServiceStatus, Sprite,
};

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// A service that says that it runs, and does nothing more.
const QUIET: &str = "echo up; exec sleep 1000000";

/// Puts a service that is a shell's script, and reads what is told until it runs.
async fn put(sprite: &Sprite, name: &str, script: &str) {
    let put = sprite.put_service(name, "sh").args(["-c", script]);
    let mut events = put.watch_for(SOON).send().await.unwrap();
    until_started(&mut events).await;
}

async fn until_started(events: &mut ServiceEvents) {
    loop {
        match events.next().await.unwrap().unwrap().what {
            Kind::Started { .. } => return,
            Kind::Error { data } => panic!("{data}"),
            _ => {}
        }
    }
}

async fn state(sprite: &Sprite, name: &str) -> ServiceState {
    sprite.service(name).await.unwrap().state.unwrap()
}

/// Waits until a service does something; its state then.
async fn until(sprite: &Sprite, name: &str, status: ServiceStatus) -> ServiceState {
    eventually(SOON, async || match state(sprite, name).await {
        state if state.status == status => Ok(state),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// All that is told.
async fn all(mut events: ServiceEvents) -> Vec<Kind> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await.unwrap() {
        all.push(event.what);
    }
    all
}

/// The lines of stdout among events.
fn stdout(events: &[Kind]) -> Vec<&str> {
    let lines = events.iter().filter_map(|event| match event {
        Kind::Stdout { data } => Some(data.as_str()),
        _ => None,
    });
    lines.collect()
}

fn status_of<T>(refused: Result<T, Error>) -> u16 {
    let error = refused.err().unwrap();
    error.refusal().unwrap().status
}

async fn until_sprite(sprite: &Sprite, status: &str) {
    eventually(SOON, async || {
        let info = sprite.info().await.map_err(|error| error.to_string())?;
        match info.status.to_string() == status {
            true => Ok(()),
            false => Err(format!("{info:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_is_created_shown_logged_and_deleted() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("host").await;
    assert!(sprite.services().await.unwrap().is_empty());
    let script = "echo $COLOUR in $PWD; echo oh >&2; exec sleep 1000000";
    let events = sprite
        .put_service("web", "sh")
        .args(["-c", script])
        .env("COLOUR", "blue")
        .dir("/srv")
        .http_port(3000)
        .watch_for(Duration::from_secs(2))
        .send()
        .await;
    let events = all(events.unwrap()).await;
    assert!(
        matches!(events[0], Kind::Started { pid: Some(_) }),
        "{events:?}"
    );
    assert_eq!(stdout(&events), ["blue in /srv"]);
    assert!(
        events.contains(&Kind::Stderr {
            data: "oh".to_owned()
        }),
        "{events:?}"
    );
    let Some(Kind::Complete { log_files }) = events.last() else {
        panic!("{events:?}");
    };
    let log = text(&sprite, &format!("cat {}", log_files["combined"])).await;
    assert!(
        log.contains("Z [stdout] blue in /srv") && log.contains("Z [stderr] oh"),
        "{log}"
    );
    let web = sprite.service("web").await.unwrap();
    assert_eq!((web.cmd.as_str(), web.http_port), ("sh", Some(3000)));
    let state = web.state.unwrap();
    assert_eq!(
        (state.status, state.restart_count),
        (ServiceStatus::Running, 0)
    );
    assert!(state.started_at.is_some() && state.error.is_empty());
    // The process is where it is said to be, and is the user's, as everything that clients start.
    let pid = state.pid.unwrap();
    let look = format!("stat -c %U /proc/{pid}; tr '\\0' ' ' < /proc/{pid}/cmdline");
    assert_eq!(text(&sprite, &look).await, "sprite\nsleep 1000000");
    let logs = all(sprite.service_logs("web", None, None).await.unwrap()).await;
    assert_eq!(stdout(&logs), ["blue in /srv"]);
    sprite.delete_service("web").await.unwrap();
    assert!(sprite.service("web").await.unwrap_err().is_not_found());
    text(
        &sprite,
        &format!("! kill -0 {pid} && test -s {}", log_files["combined"]),
    )
    .await;
    server.finish();
}

/// The lines that a service wrote so far, all that are kept.
async fn said(sprite: &Sprite, name: &str) -> Vec<String> {
    let events = all(sprite.service_logs(name, None, None).await.unwrap()).await;
    stdout(&events).into_iter().map(str::to_owned).collect()
}

/// Waits until all that a service wrote is this.
async fn until_said(sprite: &Sprite, name: &str, lines: &[&str]) {
    eventually(SOON, async || match said(sprite, name).await {
        all if all == lines => Ok(()),
        other => Err(format!("{name} said {other:?}")),
    })
    .await;
}

#[tokio::test]
async fn services_start_in_the_order_of_their_needs_and_take_the_sprites_environment() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let client = server.client();
    let made = client.create("order").env("SHARED", "yes").send().await;
    made.unwrap();
    let sprite = client.sprite("order");
    server.boots(&sprite).await;
    put(&sprite, "db", &format!("echo $SHARED; {QUIET}")).await;
    for (name, needs) in [("cache", vec!["db"]), ("web", vec!["cache", "db"])] {
        let mut put = sprite.put_service(name, "sh").args(["-c", QUIET]);
        for need in needs {
            put = put.needs(need);
        }
        until_started(&mut put.watch_for(SOON).send().await.unwrap()).await;
    }
    let in_order = async |sprite: &Sprite| {
        let mut began = Vec::new();
        for name in ["db", "cache", "web"] {
            let state = until(sprite, name, ServiceStatus::Running).await;
            began.push(state.started_at.unwrap().to_string());
        }
        assert!(began.is_sorted(), "{began:?}");
    };
    in_order(&sprite).await;
    until_said(&sprite, "db", &["yes", "up"]).await;
    assert_eq!(status_of(sprite.delete_service("db").await), 409);
    let circle = sprite.put_service("db", "sh").needs("web").send().await;
    assert_eq!(status_of(circle), 400);
    let unknown = sprite.put_service("x", "sh").needs("y").send().await;
    assert_eq!(status_of(unknown), 400);
    server.stop();
    server.restart();
    let sprite = server.client().sprite("order");
    // To look at services wakes nobody.
    text(&sprite, "true").await;
    in_order(&sprite).await;
    sprite.restart().await.unwrap();
    in_order(&sprite).await;
    server.finish();
}

#[tokio::test]
async fn a_service_that_crashes_is_started_again_later_and_later_and_says_why() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("crash").await;
    let bad = sprite
        .put_service("bad", "sh")
        .args(["-c", "echo trying; exit 3"]);
    let told = all(bad.watch_for(SOON).send().await.unwrap()).await;
    assert!(told.contains(&Kind::Exit { exit_code: 3 }), "{told:?}");
    assert!(
        told.iter().any(|kind| matches!(kind, Kind::Error { .. })),
        "{told:?}"
    );
    let failed = eventually(SOON, async || match state(&sprite, "bad").await {
        state if state.restart_count >= 2 && state.status == ServiceStatus::Failed => Ok(state),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(failed.error, "exited with status 3");
    assert!(
        failed.next_restart_at.is_some() && failed.pid.is_none(),
        "{failed:?}"
    );
    // Put right, it runs at once, and what was is forgotten.
    put(&sprite, "bad", QUIET).await;
    let well = until(&sprite, "bad", ServiceStatus::Running).await;
    assert_eq!((well.restart_count, well.error.as_str()), (0, ""));
    // The same again changes nothing.
    put(&sprite, "bad", QUIET).await;
    assert_eq!(state(&sprite, "bad").await.pid, well.pid);
    let missing = sprite
        .put_service("none", "/usr/bin/does-not-exist")
        .send()
        .await;
    let missing = missing.unwrap().finish().await.unwrap();
    let expected = "executable file `/usr/bin/does-not-exist` not found: No such file or directory";
    assert_eq!(missing.as_deref(), Some(expected));
    assert_eq!(state(&sprite, "none").await.error, expected);
    let nowhere = sprite
        .put_service("nowhere", "true")
        .dir("/gone")
        .send()
        .await;
    let nowhere = nowhere.unwrap().finish().await.unwrap().unwrap();
    assert!(nowhere.contains("/gone"), "{nowhere}");
    // One that waits for its next start can be stopped.
    all(sprite.stop_service("none", None).await.unwrap()).await;
    assert_eq!(state(&sprite, "none").await.status, ServiceStatus::Stopped);
    server.finish();
}

/// Sleep and a crash of the server leave processes alone; a boot starts them anew; what a person stopped stays so.
#[tokio::test]
async fn services_outlive_sleep_crashes_and_boots_and_a_stop_sticks() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&["--idle-timeout", "1s"]);
    let sprite = server.sprite("lasting").await;
    put(&sprite, "web", QUIET).await;
    put(&sprite, "job", QUIET).await;
    // It runs from its first moment, before it has said anything.
    until_said(&sprite, "job", &["up"]).await;
    let stopped = all(sprite.stop_service("job", None).await.unwrap()).await;
    assert!(
        matches!(
            stopped[..],
            [
                Kind::Stopping,
                Kind::Stopped {
                    exit_code: Some(143)
                },
                _
            ]
        ),
        "{stopped:?}"
    );
    assert_eq!(status_of(sprite.stop_service("job", None).await), 409);
    let before = state(&sprite, "web").await;
    // A quiet service holds nothing.
    until_sprite(&sprite, "warm").await;
    assert_eq!(state(&sprite, "web").await.pid, before.pid);
    server.kill();
    server.restart();
    let sprite = server.client().sprite("lasting");
    let after = state(&sprite, "web").await;
    assert_eq!((after.pid, after.restart_count), (before.pid, 0));
    assert_eq!(
        after.started_at.map(|at| at.to_string()),
        before.started_at.map(|at| at.to_string())
    );
    assert_eq!(state(&sprite, "job").await.status, ServiceStatus::Stopped);
    sprite.restart().await.unwrap();
    assert_eq!(
        until(&sprite, "web", ServiceStatus::Running)
            .await
            .restart_count,
        0
    );
    assert_eq!(state(&sprite, "job").await.status, ServiceStatus::Stopped);
    // Both runs are in the log.
    until_said(&sprite, "web", &["up", "up"]).await;
    until_started(&mut sprite.start_service("job", None).await.unwrap()).await;
    until_said(&sprite, "job", &["up", "up"]).await;
    server.finish();
}

#[tokio::test]
async fn a_service_ends_with_all_of_its_process_group() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("groups").await;
    let alive =
        async |mark: &str| text(&sprite, &format!("pgrep -c -x -f 'sleep {mark}' || true")).await;
    put(&sprite, "many", "sleep 1111 & sleep 1111 & exec sleep 1111").await;
    eventually(SOON, async || match alive("1111").await.as_str() {
        "3" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    sprite.delete_service("many").await.unwrap();
    assert_eq!(alive("1111").await, "0");
    // Whoever does not want to end is ended when the time is over.
    put(
        &sprite,
        "deaf",
        "trap '' TERM; echo up; while :; do sleep 2222; done",
    )
    .await;
    until_said(&sprite, "deaf", &["up"]).await;
    let stopped = sprite
        .stop_service("deaf", Some(Duration::from_millis(200)))
        .await;
    let stopped = all(stopped.unwrap()).await;
    assert!(
        stopped.contains(&Kind::Stopped {
            exit_code: Some(137)
        }),
        "{stopped:?}"
    );
    assert_eq!(alive("2222").await, "0");
    // What is left in the group of a leader that ended goes too; who left the group is no part of the service, and
    // neither its pipe nor what it says keeps anybody waiting.
    let daemon = "setsid sh -c 'while :; do echo noise; done' & sleep 3333 & exit 0";
    let events = sprite.put_service("daemon", "sh").args(["-c", daemon]);
    let told = all(events.watch_for(SOON).send().await.unwrap()).await;
    assert!(told.contains(&Kind::Exit { exit_code: 0 }), "{told:?}");
    let ended = tokio::time::timeout(SOON, sprite.delete_service("daemon")).await;
    ended.unwrap().unwrap();
    assert_eq!(alive("3333").await, "0");
    text(&sprite, "pkill -9 -f 'echo [n]oise'; true").await;
    server.finish();
}

#[tokio::test]
async fn a_service_is_signalled_restarted_and_changed() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("signals").await;
    put(
        &sprite,
        "web",
        "trap 'echo hup' HUP; echo up; while :; do sleep 0.1; done",
    )
    .await;
    until_said(&sprite, "web", &["up"]).await;
    let first = state(&sprite, "web").await;
    sprite
        .signal_service("web", &"HUP".parse().unwrap())
        .await
        .unwrap();
    until_said(&sprite, "web", &["up", "hup"]).await;
    assert_eq!(state(&sprite, "web").await.pid, first.pid);
    // One that ends by a signal has crashed.
    sprite
        .signal_service("web", &"KILL".parse().unwrap())
        .await
        .unwrap();
    let second = eventually(SOON, async || match state(&sprite, "web").await {
        state if state.status == ServiceStatus::Running && state.pid != first.pid => Ok(state),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(second.restart_count, 1);
    until_started(&mut sprite.restart_service("web", None).await.unwrap()).await;
    let third = state(&sprite, "web").await;
    assert!(
        third.pid != second.pid && third.restart_count == 0,
        "{third:?}"
    );
    put(&sprite, "web", "echo other; exec sleep 1000000").await;
    assert_ne!(state(&sprite, "web").await.pid, third.pid);
    all(sprite.stop_service("web", None).await.unwrap()).await;
    let refused = sprite.signal_service("web", &"HUP".parse().unwrap()).await;
    assert_eq!(status_of(refused), 409);
    server.finish();
}

/// Followers get every line that comes, in order; a storm takes as much of the disk as logs may have, and no more.
#[tokio::test]
async fn logs_are_followed_rotated_and_not_led_astray() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("logs").await;
    let script =
        "n=0; while [ -e /tmp/go ] || sleep 0.05; do n=$((n+1)); echo line $n; sleep 0.02; done";
    text(&sprite, "touch /tmp/go").await;
    put(&sprite, "count", script).await;
    let mut events = sprite
        .service_logs("count", Some(1), Some(SOON))
        .await
        .unwrap();
    let mut lines = Vec::new();
    while lines.len() < 20 {
        if let Kind::Stdout { data } = events.next().await.unwrap().unwrap().what {
            lines.push(data.strip_prefix("line ").unwrap().parse::<u64>().unwrap());
        }
    }
    let first = lines[0];
    assert_eq!(lines, (first..first + 20).collect::<Vec<_>>());
    drop(events);
    sprite.delete_service("count").await.unwrap();
    // A log that somebody puts a link in the place of is not written through it.
    text(
        &sprite,
        "echo mine | sudo tee /etc/victim; sudo ln -sf /etc/victim /.sprite/logs/services/evil.log",
    )
    .await;
    put(&sprite, "evil", "echo theirs; exec sleep 1000000").await;
    until_said(&sprite, "evil", &["theirs"]).await;
    let kept = "cat /etc/victim; test -f /.sprite/logs/services/evil.log -a ! -L /.sprite/logs/services/evil.log";
    assert_eq!(text(&sprite, kept).await, "mine");
    // A storm.
    let block = "x".repeat(1000);
    put(&sprite, "storm", &format!("yes {block}")).await;
    let sizes = "stat -c %s /.sprite/logs/services/storm.log* 2>/dev/null || true";
    eventually(SOON, async || match text(&sprite, sizes).await {
        both if both.lines().count() == 2 => Ok(()),
        other => Err(other),
    })
    .await;
    let total: u64 = text(&sprite, sizes)
        .await
        .lines()
        .map(|line| line.parse::<u64>().unwrap())
        .sum();
    assert!(total < 18 << 20, "{total}");
    sprite.delete_service("storm").await.unwrap();
    assert!(
        text(&sprite, "ls /.sprite/logs/services")
            .await
            .contains("storm.log")
    );
    server.finish();
}

#[tokio::test]
async fn services_are_told_and_shown_inside_too() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("inside").await;
    let create = "sprite-env services create web --cmd sh --args '-c,echo up; exec sleep 1000000' --duration 1s";
    let told = text(&sprite, create).await;
    assert!(
        told.contains(r#""type":"started""#) && told.contains(r#""type":"complete""#),
        "{told}"
    );
    let listed: serde_json::Value =
        serde_json::from_str(&text(&sprite, "sprite-env services list").await).unwrap();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["state"]["status"]),
        (&"web".into(), &"running".into())
    );
    let outside = sprite.service("web").await.unwrap();
    assert_eq!(
        outside.state.unwrap().pid.map(u64::from),
        listed[0]["state"]["pid"].as_u64()
    );
    text(&sprite, "sprite-env services signal web KILL").await;
    until(&sprite, "web", ServiceStatus::Running).await;
    text(&sprite, "sprite-env services stop web").await;
    assert_eq!(state(&sprite, "web").await.status, ServiceStatus::Stopped);
    text(&sprite, "sprite-env services start web --duration 0s").await;
    text(&sprite, "sprite-env services restart web --duration 0s").await;
    text(&sprite, "sprite-env services delete web").await;
    assert!(sprite.services().await.unwrap().is_empty());
    server.finish();
}
