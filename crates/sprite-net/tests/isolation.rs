//! What a machine reaches, and what it does not.

mod support;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use sprite_net::{GATEWAY, GUEST_IP, Network};
use support::*;

#[test]
fn a_machine_reaches_the_internet_under_the_hosts_address() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let slot = network.acquire().await.expect("slot");
        let seen = ask_tcp(&slot.guest_netns, server).await.expect("reached");
        assert_eq!(seen, HOST.to_string());
        assert_eq!(slot.guest_ip, GUEST_IP);
        assert_eq!((slot.gateway, slot.nameserver), (GATEWAY, GATEWAY));
    });
}

#[test]
fn two_machines_with_the_same_address_do_not_mix_their_connections() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        let first = network.acquire().await.expect("slot");
        let second = network.acquire().await.expect("slot");
        assert_ne!(first.outside_ip, second.outside_ip);
        for _ in 0..50 {
            let (a, b) = tokio::join!(
                ask_tcp(&first.guest_netns, server),
                ask_tcp(&second.guest_netns, server)
            );
            assert_eq!(a.expect("reached"), HOST.to_string());
            assert_eq!(b.expect("reached"), HOST.to_string());
        }
    });
}

#[test]
fn a_machine_does_not_reach_the_host_by_any_address() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        // A service on all addresses of the host.
        let tcp = serve_tcp(host(), (Ipv4Addr::UNSPECIFIED, 0)).await;
        let (udp, received) = receive_udp(host(), (Ipv4Addr::UNSPECIFIED, 0)).await;
        assert!(
            ask_tcp(host(), (HOST, tcp.port()).into()).await.is_ok(),
            "the service is there"
        );

        let next_hop = Ipv4Addr::from(network.subnet().first().to_bits() + 1);
        for ip in [
            HOST,
            HOST_LAN,
            Ipv4Addr::LOCALHOST,
            slot.outside_ip,
            next_hop,
            GATEWAY,
            network.subnet().first(),
            network.subnet().last(),
        ] {
            let denied = try_tcp(&slot.guest_netns, (ip, tcp.port()).into()).await;
            assert!(denied.is_err(), "{ip} answered {denied:?}");
            // Refusal at once and silence are both fine.
            let _ = send_udp(&slot.guest_netns, (ip, udp.port()).into()).await;
        }
        assert!(
            received.recv_timeout(SHORT).is_err(),
            "a datagram reached the host"
        );
    });
}

#[test]
fn private_and_metadata_addresses_are_refused_at_once() {
    on_a_host(|| async {
        run("ip addr add 169.254.169.254/32 dev lo");
        run("ip -n internet addr add 168.63.129.16/32 dev lo");
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let neighbour = serve_tcp(lan(), (LAN, 0)).await;
        assert!(
            ask_tcp(host(), neighbour).await.is_ok(),
            "the neighbour is there"
        );
        let metadata = serve_tcp(host(), (Ipv4Addr::new(169, 254, 169, 254), 80)).await;
        let wire = serve_tcp(internet(), (Ipv4Addr::new(168, 63, 129, 16), 80)).await;
        assert!(ask_tcp(host(), wire).await.is_ok(), "the service is there");
        for address in [neighbour, metadata, wire] {
            let refused = try_tcp(&slot.guest_netns, address)
                .await
                .expect_err("closed");
            assert_eq!(
                refused.kind(),
                io::ErrorKind::ConnectionRefused,
                "{address}"
            );
        }
    });
}

#[test]
fn nothing_but_the_first_wall_is_needed_against_private_addresses() {
    on_a_host(|| async {
        let (network, instance) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let neighbour = serve_tcp(lan(), (LAN, 0)).await;
        // Nobody watches any more: as when the server has crashed and someone flushes all rules.
        drop(network);
        eventually("the table goes", || {
            nft("flush ruleset\n");
            let tables = run("nft list tables");
            if tables.contains(instance.as_str()) {
                Err(tables)
            } else {
                Ok(())
            }
        })
        .await;
        assert!(try_tcp(&slot.guest_netns, neighbour).await.is_err());
    });
}

