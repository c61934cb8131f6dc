//! `sprited` may be killed at any moment: machines and their sessions are adopted, nothing is lost, nothing left.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::Stdio;

/// Issue: a restart of `sprited` in the middle of an exec's output loses and repeats nothing.
#[tokio::test]
async fn a_killed_server_adopts_its_machines_with_their_sessions() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("adopted").await;
    let script =
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo end; exit 7";
    let mut child = sprite
        .command("sh")
        .args(["-c", script])
        .stdout(Stdio::Piped)
        .max_run_after_disconnect(Duration::from_secs(300))
        .spawn()
        .await
        .unwrap();
    let session = child.session().unwrap().id;
    let mut seen = Vec::new();
    let mut stdout = child.stdout.take().unwrap();
    while seen.len() < 20_000 {
        seen.extend_from_slice(&stdout.chunk().await.unwrap().expect("more output"));
    }
    server.kill();
    // What was on its way still arrives, then the connection is gone: an error, never an exit status.
    while let Ok(Some(chunk)) = stdout.chunk().await {
        seen.extend_from_slice(&chunk);
    }
    assert!(child.wait().await.is_err(), "a lost connection is no exit");
    server.restart();
    let sprite = server.client().sprite("adopted");
    let again = sprite.attach(session).spawn().await.unwrap();
    let output = again.wait_with_output().await.unwrap();
    assert_eq!(output.status.code(), 7);
    let expected: String = (0..20_000)
        .map(|i| format!("line {i}\n"))
        .chain(["end\n".to_owned()])
        .collect();
    assert!(
        output.stdout == expected.as_bytes(),
        "the replay is not the whole output"
    );
    assert!(
        expected.as_bytes().starts_with(&seen),
        "what was seen before is not its beginning"
    );
    server.finish();
}

/// Machines outlive their server; the next one brings them to its own agent and kernel when it is asked to.
#[tokio::test]
async fn a_machine_of_an_older_server_runs_on_until_it_is_upgraded() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("older").await;
    text(&sprite, "echo kept > file; echo lost > /dev/shm/memory").await;
    assert!(!sprite.upgrade().await.unwrap().restarted);
    server.kill();
    // As if that server had been older.
    let record = std::path::Path::new(&server.machines()[0]).join("machine.json");
    let written = std::fs::read_to_string(&record).unwrap();
    let mut written: serde_json::Value = serde_json::from_str(&written).unwrap();
    match driver().as_str() {
        "microvm" => written["monitor"]["guest"] = "older".into(),
        _ => written["system"] = "older".into(),
    }
    std::fs::write(&record, written.to_string()).unwrap();
    server.restart();
    let sprite = server.client().sprite("older");
    assert_eq!(
        text(&sprite, "cat file /dev/shm/memory").await,
        "kept\nlost"
    );
    assert!(sprite.upgrade().await.unwrap().restarted);
    let found = text(&sprite, "cat file; ls /dev/shm").await;
    assert_eq!(found, "kept");
    assert!(!sprite.upgrade().await.unwrap().restarted);
    server.finish();
}

/// The kill falls at another moment in every round: during creates, execs, deletes and starts.
#[tokio::test]
async fn kills_at_any_moment_leave_nothing_and_lose_nothing() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let keeper = server.sprite("keeper").await;
    text(&keeper, "echo precious > kept && sync").await;
    for round in 0u64..6 {
        let client = server.client();
        let work = tokio::spawn(async move {
            for i in 0.. {
                let name = format!("round-{round}-{i}");
                if client.create(&name).send().await.is_err() {
                    return;
                }
                let sprite = client.sprite(&name);
                let ran = sprite.command("true").status().await;
                if ran.is_err() || sprite.destroy().await.is_err() {
                    return;
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(40 + round * 67)).await;
        server.kill();
        work.await.unwrap();
        server.restart();
        let keeper = server.client().sprite("keeper");
        assert_eq!(text(&keeper, "cat kept").await, "precious");
    }
    // Whatever is listed is whole: it runs commands and can be deleted.
    for info in server.client().sprites().all().await.unwrap() {
        let sprite = server.client().sprite(&info.name);
        text(&sprite, "true").await;
        sprite.destroy().await.unwrap();
    }
    let (instance, data) = (server.instance(), server.data_dir());
    let machines = |traces: Vec<String>| -> Vec<String> {
        traces
            .into_iter()
            .filter(|t| t.contains("/disks/"))
            .collect()
    };
    eventually(Duration::from_secs(10), async || {
        match machines(harness::traces(&instance, &data)) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        }
    })
    .await;
    assert_eq!(
        std::fs::read_dir(data.join("pool/disks")).unwrap().count(),
        0
    );
    server.finish();
}

/// The agent's end is the machine's end: the sprite is cold, and the next use boots it with its disk.
#[tokio::test]
async fn a_killed_agent_ends_the_machine_and_the_next_use_boots_it() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("phoenix").await;
    for round in 0..4 {
        text(&sprite, &format!("echo {round} > round && sync")).await;
        let child = sprite.command("sleep").arg("1000").spawn().await.unwrap();
        let agent = server.agent_pid();
        assert!(
            std::process::Command::new("kill")
                .args(["-9", &agent.to_string()])
                .status()
                .unwrap()
                .success()
        );
        let ended = child.wait_with_output().await;
        assert!(
            ended.is_err(),
            "a machine killed in the middle is no exit: {ended:?}"
        );
        assert_eq!(text(&sprite, "cat round").await, round.to_string());
    }
    server.finish();
}

/// SIGTERM ends the server in order: machines stop or sleep, everything goes, and the next start finds the disks, and
/// the memory where that goes to disk.
#[tokio::test]
async fn a_stopped_server_leaves_only_its_data() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("sleeper").await;
    // Written without a sync: an end in order writes it.
    text(&sprite, "echo here > file").await;
    server.stop();
    eventually(Duration::from_secs(10), async || {
        // The agents' programs are kept for machines of other releases.
        let left: Vec<_> = server
            .traces()
            .into_iter()
            .filter(|t| !t.starts_with("run directory"))
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    server.restart();
    let sprite = server.client().sprite("sleeper");
    let left = match driver().as_str() {
        "microvm" => "warm",
        _ => "cold",
    };
    assert_eq!(sprite.info().await.unwrap().status.to_string(), left);
    assert_eq!(text(&sprite, "cat file").await, "here");
    server.finish();
}

/// Two servers side by side do not meet, and purging one leaves the other alone.
#[tokio::test]
async fn two_servers_live_side_by_side() {
    if !ready() {
        return;
    }
    let (mut one, two) = (Server::start(&[]), Server::start(&[]));
    let first = one.sprite("same-name").await;
    let second = two.sprite("same-name").await;
    text(&first, "echo one > whose").await;
    text(&second, "echo two > whose").await;
    one.purge();
    assert_eq!(text(&second, "cat whose").await, "two");
    one.restart();
    let first = one.client().sprite("same-name");
    text(&first, "true").await;
    one.finish();
    two.finish();
}
