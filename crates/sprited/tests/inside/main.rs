//! What a sprite finds inside itself: `/.sprite`, its own API, tasks that hold it, the browser of whoever is attached,
//! and sprites of its own. On each driver.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod browser;
mod image;
mod made;
mod policy;

use std::time::{Duration, Instant};

use harness::{Server, eventually, ready, text};
use serde_json::Value;
use sprite_client::{Sprite, Stdio};
use tokio::io::{AsyncBufReadExt, BufReader};

/// Emulated computers are slow; nothing waits for it when all is well.
const SOON: Duration = Duration::from_secs(90);

/// What a command in the sprite prints, as JSON.
async fn json(sprite: &Sprite, script: &str) -> Value {
    let said = text(sprite, script).await;
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{script}: {error}: {said}"))
}

/// Exit status and stderr of a script that may fail.
async fn failing(sprite: &Sprite, script: &str) -> (i32, String) {
    let output = sprite.command("sh").args(["-c", script]).output().await;
    let output = output.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

async fn until(sprite: &Sprite, status: &str) {
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
async fn a_sprite_finds_out_where_it_is() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let (sprite, other) = (server.sprite("here").await, server.sprite("there").await);
    let info = json(&sprite, "sprite-env info").await;
    assert_eq!(info["sprite_name"], "here");
    assert_eq!(info["org"], "test");
    let outside = sprite.info().await.unwrap();
    assert_eq!(info["sprite_id"], outside.id.unwrap());
    assert_eq!(
        json(&other, "sprite-env info").await["sprite_name"],
        "there"
    );
    let version = text(&sprite, "cat /.sprite/version.txt").await;
    assert_eq!(text(&sprite, "sprite-env version").await, version);
    assert_eq!(info["version"], version);
    text(
        &sprite,
        "test -S /.sprite/api.sock && test -w /.sprite/api.sock",
    )
    .await;
    for file in [
        "llm.txt",
        "docs/agent-context.md",
        "docs/api.md",
        "docs/lifecycle.md",
    ] {
        let said = text(&sprite, &format!("cat /.sprite/{file}")).await;
        assert!(said.len() > 200, "{file}: {said}");
    }
    // Any user, any shell, and a program that has to be found without one.
    for script in [
        "sudo /.sprite/bin/sprite-env info",
        "sudo -u nobody /.sprite/bin/sprite-env info",
        "env -i sh -lc 'sprite-env info'",
        "env -i /.sprite/bin/sprite-env info",
    ] {
        assert_eq!(
            json(&sprite, script).await["sprite_name"],
            "here",
            "{script}"
        );
    }
    assert_eq!(
        text(&sprite, "echo $BROWSER").await,
        "/.sprite/bin/sprite-browser"
    );
    let path = text(&sprite, "echo $PATH").await;
    assert!(path.starts_with("/home/sprite/.local/bin:") && path.ends_with(":/.sprite/bin"));
    server.finish();
}

/// Nothing inside can forge what another process reads there; what a sprite puts in its place on the disk neither.
#[tokio::test]
async fn what_a_sprite_is_told_cannot_be_forged() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("forger").await;
    for attempt in [
        "sudo rm -f /.sprite/llm.txt",
        "sudo rm -f /.sprite/api.sock",
        "sudo sh -c 'echo x > /.sprite/docs/api.md'",
        "sudo sh -c 'echo x >> /.sprite/bin/sprite-env'",
        "sudo chmod 777 /.sprite/bin/sprite-env",
        "sudo mv /.sprite /sprite",
        "sudo touch /.sprite/new",
    ] {
        assert_ne!(failing(&sprite, attempt).await.0, 0, "{attempt}");
    }
    if harness::driver() == "container" {
        // In a virtual machine root may do this to itself.
        for attempt in [
            "sudo umount /.sprite",
            "sudo umount -l /.sprite",
            "sudo mount -o remount,rw /.sprite",
        ] {
            assert_ne!(failing(&sprite, attempt).await.0, 0, "{attempt}");
        }
    }
    text(
        &sprite,
        "sudo sh -c 'echo kept > /.sprite/logs/log' && sync",
    )
    .await;
    server.stop();
    server.restart();
    let sprite = server.client().sprite("forger");
    assert_eq!(text(&sprite, "cat /.sprite/logs/log").await, "kept");
    assert_eq!(
        json(&sprite, "sprite-env info").await["sprite_name"],
        "forger"
    );
    server.finish();
}