#[test]
fn nobody_reaches_a_machine_from_outside() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let other = network.acquire().await.expect("slot");
        let server = serve_tcp(&slot.guest_netns, (Ipv4Addr::UNSPECIFIED, 0)).await;
        assert!(
            ask_tcp(&slot.guest_netns, (GUEST_IP, server.port()).into())
                .await
                .is_ok()
        );
        run("ip -n internet route add 100.64.0.0/10 via 192.0.2.2");
        for namespace in [internet(), lan(), host(), &other.guest_netns] {
            for ip in [slot.outside_ip, GUEST_IP] {
                let target: SocketAddr = (ip, server.port()).into();
                let denied = try_tcp(namespace, target).await;
                assert!(denied.is_err(), "{} reached {target}", namespace.display());
            }
        }
    });
}

#[test]
fn machines_do_not_reach_each_other_nor_those_of_another_instance() {
    on_a_host(|| async {
        let (ours, _) = open(0).await;
        let (theirs, _) = open(0).await;
        assert!(!ours.subnet().overlaps(theirs.subnet()));
        let slot = ours.acquire().await.expect("slot");
        for network in [&ours, &theirs] {
            let other = network.acquire().await.expect("slot");
            let tcp = serve_tcp(&other.guest_netns, (Ipv4Addr::UNSPECIFIED, 0)).await;
            let (udp, received) = receive_udp(&other.guest_netns, (Ipv4Addr::UNSPECIFIED, 0)).await;
            assert!(
                try_tcp(&slot.guest_netns, (other.outside_ip, tcp.port()).into())
                    .await
                    .is_err()
            );
            let _ = send_udp(&slot.guest_netns, (other.outside_ip, udp.port()).into()).await;
            assert!(received.recv_timeout(SHORT).is_err());
        }
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        for network in [&ours, &theirs] {
            let slot = network.acquire().await.expect("slot");
            assert!(
                ask_tcp(&slot.guest_netns, server).await.is_ok(),
                "both work side by side"
            );
        }
    });
}

/// Sends a datagram with a source that the machine does not have. Whoever holds the guest namespace's
/// privileges could; machines do not, and the walls do not rely on it.
async fn send_as(slot: &sprite_net::Slot, source: &'static str, target: SocketAddr) {
    let guest = slot.guest_netns.to_path_buf();
    inside(&guest, move || {
        run(&format!("ip addr add {source}/32 dev eth0"));
        let socket = std::net::UdpSocket::bind((source, 0)).expect("bind");
        // May be refused at once; whether it arrives is what counts.
        let _ = socket.send_to(b"x", target);
    })
    .await;
}

#[test]
fn forged_sources_are_dropped() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let (server, received) = receive_udp(internet(), (INTERNET, 0)).await;
        // First an honest one, which also makes the gateway known: a forged one waits for nothing then.
        send_udp(&slot.guest_netns, server).await.expect("sent");
        let seen = received.recv_timeout(LONG).expect("an honest one gets out");
        assert_eq!(seen.ip(), HOST);
        for source in ["8.8.8.8", "10.0.0.77", "192.0.2.2"] {
            send_as(&slot, source, server).await;
        }
        assert!(
            received.recv_timeout(SHORT).is_err(),
            "a forged datagram got out"
        );
    });
}

/// Takes the first wall of a slot down: its router translates addresses and forbids nothing.
async fn open_router(slot: &sprite_net::Slot, rules: &'static str) -> std::path::PathBuf {
    let guest = slot.guest_netns.display().to_string();
    let router =
        std::path::PathBuf::from(format!("{}r", guest.strip_suffix('g').expect("a guest")));
    inside(&router, move || nft(&format!("flush ruleset\n{rules}"))).await;
    router
}

#[test]
fn nothing_but_the_second_wall_is_needed_against_everything() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let other = network.acquire().await.expect("slot");
        let nat = "add table ip x
            add chain ip x post { type nat hook postrouting priority 100; }
            add rule ip x post oifname \"up\" masquerade\n";
        open_router(&slot, nat).await;
        let router = open_router(&other, nat).await;
        let open = serve_tcp(internet(), (INTERNET, 0)).await;
        assert!(
            ask_tcp(&slot.guest_netns, open).await.is_ok(),
            "the first wall is down"
        );
        let in_router = serve_tcp(&router, (other.outside_ip, 0)).await;
        for closed in [
            serve_tcp(lan(), (LAN, 0)).await,
            serve_tcp(host(), (HOST, 0)).await,
            serve_tcp(host(), (HOST_LAN, 0)).await,
            in_router,
        ] {
            assert!(
                try_tcp(&slot.guest_netns, closed).await.is_err(),
                "{closed}"
            );
        }
        run("ip -n internet route add 100.64.0.0/10 via 192.0.2.2");
        for outside in [internet(), lan()] {
            assert!(
                try_tcp(outside, in_router).await.is_err(),
                "{}",
                outside.display()
            );
        }
        // Without translation the machine's own address, which is no slot's, is a forged one.
        open_router(&slot, "").await;
        let (server, received) = receive_udp(internet(), (INTERNET, 0)).await;
        send_udp(&slot.guest_netns, server).await.expect("sent");
        assert!(
            received.recv_timeout(SHORT).is_err(),
            "a forged datagram got out"
        );
    });
}

