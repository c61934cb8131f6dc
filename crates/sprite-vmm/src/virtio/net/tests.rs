use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;

use proptest::prelude::*;

use super::{Net, NetMetrics};
use crate::config::NetworkInterface;
use crate::virtio::driver::{Buffer, Driver};
use crate::virtio::{DeviceState, TransportState};

const TO_GUEST: usize = 0;
const TO_HOST: usize = 1;
const F_MRG_RXBUF: u64 = 1 << 15;
const F_TSO: u64 = 1 << 7 | 1 << 8;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
/// A protocol for experiments: nobody but us speaks it. Source: IEEE 802, 0x88b5.
const PROTOCOL: [u8; 2] = [0x88, 0xb5];
const HEADER: usize = 12;
/// Every protocol, as the kernel wants it written. Source: `ETH_P_ALL` in `linux/if_ether.h`.
const ALL_PROTOCOLS: u16 = 3_u16.to_be();
/// Source: `AF_PACKET` in `linux/socket.h`.
const PACKET_FAMILY: u16 = 17;
/// Source: `IFF_UP` in `linux/if.h`.
const UP: i16 = 1;

/// A guest with a network card, in a network of its own that ends with the test.
struct Guest {
    driver: Driver,
    metrics: Arc<NetMetrics>,
    /// The host's side of the tap.
    host: Host,
    received: VecDeque<(Vec<u8>, usize)>,
}

/// Frames of the tap's interface, as the host's network sees them.
struct Host {
    socket: File,
}

fn failed(what: &str) -> ! {
    panic!("{what}: {}", io::Error::last_os_error());
}

impl Host {
    fn on(interface: &str) -> Self {
        let all = libc::c_int::from(ALL_PROTOCOLS);
        // SAFETY: no memory is involved.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all) };
        if fd < 0 {
            failed("open a packet socket");
        }
        // SAFETY: the descriptor is new and nobody else's.
        let socket = unsafe { File::from_raw_fd(fd) };
        bring_up(&socket, interface);
        let mut name = interface.as_bytes().to_vec();
        name.push(0);
        // SAFETY: the name ends with a zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr().cast()) };
        // SAFETY: all zeroes are an address.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = PACKET_FAMILY;
        address.sll_protocol = ALL_PROTOCOLS;
        address.sll_ifindex = i32::try_from(index).expect("an index");
        let len = libc::socklen_t::try_from(size_of_val(&address)).expect("short");
        // SAFETY: the address lives for the call and has this length.
        if unsafe { libc::bind(fd, (&raw const address).cast(), len) } != 0 {
            failed("bind to the tap");
        }
        let limit = libc::timeval {
            tv_sec: 20,
            tv_usec: 0,
        };
        let len = libc::socklen_t::try_from(size_of_val(&limit)).expect("short");
        // SAFETY: the time lives for the call and has this length.
        unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const limit).cast(),
                len,
            );
        }
        Self { socket }
    }

    fn send(&mut self, frame: &[u8]) {
        self.socket.write_all(frame).expect("the tap takes a frame");
    }

    /// The next frame of ours.
    fn receive(&mut self) -> Vec<u8> {
        let mut frame = vec![0; 70_000];
        loop {
            let len = self.socket.read(&mut frame).expect("a frame comes");
            if frame[12..14] == PROTOCOL {
                frame.truncate(len);
                return frame;
            }
        }
    }
}

fn bring_up(socket: &File, interface: &str) {
    // SAFETY: all zeroes are an `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = UP;
    // SAFETY: the kernel reads one `ifreq`, which lives for the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) } != 0 {
        failed("bring the tap up");
    }
}

/// A network of this thread's own; false where that cannot be.
fn enter_own_network() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root for network namespaces");
        return false;
    }
    if !std::path::Path::new("/dev/net/tun").exists() {
        eprintln!("skipped: needs /dev/net/tun");
        return false;
    }
    // SAFETY: only this thread moves to another network; nothing of it is shared by assumption.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        failed("make a network namespace");
    }
    // Else the kernel's own IPv6 frames come between ours.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
    true
}

fn card() -> Net {
    let text = r#"{"iface_id": "eth0", "guest_mac": "02:00:00:00:00:07", "host_dev_name": "tap0"}"#;
    let interface: NetworkInterface = serde_json::from_str(text).expect("an interface");
    Net::open(&interface).expect("a tap")
}

impl Guest {
    fn new(without: u64, rooms: &[usize]) -> Option<Self> {
        if !enter_own_network() {
            return None;
        }
        let net = card();
        let host = Host::on("tap0");
        let mut guest = Self {
            metrics: net.metrics(),
            driver: Driver::start(Box::new(net), without),
            host,
            received: VecDeque::new(),
        };
        guest.make_room(rooms);
        Some(guest)
    }