#[tokio::test]
async fn commands_of_the_environment_speak_with_its_api() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("talker").await;
    let task = json(&sprite, "sprite-env tasks create build --expire 30m").await;
    assert_eq!(task["name"], "build");
    let listed = json(&sprite, "sprite-env tasks list").await;
    assert_eq!(listed["tasks"][0], task);
    assert_eq!(json(&sprite, "sprite-env curl /v1/tasks").await, listed);
    let extended = json(&sprite, "sprite-env tasks put build --expire 1h").await;
    assert!(extended["expires_at"].as_str() > task["expires_at"].as_str());
    text(&sprite, "sprite-env tasks delete build").await;
    let (code, said) = failing(&sprite, "sprite-env tasks get build").await;
    assert_eq!((code, said.contains("task not found")), (1, true), "{said}");
    let made = text(&sprite, "sprite-env checkpoints create --comment inside").await;
    assert!(
        made.lines().any(|line| line.contains("Checkpoint v1")),
        "{made}"
    );
    let listed = json(&sprite, "sprite-env checkpoints list --history").await;
    assert_eq!(
        (&listed[0]["id"], &listed[1]["comment"]),
        (&"Current".into(), &"inside".into())
    );
    assert_eq!(
        json(&sprite, "sprite-env checkpoints get v1").await,
        listed[1]
    );
    let (code, said) = failing(&sprite, "sprite-env checkpoints restore v7").await;
    assert_eq!(
        (code, said.contains("checkpoint not found")),
        (1, true),
        "{said}"
    );
    let (code, said) = failing(&sprite, "sprite-env services get web").await;
    assert_eq!(
        (code, said.contains("service not found")),
        (1, true),
        "{said}"
    );
    let (code, said) = failing(&sprite, "sprite-env curl /v1/orgs").await;
    assert_eq!(code, 1, "{said}");
    let (code, said) = failing(&sprite, "sprite-env dance").await;
    assert_eq!((code, said.contains("dance")), (2, true), "{said}");
    assert!(
        text(&sprite, "sprite-env help")
            .await
            .contains("tasks create")
    );
    server.finish();
}

#[tokio::test]
async fn a_task_made_inside_holds_a_sprite_awake_through_a_crash_of_the_server() {
    if !ready() {
        return;
    }
    let flags = ["--idle-timeout", "1s"];
    let mut server = Server::start(&flags);
    let sprite = server.sprite("worker").await;
    text(&sprite, "sprite-env tasks create job --expire 1h").await;
    let boot = text(
        &sprite,
        "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!",
    )
    .await;
    server.kill();
    server.restart();
    let sprite = server.client().sprite("worker");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(sprite.info().await.unwrap().status.to_string(), "running");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    text(&sprite, &format!("kill -0 {boot}")).await;
    text(&sprite, "sprite-env tasks delete job").await;
    until(&sprite, "warm").await;
    assert_eq!(
        json(&sprite, "sprite-env info").await["sprite_name"],
        "worker"
    );
    server.finish();
}

/// One program holds as many connections as it gets of a thousand, and says nothing on them: others are answered, and
/// its own sprite is again when it has gone.
async fn thousand_connections(sprite: &Sprite, other: &Sprite) {
    let hold = r#"use IO::Socket::UNIX; my @all;
        for (1 .. 1000) { push @all, grep { $_ } IO::Socket::UNIX->new(Peer => "/.sprite/api.sock", Blocking => 0) }
        $| = 1; print scalar(@all), "\n"; <STDIN>"#;
    let line = "ulimit -n 2048; exec perl -e \"$0\"";
    let mut holder = sprite
        .command("sh")
        .args(["-c", line, hold])
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut held = String::new();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    let read = tokio::time::timeout(SOON, stdout.read_line(&mut held)).await;
    read.expect("it connects in time").unwrap();
    let held: u32 = held.trim().parse().unwrap();
    assert!(held > 100, "only {held} connections were there at once");
    let began = Instant::now();
    assert_eq!(json(other, "sprite-env info").await["sprite_name"], "calm");
    assert!(began.elapsed() < undisturbed(), "{:?}", began.elapsed());
    drop(holder.stdin.take());
    tokio::time::timeout(SOON, holder.wait())
        .await
        .expect("it ends in time")
        .unwrap();
    eventually(SOON, async || {
        match failing(sprite, "sprite-env info").await {
            (0, _) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// What a call may take at most while others storm; an emulated processor is shared with them.
fn undisturbed() -> Duration {
    Duration::from_secs(if harness::driver() == "container" {
        10
    } else {
        60
    })
}

/// Hostile callers waste their own share; a request that is made while there is no server is answered by the next.
#[tokio::test]
async fn hostile_callers_harm_nobody_and_calls_survive_a_restart() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let (sprite, other) = (server.sprite("hostile").await, server.sprite("calm").await);
    // An emulated processor starts a few processes a second.
    let calls = if harness::driver() == "container" {
        400
    } else {
        50
    };
    let storm = format!(
        "long=$(head -c 9000 /dev/zero | tr '\\0' x)
        for n in $(seq {calls}); do
            sprite-env curl -H \"X: $long\" /info >/dev/null 2>&1 &
            [ $((n % 100)) = 0 ] && wait
        done; wait; echo over"
    );
    let storming = tokio::spawn({
        let sprite = sprite.clone();
        async move { text(&sprite, &storm).await }
    });
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(json(&other, "sprite-env info").await["sprite_name"], "calm");
        assert!(began.elapsed() < undisturbed(), "{:?}", began.elapsed());
    }
    assert_eq!(
        tokio::time::timeout(SOON, storming).await.unwrap().unwrap(),
        "over"
    );
    thousand_connections(&sprite, &other).await;
    let asking = "until [ -e /tmp/go ]; do sleep 0.1; done; sprite-env info > /tmp/said";
    let script = format!("setsid sh -c '{asking}' >/dev/null 2>&1 </dev/null &");
    text(&other, &script).await;
    text(
        &other,
        "(sleep 1; touch /tmp/go) >/dev/null 2>&1 </dev/null &",
    )
    .await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(2)).await;
    server.restart();
    let other = server.client().sprite("calm");
    eventually(SOON, async || {
        let said = text(&other, "cat /tmp/said 2>/dev/null || true").await;
        match said.contains("calm") {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await;
    server.finish();
}
