//! A machine that is closed: nothing gets out, and nothing that was out comes back.

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use sprite_net::{GATEWAY, Network};
use sprite_types::Egress;
use support::*;

/// One question for the address of `x`.
const QUESTION: [u8; 19] = [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1];
const REFUSED: u8 = 5;

/// The code of the gateway's answer to a question by UDP and by TCP.
async fn look_up(namespace: &Path) -> [u8; 2] {
    inside(namespace, || {
        let udp = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        udp.set_read_timeout(Some(LONG)).expect("a limit");
        udp.send_to(&QUESTION, (GATEWAY, 53)).expect("send");
        let mut answer = [0; 512];
        udp.recv(&mut answer).expect("an answer");
        let by_udp = answer[3] & 0xf;
        let mut tcp = TcpStream::connect((GATEWAY, 53)).expect("connect");
        tcp.set_read_timeout(Some(LONG)).expect("a limit");
        let length = u16::try_from(QUESTION.len()).expect("short");
        tcp.write_all(&length.to_be_bytes()).expect("send");
        tcp.write_all(&QUESTION).expect("send");
        tcp.read_exact(&mut answer[..6]).expect("an answer");
        [by_udp, answer[5] & 0xf]
    })
    .await
}

/// A resolver that has an answer to everything.
fn start_resolver() {
    let udp = UdpSocket::bind("127.0.0.53:53").expect("bind");
    let tcp = TcpListener::bind("127.0.0.53:53").expect("bind");
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            let _ = udp.send_to(&buffer[..length], from);
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut frame = [0; QUESTION.len() + 2];
            if stream.read_exact(&mut frame).is_ok() {
                frame[4] |= 0x80;
                let _ = stream.write_all(&frame);
            }
        }
    });
}

/// Sends one ICMP echo request by a raw socket, and one packet of a protocol that nobody knows.
async fn send_raw(namespace: &Path) {
    inside(namespace, || {
        for protocol in [1_u8, 253] {
            let kind = rustix::net::SocketType::RAW;
            let protocol = rustix::net::Protocol::from_raw(
                std::num::NonZeroU32::new(protocol.into()).expect("not zero"),
            );
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET, kind, Some(protocol))
                    .expect("a raw socket");
            // Type 8, code 0, checksum of an otherwise empty message.
            let echo = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
            let to = std::net::SocketAddrV4::new(INTERNET, 0);
            // Refusal at once and silence are both fine.
            let _ = rustix::net::sendto(&socket, &echo, rustix::net::SendFlags::empty(), &to);
        }
    })
    .await;
}

/// How many packets of IPv4 have come to the internet.
async fn arrived() -> u64 {
    inside(internet(), || {
        let text = std::fs::read_to_string("/proc/thread-self/net/snmp").expect("counters");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
        let names = lines.next().expect("names").split(' ');
        let counters = lines.next().expect("counters").split(' ');
        let received = names.zip(counters).find(|(name, _)| *name == "InReceives");
        received.expect("a counter").1.parse().expect("a number")
    })
    .await
}

/// A connection that stays open, and what its machine still gets over it.
struct Held(
    std::sync::mpsc::Sender<()>,
    std::sync::mpsc::Receiver<io::Result<()>>,
);

impl Held {
    async fn new(namespace: &Path, server: SocketAddr) -> Self {
        let (ask, asked) = std::sync::mpsc::channel();
        let (told, tell) = std::sync::mpsc::channel();
        let stream = inside(namespace, move || TcpStream::connect_timeout(&server, LONG)).await;
        let mut stream = stream.expect("connected");
        stream.set_read_timeout(Some(LONG)).expect("a limit");
        std::thread::spawn(move || {
            while asked.recv().is_ok() {
                let echoed = stream
                    .write_all(b"x")
                    .and_then(|()| stream.read_exact(&mut [0]));
                if told.send(echoed).is_err() {
                    return;
                }
            }
        });
        Self(ask, tell)
    }

    fn echo(&self) -> io::Result<()> {
        self.0.send(()).expect("the thread is there");
        self.1.recv().expect("the thread is there")
    }
}

async fn serve_echo(namespace: &Path) -> SocketAddr {
    let listener = inside(namespace, || {
        TcpListener::bind((INTERNET, 0)).expect("listen")
    })
    .await;
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    address
}

async fn assert_closed(namespace: &Path, server: SocketAddr) {
    let (udp, received) = receive_udp(internet(), (INTERNET, 0)).await;
    let before = arrived().await;
    for _ in 0..3 {
        let refused = try_tcp(namespace, server).await.expect_err("closed");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "at once");
    }
    let _ = send_udp(namespace, udp).await;
    send_raw(namespace).await;
    assert_eq!(look_up(namespace).await, [REFUSED, REFUSED]);
    assert!(received.recv_timeout(SHORT).is_err(), "a datagram got out");
    assert_eq!(arrived().await, before, "a packet got out");
}

#[test]
fn nothing_gets_out_of_a_machine_that_is_closed() {
    on_a_host(|| async {
        start_resolver();
        let (network, _) = open(0).await;
        let server = serve_echo(internet()).await;
        let slot = network.acquire().await.expect("slot");
        let neighbour = network.acquire().await.expect("slot");
        let (ours, theirs) = (
            Held::new(&slot.guest_netns, server).await,
            Held::new(&neighbour.guest_netns, server).await,
        );
        ours.echo().expect("open");
        assert_eq!(look_up(&slot.guest_netns).await, [0, 0]);

        network
            .set_egress(slot.id, Egress::Closed)
            .await
            .expect("close");
        assert!(ours.echo().is_err(), "a connection that it had is cut");
        assert_closed(&slot.guest_netns, server).await;
        network
            .set_egress(slot.id, Egress::Closed)
            .await
            .expect("twice is once");
        assert_closed(&slot.guest_netns, server).await;
        theirs.echo().expect("the other machine is as it was");
        assert_eq!(look_up(&neighbour.guest_netns).await, [0, 0]);

        network
            .set_egress(slot.id, Egress::Open)
            .await
            .expect("open");
        Held::new(&slot.guest_netns, server)
            .await
            .echo()
            .expect("open again");
        assert_eq!(look_up(&slot.guest_netns).await, [0, 0]);
    });
}

#[test]
fn a_slot_stays_closed_when_its_process_is_gone_and_when_another_adopts_it() {
    on_a_host(|| async {
        start_resolver();
        let options = options(0);
        let network = Network::open(options.clone()).await.expect("open");
        let server = serve_echo(internet()).await;
        let slot = network.acquire().await.expect("slot");
        network
            .set_egress(slot.id, Egress::Closed)
            .await
            .expect("close");
        // As after a crash.
        drop(network);
        let namespace: PathBuf = slot.guest_netns.clone();
        assert!(try_tcp(&namespace, server).await.is_err());
        let network = Network::open(options).await.expect("open again");
        network.adopt(slot.id).await.expect("adopt");
        assert_closed(&namespace, server).await;

        network.release(slot.id).await.expect("release");
        let fresh = network.acquire().await.expect("another slot");
        let said = Held::new(&fresh.guest_netns, server).await.echo();
        said.expect("the next machine has nothing of it");
    });
}

#[test]
fn what_is_no_slot_can_be_neither_closed_nor_opened() {
    on_a_host(|| async {
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        network.release(slot.id).await.expect("release");
        for egress in [Egress::Closed, Egress::Open] {
            let refused = network.set_egress(slot.id, egress).await;
            assert!(refused.is_err(), "{egress:?}");
        }
    });
}
