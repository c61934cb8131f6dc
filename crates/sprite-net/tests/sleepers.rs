//! Machines that sleep: what comes on connections that they opened is told, and nothing else.

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use sprite_net::{Network, SlotId};
use support::*;

/// A machine's connection to the internet: both ends.
async fn connection(namespace: &Path) -> (TcpStream, TcpStream) {
    let listener = inside(internet(), || {
        TcpListener::bind((INTERNET, 0)).expect("listen")
    })
    .await;
    let address = listener.local_addr().expect("address");
    let ours = inside(namespace, move || {
        TcpStream::connect_timeout(&address, LONG).expect("connect")
    })
    .await;
    let (theirs, _) = listener.accept().expect("accept");
    (ours, theirs)
}

async fn told(network: &Network) -> Vec<SlotId> {
    let knocked = tokio::time::timeout(LONG, network.knocked()).await;
    knocked.expect("told in time").expect("the kernel tells")
}

async fn quiet(network: &Network) {
    if let Ok(knocked) = tokio::time::timeout(SHORT, network.knocked()).await {
        panic!("{knocked:?}");
    }
}

#[test]
fn packets_for_machines_that_sleep_are_told() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let neighbour = network.acquire().await.expect("slot");
        let (_ours, mut theirs) = connection(&slot.guest_netns).await;
        let (_others, mut to_other) = connection(&neighbour.guest_netns).await;
        for mut end in [&theirs, &to_other] {
            end.write_all(b"awake").expect("sends");
        }
        quiet(&network).await;

        for _ in 0..2 {
            network.fall_asleep(slot.id).await.expect("falls asleep");
        }
        // What the machine answered to earlier bytes may still be acknowledged.
        while tokio::time::timeout(SHORT, network.knocked()).await.is_ok() {}
        to_other.write_all(b"for the neighbour").expect("sends");
        quiet(&network).await;
        theirs.write_all(b"for the sleeper").expect("sends");
        assert_eq!(told(&network).await, [slot.id]);

        // Somebody flushes all rules; ours come again, and know who sleeps.
        run("nft flush ruleset");
        eventually("the table is back", || {
            let rules = run("nft list ruleset");
            match rules.contains(&format!("sprited-{instance}")) {
                true => Ok(()),
                false => Err(rules),
            }
        })
        .await;
        theirs.write_all(b"again").expect("sends");
        assert_eq!(told(&network).await, [slot.id]);

        for _ in 0..2 {
            network.wake(slot.id).await.expect("wakes");
        }
        theirs.write_all(b"awake").expect("sends");
        quiet(&network).await;

        network.fall_asleep(slot.id).await.expect("falls asleep");
        network.release(slot.id).await.expect("release");
        assert!(!run("nft list ruleset").contains(&slot.outside_ip.to_string()));
    });
}

#[test]
fn two_instances_listen_side_by_side() {
    on_a_host(|| async {
        let options = options(0);
        let first = Network::open(options.clone()).await.expect("open");
        // The same instance again, as if its first process were not gone yet: the group is taken.
        let second = Network::open(options).await.expect("open");
        let slot = second.acquire().await.expect("slot");
        let (_ours, mut theirs) = connection(&slot.guest_netns).await;
        second.fall_asleep(slot.id).await.expect("falls asleep");
        theirs.write_all(b"for the sleeper").expect("sends");
        assert_eq!(told(&second).await, [slot.id]);
        drop(first);
    });
}
