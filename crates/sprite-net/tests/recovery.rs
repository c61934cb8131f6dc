//! What a crash leaves is found, used again or removed.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use sprite_net::{NetError, NetOptions, Network, SlotId};
use support::*;

fn no_traces(instance: &sprite_types::InstanceId) -> Result<(), Vec<String>> {
    let found = traces(instance);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

#[test]
fn after_a_crash_one_slot_is_adopted_and_the_rest_is_swept() {
    on_a_host(|| async {
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let options = options(1);
        let instance = options.instance.clone();
        let before = Network::open(options.clone()).await.expect("open");
        let subnet = before.subnet();
        let kept = before.acquire().await.expect("slot");
        let lost = before.acquire().await.expect("slot");
        eventually("the pool fills", || {
            if before.ready() == 1 { Ok(()) } else { Err(()) }
        })
        .await;
        drop(before);
        // The machine does not notice.
        assert!(ask_tcp(&kept.guest_netns, server).await.is_ok());

        let after = Network::open(options).await.expect("open again");
        assert_eq!(after.subnet(), subnet);
        // The old process's name server goes with its last task.
        let adopted = adopt_when_free(&after, kept.id).await;
        assert_eq!(adopted, kept);
        let again = after.adopt(kept.id).await.expect_err("twice");
        assert!(matches!(again, NetError::InUse { .. }), "{again:?}");
        let swept = after.sweep(&[kept.id]).await.expect("swept");
        assert!(
            swept.contains(&lost.id) && !swept.contains(&kept.id),
            "{swept:?}"
        );
        assert_eq!(after.sweep(&[]).await.expect("swept"), []);
        assert!(ask_tcp(&kept.guest_netns, server).await.is_ok());
        assert!(!lost.guest_netns.exists());
        let fresh = after.acquire().await.expect("slot");
        assert!(ask_tcp(&fresh.guest_netns, server).await.is_ok());

        // A slot in use outlives the close, and the walls with it.
        after.release(fresh.id).await.expect("released");
        after.close().await.expect("closed");
        assert!(ask_tcp(&kept.guest_netns, server).await.is_ok());
        Network::purge(&instance).await.expect("purged");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

/// In one process the old network's tasks end a moment after its last handle; a crash ends them before.
async fn adopt_when_free(network: &Network, slot: SlotId) -> sprite_net::Slot {
    let deadline = Instant::now() + LONG;
    loop {
        match network.adopt(slot).await {
            Ok(slot) => return slot,
            Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
        }
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_slot_that_is_not_whole_is_not_adopted_but_swept() {
    on_a_host(|| async {
        let options = options(0);
        let instance = options.instance.clone();
        let before = Network::open(options.clone()).await.expect("open");
        let slots = [
            before.acquire().await.expect("slot"),
            before.acquire().await.expect("slot"),
            before.acquire().await.expect("slot"),
        ];
        drop(before);
        run(&format!("ip link del sp{instance}{}", slots[0].id));
        run(&format!("umount {}", slots[1].guest_netns.display()));
        run(&format!(
            "ip netns del sprited-{instance}-{}-r",
            slots[2].id
        ));
        let after = Network::open(options).await.expect("open again");
        for slot in &slots {
            let error = after.adopt(slot.id).await.expect_err("a part is missing");
            assert!(matches!(error, NetError::NotWhole { .. }), "{error:?}");
        }
        let unknown = SlotId::try_from(4000).expect("a slot");
        let error = after.adopt(unknown).await.expect_err("there is none");
        assert!(matches!(error, NetError::NotWhole { .. }), "{error:?}");
        assert_eq!(after.sweep(&[]).await.expect("swept").len(), 3);
        after.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

#[test]
fn a_purge_without_a_server_removes_one_instance_and_leaves_the_other() {
    on_a_host(|| async {
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let (ours, instance) = open(2).await;
        let (theirs, other) = open(1).await;
        let mine = ours.acquire().await.expect("slot");
        let slot = theirs.acquire().await.expect("slot");
        assert!(ask_tcp(&mine.guest_netns, server).await.is_ok());
        drop(ours);
        eventually("the old tasks end", || {
            // A pool slot may be in the making while the tasks end; purge is for when nothing runs.
            let purged = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(Network::purge(&instance))
            });
            purged
                .map_err(|error| vec![error.to_string()])
                .and_then(|()| no_traces(&instance))
        })
        .await;
        Network::purge(&instance).await.expect("purged again");
        assert!(
            ask_tcp(&slot.guest_netns, server).await.is_ok(),
            "the other one still works"
        );
        theirs.release(slot.id).await.expect("released");
        theirs.close().await.expect("closed");
        assert_eq!(traces(&other), Vec::<String>::new());
    });
}

/// The process that is killed: takes slots and gives some back, for ever, and tells each on its output.
#[test]
#[ignore = "started by the test below"]
fn victim() {
    let Ok(instance) = std::env::var("SPRITE_NET_VICTIM") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let instance = instance.parse().expect("an instance");
        let options = NetOptions {
            pool_size: 2,
            ..NetOptions::new(instance)
        };
        let network = Network::open(options).await.expect("open");
        eprintln!("slot: open");
        for n in 0.. {
            let slot = network.acquire().await.expect("slot");
            eprintln!("slot: {}", slot.id);
            if n % 2 == 0 {
                network.release(slot.id).await.expect("released");
                eprintln!("slot: gone");
            }
        }
    });
}

#[test]
fn killed_at_any_moment_nothing_is_lost_or_left() {
    on_a_host(|| async {
        let instance = sprite_types::InstanceId::random();
        // The output of the victim is the clock: each round it is killed some steps later.
        for steps in 0..12 {
            let mut victim = Command::new(std::env::current_exe().expect("this program"))
                .args(["--exact", "victim", "--ignored", "--nocapture"])
                .env("SPRITE_NET_VICTIM", instance.as_str())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start the victim");
            let output = BufReader::new(victim.stderr.take().expect("piped"));
            let mut lines = output.lines().map_while(Result::ok);
            let seen = lines
                .by_ref()
                .filter(|line| line.starts_with("slot: "))
                .take(steps + 1);
            assert_eq!(seen.count(), steps + 1, "the victim ended by itself");
            victim.kill().expect("killed");
            victim.wait().expect("reaped");
        }
        let options = NetOptions {
            pool_size: 0,
            ..NetOptions::new(instance.clone())
        };
        let network = Network::open(options).await.expect("open");
        let swept = network.sweep(&[]).await.expect("swept");
        assert!(swept.len() > 12, "{swept:?}");
        let slot = network.acquire().await.expect("slot");
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        assert!(ask_tcp(&slot.guest_netns, server).await.is_ok());
        network.release(slot.id).await.expect("released");
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
        assert_eq!(forwarding("up0"), "0");
    });
}

#[test]
fn an_adoption_that_is_given_up_hands_a_machines_slot_to_nobody() {
    on_a_host(|| async {
        let options = options(0);
        let before = Network::open(options.clone()).await.expect("open");
        let used = before.acquire().await.expect("slot");
        before.close().await.expect("closed");
        // It may be done at once: then there was nothing to give up, and it is begun anew.
        let after = loop {
            let after = Network::open(options.clone()).await.expect("open again");
            let mut adopting = Box::pin(after.adopt(used.id));
            let begun = std::future::poll_fn(|context| {
                std::task::Poll::Ready(adopting.as_mut().poll(context).is_pending())
            });
            let given_up = begun.await;
            drop(adopting);
            if given_up {
                break after;
            }
            after.close().await.expect("closed");
        };
        let another = after.acquire().await.expect("slot");
        assert_ne!(another.id, used.id);
        assert_eq!(adopt_when_free(&after, used.id).await, used);
        assert_eq!(after.ready(), 0);
    });
}