#[test]
fn there_is_no_ipv6_except_on_the_machines_own_loopback() {
    on_a_host(|| async {
        run("ip addr add 2001:db8::2/64 dev up0 nodad");
        let (network, instance) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let guest = &slot.guest_netns;
        let addresses = inside(guest, || run("ip -6 -o addr")).await;
        assert!(
            addresses.lines().all(|line| line.contains("::1/128")),
            "{addresses}"
        );
        let outside = inside(guest, || {
            std::net::UdpSocket::bind("[::]:0")
                .and_then(|socket| socket.connect("[2001:db8::2]:53"))
        });
        assert!(outside.await.is_err());
        let own = serve_tcp(guest, "[::1]:0".parse::<SocketAddr>().expect("address")).await;
        assert_eq!(ask_tcp(guest, own).await.expect("loopback"), "::1");
        let host = run(&format!("ip -6 -o addr show dev sp{instance}{}", slot.id));
        assert_eq!(host, "", "the host's end has no IPv6 address");
    });
}

#[test]
fn a_machine_may_ping_and_bind_any_port_without_privileges() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        inside(&slot.guest_netns, || {
            let settings = [
                ("ip_unprivileged_port_start", "0"),
                ("ping_group_range", "0\t2147483647"),
            ];
            for (name, value) in settings {
                let path = format!("/proc/sys/net/ipv4/{name}");
                assert_eq!(
                    std::fs::read_to_string(path).expect("setting").trim(),
                    value
                );
            }
            assert_eq!(run("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
        })
        .await;
        let mtu = inside(&slot.guest_netns, || run("ip -o link show eth0")).await;
        assert!(
            mtu.contains("mtu 1400"),
            "what fits through the uplink: {mtu}"
        );
    });
}

#[test]
fn a_machine_cannot_fill_the_hosts_table_of_connections() {
    on_a_host(|| async {
        let limit = 4096;
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let other = network.acquire().await.expect("slot");
        let (server, received) = receive_udp(internet(), (INTERNET, 0)).await;
        inside(&slot.guest_netns, move || {
            for _ in 0..limit + 500 {
                // Every socket has another port: another flow each.
                let socket = std::net::UdpSocket::bind((GUEST_IP, 0)).expect("bind");
                let _ = socket.send_to(b"x", server);
            }
        })
        .await;
        let count = || -> usize {
            let entries = std::fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack");
            let text = entries.expect("conntrack");
            let first = text.lines().nth(1).expect("a line for the first CPU");
            let number = first.split_whitespace().next().expect("entries");
            usize::from_str_radix(number, 16).expect("hexadecimal")
        };
        let (seen, entries) = (received.try_iter().count(), count());
        assert!(seen > limit / 2, "{seen} flows got out");
        assert!(entries <= limit, "{entries} entries in the host's table");
        send_udp(&other.guest_netns, server).await.expect("sent");
        received
            .recv_timeout(LONG)
            .expect("another machine is not affected");
    });
}

#[test]
fn large_answers_come_through() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let received = download(&network, &slot.guest_netns, 32 << 20).await;
        assert_eq!(received, 32 << 20);
    });
}

async fn download(_network: &Network, guest: &std::path::Path, size: usize) -> usize {
    use std::io::{Read, Write};
    let listener = inside(internet(), || {
        std::net::TcpListener::bind((INTERNET, 0)).expect("listen")
    })
    .await;
    let address = listener.local_addr().expect("address");
    let sender = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let chunk = vec![7; 1 << 20];
        for _ in 0..size >> 20 {
            stream.write_all(&chunk).expect("send");
        }
    });
    let received = inside(guest, move || {
        let mut stream = std::net::TcpStream::connect(address).expect("connect");
        let mut buffer = vec![0; 1 << 16];
        let mut sum = 0;
        loop {
            match stream.read(&mut buffer).expect("read") {
                0 => return sum,
                n => sum += n,
            }
        }
    })
    .await;
    sender.join().expect("sent");
    received
}