    /// As Linux's driver does it.
    fn ordinary() -> Option<Self> {
        Self::new(0, &[1536; 200])
    }

    fn make_room(&mut self, rooms: &[usize]) {
        for &room in rooms {
            self.driver.offer(TO_GUEST, &[Buffer::Writable(room)]);
        }
        self.driver.notify(TO_GUEST);
    }

    fn send(&mut self, frame: &[u8]) {
        let header = Buffer::Readable(vec![0; HEADER]);
        self.driver
            .request(TO_HOST, &[header, Buffer::Readable(frame.to_vec())]);
    }

    /// The next frame of ours, and how many buffers it filled; each is offered again.
    fn receive(&mut self) -> (Vec<u8>, usize) {
        while self.received.is_empty() {
            let mut used = self.driver.wait_used(TO_GUEST);
            while !used.is_empty() {
                let count = usize::from(u16::from_le_bytes([used[0].bytes[10], used[0].bytes[11]]));
                assert!(count <= used.len(), "all buffers of a frame come at once");
                let mut frame = Vec::new();
                let mut rooms = Vec::new();
                for used in used.drain(..count) {
                    frame.extend(&used.bytes[..used.written as usize]);
                    rooms.push(used.bytes.len());
                }
                self.make_room(&rooms);
                let frame = frame.split_off(HEADER);
                if frame[12..14] == PROTOCOL {
                    self.received.push_back((frame, count));
                }
            }
        }
        self.received.pop_front().expect("not empty")
    }
}

fn frame(len: usize, seed: u8) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend(PROTOCOL);
    let rest = len - frame.len();
    frame.extend((0..rest).map(|at| seed.wrapping_add(at.to_le_bytes()[0])));
    frame
}

#[test]
fn frames_go_both_ways() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    for len in [60, 1000, 1514] {
        guest.send(&frame(len, 1));
        assert_eq!(guest.host.receive(), frame(len, 1));
        guest.host.send(&frame(len, 2));
        assert_eq!(guest.receive(), (frame(len, 2), 1));
    }
    assert_eq!(guest.metrics.frames_to_host.total(), 3);
    assert!(guest.metrics.bytes_to_guest.total() >= 60 + 1000 + 1514);
}

#[test]
fn the_guest_reads_its_address() {
    let Some(guest) = Guest::ordinary() else {
        return;
    };
    assert_eq!(guest.driver.config(0, 6), MAC);
}

#[test]
fn a_frame_fills_as_many_buffers_as_it_needs() {
    let Some(mut guest) = Guest::new(0, &[100; 250]) else {
        return;
    };
    guest.host.send(&frame(1514, 3));
    assert_eq!(guest.receive(), (frame(1514, 3), 16));
    guest.host.send(&frame(60, 4));
    assert_eq!(guest.receive(), (frame(60, 4), 1));
}

#[test]
fn a_guest_that_offers_one_buffer_for_each_frame_gets_them_so() {
    let Some(mut guest) = Guest::new(F_MRG_RXBUF | F_TSO, &[1526; 20]) else {
        return;
    };
    for seed in 0..50 {
        guest.host.send(&frame(1514, seed));
        assert_eq!(guest.receive(), (frame(1514, seed), 1));
    }
}

#[test]
fn a_frame_that_fits_no_buffer_is_lost_and_the_next_one_comes() {
    let Some(mut guest) = Guest::new(F_MRG_RXBUF | F_TSO, &[500; 20]) else {
        return;
    };
    guest.host.send(&frame(1000, 1));
    guest.host.send(&frame(100, 2));
    assert_eq!(guest.receive().0, frame(100, 2));
    assert_eq!(guest.metrics.lost_to_guest.total(), 1);
}

#[test]
fn frames_wait_for_a_guest_that_has_no_room() {
    let Some(mut guest) = Guest::new(0, &[]) else {
        return;
    };
    guest.host.send(&frame(1514, 1));
    guest.host.send(&frame(60, 2));
    // One buffer too small for the first, then all that is needed.
    guest.make_room(&[600]);
    guest.make_room(&[600]);
    assert!(guest.driver.take_used(TO_GUEST).is_empty());
    guest.make_room(&[600, 600]);
    assert_eq!(guest.receive(), (frame(1514, 1), 3));
    assert_eq!(guest.receive().0, frame(60, 2));
}

#[test]
fn a_burst_arrives_whole_and_in_order() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    // As many as the tap keeps for who does not read.
    for seed in 0..200 {
        guest.host.send(&frame(700, seed));
    }
    for seed in 0..200 {
        assert_eq!(guest.receive().0, frame(700, seed));
    }
}

