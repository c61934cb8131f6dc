//! The agent, the environment's first process, and processes of ours on their way in.

use std::time::Duration;

use crate::attack::{As, begin, bring, line, shell};
use crate::harness::{Server, driver, ready};
use crate::outside;

/// Root inside ends everything it can see: its own processes, never the machine.
#[tokio::test]
async fn root_ends_everything_but_the_machine() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("killer").await;
    assert_eq!(shell(&sprite, "echo alive").await, "alive\n");
    let agent = outside::holders(&server);
    assert_eq!(agent.len(), 1, "{agent:?}");
    for script in [
        "sudo -n kill -KILL 1; sudo -n kill -STOP 1; sudo -n kill -TERM 1; sudo -n kill -SEGV 1",
        "sudo -n sh -c 'kill -KILL -1'",
        "sudo -n sh -c 'kill -STOP -1'",
        "sudo -n sh -c 'for p in /proc/[0-9]*; do kill -KILL ${p#/proc/}; done'",
    ] {
        let mut child = sprite
            .command("sh")
            .args(["-c", script])
            .spawn()
            .await
            .unwrap();
        // The shell itself may be stopped or ended by it; either way the next exec comes through.
        let ended = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
        if ended.is_err() {
            child.close().await;
        }
        assert_eq!(shell(&sprite, "echo alive").await, "alive\n", "{script}");
    }
    assert_eq!(
        outside::holders(&server),
        agent,
        "the machine was started anew"
    );
    server.finish();
}

/// Root stops every process that appears, ours too. Whoever is not stopped is not held up by it.
#[tokio::test]
async fn a_process_stopped_on_its_way_holds_up_nobody() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("stopper").await;
    bring(&sprite).await;
    let mut stopper = begin(&sprite, As::Root, &["stop-starts"]).await;
    line(&mut stopper, "stopping").await;
    // An emulated processor is busy with twenty starts for a while, stopped or not.
    let (stopped_for, answered_within) = match driver().as_str() {
        "microvm" => (Duration::from_secs(60), Duration::from_secs(40)),
        _ => (Duration::from_secs(3), Duration::from_secs(2)),
    };
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let sprite = sprite.clone();
        starts.spawn(async move {
            let once = async { sprite.command("true").status().await };
            // Most are stopped, before or after they became `true`.
            tokio::time::timeout(stopped_for, once).await.is_ok()
        });
    }
    let started = tokio::time::Instant::now();
    sprite.check().await.unwrap();
    sprite.sessions().await.unwrap();
    assert!(started.elapsed() < answered_within, "the agent was held up");
    starts.join_all().await;
    // The stopper's end: signals are not processes, and cannot be stopped on their way.
    let session = stopper.session().unwrap().id;
    sprite
        .kill(
            session,
            &sprite_client::Signal::kill(),
            Duration::from_secs(5),
        )
        .await
        .unwrap();
    let _ = shell(&sprite, "sudo -n pkill -KILL attacker; true").await;
    assert_eq!(shell(&sprite, "echo alive").await, "alive\n");
    server.finish();
}
