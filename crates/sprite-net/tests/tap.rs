//! Slots of virtual machines: what goes by the tap, and who may hold it.

mod support;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sprite_net::{Attachment, GATEWAY, GUEST_IP, NetError, NetOptions, Network, Slot, TapOwner};
use support::*;

/// Users that nobody is here.
const MACHINE: TapOwner = TapOwner {
    uid: 0x7000_0000,
    gid: 0x7000_0000,
};
const NEIGHBOUR: u32 = 0x7001_0000;
/// Source: `GATEWAY_MAC` in address.rs; the machine learns it by ARP, a test knows it.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x53, 0x50, 0, 0, 2];
/// `struct virtio_net_hdr` before each frame.
const VNET_HEADER: usize = 10;

async fn open_taps(pool_size: usize) -> (Network, NetOptions) {
    let options = NetOptions {
        attachment: Attachment::Tap,
        ..options(pool_size)
    };
    (Network::open(options.clone()).await.expect("open"), options)
}

async fn taken(network: &Network) -> Slot {
    let slot = network.acquire().await.expect("slot");
    network.assign_tap(slot.id, MACHINE).await.expect("given");
    slot
}

/// Holds the tap as this user, who has no privileges.
fn hold(uid: u32) -> io::Result<File> {
    // Opened before: whether a user may open the device at all is another wall.
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .expect("the device");
    // SAFETY: takes numbers; the calls themselves, unlike libc's, change this thread alone, which ends soon.
    unsafe {
        assert_eq!(libc::syscall(libc::SYS_setgroups, 0, 0), 0);
        assert_eq!(libc::syscall(libc::SYS_setresgid, uid, uid, uid), 0);
        assert_eq!(libc::syscall(libc::SYS_setresuid, uid, uid, uid), 0);
    }
    // SAFETY: a structure of numbers, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tap0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)
            .expect("15 bits");
    // SAFETY: the request lives over the call.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } {
        0 => Ok(tap),
        _ => Err(io::Error::last_os_error()),
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| {
            u32::from(u16::from_be_bytes([
                pair[0],
                pair.get(1).copied().unwrap_or(0),
            ]))
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    (!u16::try_from(folded).expect("folded")).to_be_bytes()
}

/// A frame from the machine to its gateway, with virtio's header before it.
fn frame(slot: &Slot, source: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len())
        .expect("short")
        .to_be_bytes();
    let mut ip = vec![
        0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0,
    ];
    ip.extend(source.octets());
    ip.extend(to.octets());
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    let mut frame = vec![0; VNET_HEADER];
    frame.extend(GATEWAY_MAC);
    frame.extend(slot.guest_mac);
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    frame.extend(payload);
    frame
}

fn udp(port: u16, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + data.len()).expect("short");
    let mut packet = Vec::new();
    for field in [5000, port, length, 0] {
        packet.extend(field.to_be_bytes());
    }
    packet.extend(data);
    packet
}

fn echo() -> Vec<u8> {
    let mut echo = vec![8, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum);
    echo
}

/// Sends a frame until an answer comes: a moment after the tap is held the bridge takes it for connected, and
/// what was sent before is lost.
fn ask(tap: &mut File, frame: &[u8]) -> Vec<u8> {
    let deadline = Instant::now() + LONG;
    let patience = Timespec {
        tv_sec: 0,
        tv_nsec: 50_000_000,
    };
    loop {
        assert!(Instant::now() < deadline, "no answer");
        tap.write_all(frame).expect("sent");
        if poll(&mut [PollFd::new(&*tap, PollFlags::IN)], Some(&patience)).expect("polled") > 0 {
            let mut answer = vec![0; 2048];
            let length = tap.read(&mut answer).expect("an answer");
            answer.truncate(length);
            return answer;
        }
    }
}

#[test]
fn what_is_written_to_the_tap_reaches_the_gateway_and_its_answer_comes_back() {
    on_a_host(|| async {
        let (network, _) = open_taps(1).await;
        let slot = taken(&network).await;
        let guest = slot.guest_netns.clone();
        let answer = inside(&guest, move || {
            let mut tap = hold(MACHINE.uid).expect("the machine's own tap");
            ask(&mut tap, &frame(&slot, GUEST_IP, GATEWAY, 1, &echo()))
        })
        .await;
        let answer = &answer[VNET_HEADER..];
        assert_eq!(&answer[6..12], GATEWAY_MAC);
        assert_eq!(&answer[26..30], GATEWAY.octets());
        assert_eq!(&answer[30..34], GUEST_IP.octets());
        assert_eq!(
            (answer[34], &answer[38..42]),
            (0, &[0, 7, 0, 1][..]),
            "an echo reply"
        );
    });
}

