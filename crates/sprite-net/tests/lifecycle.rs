//! Slots come and go; the host is left as it was; what others do to it is followed.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use sprite_net::{NetError, Network, SlotId};
use support::*;

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
        assert!(try_tcp(&slot.guest_netns, service).await.is_err());
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

#[test]
fn forwarding_that_someone_switches_off_goes_on_again() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        for value in ["1", "0"] {
            fs::write("/proc/sys/net/ipv4/ip_forward", value).expect("written");
        }
        eventually("it forwards again", || match forwarding("up0").as_str() {
            "1" => Ok(()),
            other => Err(other.to_owned()),
        })
        .await;
        assert!(ask_tcp(&slot.guest_netns, server).await.is_ok());
        assert_eq!(forwarding("lan0"), "0", "only where it is needed");
    });
}

#[test]
fn what_goes_through_a_slot_is_counted() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let before = network.traffic(slot.id).expect("counted");
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        for _ in 0..10 {
            let said = ask_tcp(&slot.guest_netns, server).await.expect("an answer");
            assert!(!said.is_empty());
        }
        let after = network.traffic(slot.id).expect("counted");
        // Each way three packets and more, with headers of 40 bytes and more.
        let came = after.bytes_in - before.bytes_in;
        let went = after.bytes_out - before.bytes_out;
        assert!((1200..100_000).contains(&came), "{came}");
        assert!((1200..100_000).contains(&went), "{went}");
        // One that comes after it begins at nothing.
        network.release(slot.id).await.expect("released");
        assert!(network.traffic(slot.id).is_err());
        let next = network.acquire().await.expect("slot");
        let next = network.traffic(next.id).expect("counted");
        assert!(next.bytes_in + next.bytes_out < 1200, "{next:?}");
        network.close().await.expect("closed");
    });
}