/// A TCP segment over IPv4 that is longer than the network's frames, to be cut by whoever needs to.
fn long_segment(payload: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
    let total = u16::try_from(40 + payload).expect("an IPv4 packet");
    let mut ip = vec![0x45, 0];
    ip.extend(total.to_be_bytes());
    ip.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend(ip);
    let mut tcp = vec![
        0x10, 0, 0x20, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ];
    tcp.extend((0..payload).map(|at| at.to_le_bytes()[0]));
    frame.extend(tcp);
    frame
}

#[test]
fn the_guest_leaves_checksums_and_cutting_to_the_host() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    let segment = long_segment(20_000);
    let mut header = vec![1, 1];
    header.extend(54u16.to_le_bytes());
    header.extend(1448u16.to_le_bytes());
    header.extend(34u16.to_le_bytes());
    header.extend(16u16.to_le_bytes());
    header.extend([0, 0]);
    guest.driver.request(
        TO_HOST,
        &[Buffer::Readable(header), Buffer::Readable(segment.clone())],
    );
    let mut seen = vec![0; 70_000];
    loop {
        let len = guest.host.socket.read(&mut seen).expect("a frame comes");
        if seen[12..14] == [8, 0] {
            assert_eq!(
                &seen[..len],
                &segment[..],
                "in one piece as far as the host's network"
            );
            break;
        }
    }
    assert_eq!(guest.metrics.lost_to_host.total(), 0);
}

#[test]
fn frames_that_are_none_are_dropped() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    let empty = guest
        .driver
        .request(TO_HOST, &[Buffer::Readable(vec![0; 5])]);
    assert_eq!(empty.written, 0);
    guest
        .driver
        .request(TO_HOST, &[Buffer::Readable(vec![0; HEADER])]);
    guest
        .driver
        .request(TO_HOST, &[Buffer::Readable(vec![0; 70_000])]);
    // A header that speaks of what is not there.
    let wild = [
        Buffer::Readable(vec![0xff; HEADER]),
        Buffer::Readable(frame(60, 1)),
    ];
    guest.driver.request(TO_HOST, &wild);
    assert_eq!(guest.metrics.lost_to_host.total(), 4);
    guest.send(&frame(60, 2));
    assert_eq!(guest.host.receive(), frame(60, 2));
}

#[test]
fn a_saved_card_goes_on_in_another_process_s_place() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    guest.host.send(&frame(300, 1));
    guest.receive();
    let state: TransportState = guest.driver.save();
    assert_eq!(
        state.device,
        DeviceState::Net(super::NetState { mac: Some(MAC) })
    );
    // The old card lets go of its tap, as the end of its process would.
    let Guest { driver, host, .. } = guest;
    let left = driver.leave();
    drop(host);
    let net = card();
    let mut guest = Guest {
        metrics: net.metrics(),
        host: Host::on("tap0"),
        driver: left.enter(Box::new(net), &state),
        received: VecDeque::new(),
    };
    guest.host.send(&frame(1514, 2));
    assert_eq!(guest.receive().0, frame(1514, 2));
    guest.send(&frame(60, 3));
    assert_eq!(guest.host.receive(), frame(60, 3));
}

#[test]
fn a_pause_loses_no_frame() {
    let Some(mut guest) = Guest::ordinary() else {
        return;
    };
    guest.driver.devices.pause();
    guest.host.send(&frame(500, 1));
    std::thread::yield_now();
    assert!(guest.driver.take_used(TO_GUEST).is_empty());
    guest.driver.devices.resume();
    assert_eq!(guest.receive().0, frame(500, 1));
}

#[test]
fn a_tap_that_is_not_there_for_us_is_refused() {
    if !enter_own_network() {
        return;
    }
    let first = card();
    let text = r#"{"iface_id": "eth0", "host_dev_name": "tap0"}"#;
    let interface: NetworkInterface = serde_json::from_str(text).expect("an interface");
    let second = Net::open(&interface);
    assert!(second.is_err(), "it has one end only");
    drop(first);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever a guest sends and offers, the card works after a reset.
    #[test]
    fn no_frames_stop_the_card(
        frames in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1600), 1..6), 0..20),
        rooms in prop::collection::vec(0usize..3000, 0..60),
    ) {
        let Some(mut guest) = Guest::new(0, &rooms) else {
            return Ok(());
        };
        for parts in frames {
            let buffers: Vec<_> = parts.into_iter().map(Buffer::Readable).collect();
            guest.driver.request(TO_HOST, &buffers);
            guest.host.send(&frame(800, 1));
        }
        guest.driver.initialize(0);
        guest.make_room(&[1536; 200]);
        guest.send(&frame(77, 7));
        while guest.host.receive() != frame(77, 7) {}
    }
}
