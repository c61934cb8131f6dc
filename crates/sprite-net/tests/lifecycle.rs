//! Slots come and go; what a crash leaves is found; nothing stays behind.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Instant;

use sprite_net::{NetError, NetOptions, Network, SlotId};
use support::*;

fn forwarding(link: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
    fs::read_to_string(path).expect("switch").trim().to_owned()
}

fn no_traces(instance: &sprite_types::InstanceId) -> Result<(), Vec<String>> {
    let found = traces(instance);
    if found.is_empty() { Ok(()) } else { Err(found) }
}

#[test]
fn nothing_is_left_after_the_close() {
    on_a_host(|| async {
        let (network, instance) = open(2).await;
        let slots = [
            network.acquire().await.expect("slot"),
            network.acquire().await.expect("slot"),
        ];
        eventually("the pool fills", || match network.ready() {
            2 => Ok(()),
            n => Err(n),
        })
        .await;
        assert!(traces(&instance).len() > 8, "there is something to remove");
        assert_eq!(
            (forwarding("up0"), forwarding("all")),
            ("1".to_owned(), "0".to_owned())
        );
        for slot in slots {
            network.release(slot.id).await.expect("released");
            network.release(slot.id).await.expect("released again");
        }
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
        assert_eq!(forwarding("up0"), "0", "as it was before");
    });
}

#[test]
fn forwarding_that_was_on_before_stays_on() {
    on_a_host(|| async {
        fs::write("/proc/sys/net/ipv4/conf/up0/forwarding", "1").expect("on");
        let (network, _) = open(0).await;
        network.close().await.expect("closed");
        assert_eq!(forwarding("up0"), "1");
        // Switched on globally by someone else while we run: theirs now.
        fs::write("/proc/sys/net/ipv4/conf/up0/forwarding", "0").expect("off");
        let (network, _) = open(0).await;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("on");
        network.close().await.expect("closed");
        assert_eq!(forwarding("up0"), "1");
    });
}

#[test]
fn the_last_of_two_instances_gives_forwarding_back() {
    on_a_host(|| async {
        let (first, one) = open(1).await;
        let (second, two) = open(1).await;
        first.close().await.expect("closed");
        assert_eq!(forwarding("up0"), "1");
        assert_eq!(traces(&one), Vec::<String>::new());
        second.close().await.expect("closed");
        assert_eq!(forwarding("up0"), "0");
        assert_eq!(traces(&two), Vec::<String>::new());
    });
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

#[test]
fn many_machines_at_once_each_get_a_slot_of_their_own() {
    on_a_host(|| async {
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let (network, instance) = open(4).await;
        let mut acquiring = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let network = network.clone();
            acquiring.spawn(async move { network.acquire().await.expect("slot") });
        }
        let slots = acquiring.join_all().await;
        let ids: BTreeSet<SlotId> = slots.iter().map(|slot| slot.id).collect();
        let addresses: BTreeSet<Ipv4Addr> = slots.iter().map(|slot| slot.outside_ip).collect();
        assert_eq!((ids.len(), addresses.len()), (30, 30));
        for slot in &slots {
            assert_eq!(
                ask_tcp(&slot.guest_netns, server).await.expect("works"),
                HOST.to_string()
            );
        }
        let releases = slots.iter().map(|slot| {
            let network = network.clone();
            let id = slot.id;
            async move { network.release(id).await.expect("released") }
        });
        releases
            .collect::<tokio::task::JoinSet<()>>()
            .join_all()
            .await;
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

#[test]
fn a_caller_that_goes_away_loses_no_slot() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        for _ in 0..20 {
            let mut acquire = Box::pin(network.acquire());
            // Begun, and given up at once.
            let begun = std::future::poll_fn(|context| {
                std::task::Poll::Ready(acquire.as_mut().poll(context).is_pending())
            });
            assert!(begun.await);
        }
        eventually("all are ready", || match network.ready() {
            20 => Ok(()),
            n => Err(n),
        })
        .await;
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

#[test]
fn a_failure_half_way_is_undone() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        let before = traces(&instance);
        // The name of the next slot's interface is taken: the step after both namespaces fails.
        let name = format!("sp{instance}{}", SlotId::FIRST);
        run(&format!("ip link add {name} type veth peer name other"));
        network.acquire().await.expect_err("the name is taken");
        // The undoing takes away everything with the slot's names, the impostor too.
        assert_eq!(traces(&instance), before);
        let next = network.acquire().await.expect("the next one works");
        network.release(next.id).await.expect("released");
        network.close().await.expect("closed");
        assert_eq!(traces(&instance), Vec::<String>::new());
    });
}

#[test]
fn a_closed_network_gives_no_slots() {
    on_a_host(|| async {
        let (network, _) = open(1).await;
        let other = network.clone();
        network.close().await.expect("closed");
        assert!(matches!(other.acquire().await, Err(NetError::Closed)));
    });
}

#[test]
fn a_subnet_that_the_host_uses_is_avoided() {
    on_a_host(|| async {
        // All of the first candidate range is behind a VPN.
        run("ip route add 100.64.0.0/10 via 192.0.2.1");
        let (network, _) = open(0).await;
        let subnet = network.subnet();
        assert_eq!(subnet.first().octets()[0], 172, "{subnet}");
        network.close().await.expect("closed");
        run("ip route add 172.16.0.0/12 via 192.0.2.1");
        run("ip route add 10.0.0.0/8 via 192.0.2.1");
        let error = Network::open(options(0)).await.expect_err("no room");
        assert!(matches!(error, NetError::NoSubnet), "{error:?}");
    });
}

#[test]
fn a_flushed_rule_set_comes_back() {
    on_a_host(|| async {
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let service = serve_tcp(host(), (HOST, 0)).await;
        let (network, instance) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let rules = |table: String| run(&format!("nft list table inet {table}"));
        let before = rules(format!("sprited-{instance}"));
        nft("flush ruleset\n");
        eventually("the table is back", || {
            let tables = run("nft list tables");
            if tables.contains(instance.as_str()) {
                Ok(())
            } else {
                Err(tables)
            }
        })
        .await;
        assert_eq!(rules(format!("sprited-{instance}")), before);
        assert!(ask_tcp(&slot.guest_netns, server).await.is_ok());
        assert!(ask_tcp(&slot.guest_netns, service).await.is_err());
    });
}

#[test]
fn a_new_way_out_of_the_host_is_followed() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        // Another network: its interface does not forward yet.
        for line in [
            "ip netns add elsewhere",
            "ip link add vpn0 type veth peer name eth0 netns elsewhere",
            "ip addr add 198.51.100.2/24 dev vpn0",
            "ip link set vpn0 up",
            "ip -n elsewhere addr add 198.51.100.1/24 dev eth0",
            "ip -n elsewhere link set eth0 up",
        ] {
            run(line);
        }
        eventually("it forwards", || match forwarding("vpn0").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
        let elsewhere = std::path::Path::new("/run/netns/elsewhere");
        let server = serve_tcp(elsewhere, (Ipv4Addr::new(198, 51, 100, 1), 0)).await;
        assert_eq!(
            ask_tcp(&slot.guest_netns, server).await.expect("reached"),
            "198.51.100.2"
        );
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