#[test]
fn a_virtual_machine_reaches_the_internet_and_nothing_private_and_forges_nothing() {
    on_a_host(|| async {
        let (network, _) = open_taps(0).await;
        let slot = taken(&network).await;
        let (server, received) = receive_udp(internet(), (INTERNET, 0)).await;
        let (private, closed) = receive_udp(lan(), (LAN, 0)).await;
        let (host, own) = receive_udp(support::host(), (HOST, 0)).await;
        let guest = slot.guest_netns.clone();
        inside(&guest, move || {
            let mut tap = hold(MACHINE.uid).expect("the machine's own tap");
            ask(&mut tap, &frame(&slot, GUEST_IP, GATEWAY, 1, &echo()));
            let mut send = |source, to, port| {
                tap.write_all(&frame(&slot, source, to, 17, &udp(port, b"x")))
                    .expect("sent");
            };
            for forged in [Ipv4Addr::new(8, 8, 8, 8), HOST, Ipv4Addr::new(10, 0, 0, 77)] {
                send(forged, INTERNET, server.port());
            }
            send(GUEST_IP, LAN, private.port());
            send(GUEST_IP, HOST, host.port());
            send(GUEST_IP, INTERNET, server.port());
        })
        .await;
        let seen = received.recv_timeout(LONG).expect("it gets out");
        assert_eq!(seen.ip(), HOST);
        for (what, channel) in [("forged", received), ("private", closed), ("host's", own)] {
            assert!(channel.recv_timeout(SHORT).is_err(), "a {what} one arrived");
        }
    });
}

#[test]
fn a_packet_too_long_for_the_uplink_is_answered_with_what_fits() {
    on_a_host(|| async {
        let (network, _) = open_taps(0).await;
        let slot = taken(&network).await;
        let guest = slot.guest_netns.clone();
        let answer = inside(&guest, move || {
            let mut tap = hold(MACHINE.uid).expect("the machine's own tap");
            // As long as the machine's own network allows.
            let long = udp(9, &[0; 1500 - 28]);
            ask(&mut tap, &frame(&slot, GUEST_IP, INTERNET, 17, &long))
        })
        .await;
        let icmp = &answer[VNET_HEADER + 14 + 20..];
        // Source: RFC 1191: destination unreachable, fragmentation needed, next hop's MTU.
        assert_eq!((icmp[0], icmp[1]), (3, 4));
        assert_eq!(u16::from_be_bytes([icmp[6], icmp[7]]), 1400);
    });
}

#[test]
fn another_user_cannot_hold_a_machines_tap_nor_anyone_one_that_is_nobodys() {
    on_a_host(|| async {
        let (network, _) = open_taps(0).await;
        let slot = network.acquire().await.expect("slot");
        for uid in [MACHINE.uid, NEIGHBOUR] {
            let refused = inside(&slot.guest_netns, move || hold(uid).map(drop)).await;
            let refused = refused.expect_err("root's");
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
        network.assign_tap(slot.id, MACHINE).await.expect("given");
        let refused = inside(&slot.guest_netns, || hold(NEIGHBOUR).map(drop)).await;
        assert_eq!(
            refused.expect_err("another's").kind(),
            io::ErrorKind::PermissionDenied
        );
        inside(&slot.guest_netns, || hold(MACHINE.uid).map(drop))
            .await
            .expect("its own");
    });
}

#[test]
fn the_monitor_speaks_with_nobody_from_where_it_stands() {
    on_a_host(|| async {
        let (network, _) = open_taps(0).await;
        let slot = taken(&network).await;
        let server = serve_tcp(internet(), (INTERNET, 0)).await;
        for address in [
            server,
            (GATEWAY, 53).into(),
            (Ipv4Addr::LOCALHOST, 1).into(),
        ] {
            let refused = try_tcp(&slot.guest_netns, address).await;
            assert_eq!(
                refused.expect_err("no address").kind(),
                io::ErrorKind::NetworkUnreachable,
                "{address}"
            );
        }
        let addresses = inside(&slot.guest_netns, || run("ip -o addr")).await;
        assert_eq!(addresses, "");
    });
}

#[test]
fn a_tap_is_adopted_with_its_slot_and_goes_with_it() {
    on_a_host(|| async {
        let (before, options) = open_taps(0).await;
        let kept = taken(&before).await;
        let broken = taken(&before).await;
        before.close().await.expect("closed");
        inside(&broken.guest_netns, || run("ip link del tap0")).await;
        let after = Network::open(options.clone()).await.expect("open again");
        assert_eq!(after.adopt(kept.id).await.expect("adopted"), kept);
        let error = after.adopt(broken.id).await.expect_err("not whole");
        assert!(matches!(error, NetError::NotWhole { .. }), "{error:?}");
        let refused = inside(&kept.guest_netns, || hold(NEIGHBOUR).map(drop)).await;
        assert!(refused.is_err(), "the owner stays");
        after.release(kept.id).await.expect("released");
        after.sweep(&[]).await.expect("swept");
        after.close().await.expect("closed");
        assert_eq!(traces(&options.instance), Vec::<String>::new());
    });
}

#[test]
fn a_host_without_firewalls_is_found_to_be_fine_by_way_of_a_tap_slot_too() {
    on_a_host(|| async {
        let (network, _) = open_taps(0).await;
        assert_eq!(network.diagnose().await.expect("looked"), []);
    });
}
