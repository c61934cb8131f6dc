//! Looking up names from a machine.

mod support;

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sprite_net::{GATEWAY, Network};
use support::*;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 54);
/// Longer than the relay waits for all resolvers together.
const PATIENT: Duration = Duration::from_secs(8);

/// A question for the address of a name of one label.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.push(u8::try_from(name.len()).expect("one label"));
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The answer to it: as many bytes of additional text as asked for behind the question.
fn answer(question: &[u8], flags: u8, code: u8, filler: usize) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2] |= 0x80 | flags;
    bytes[3] = 0x80 | code;
    bytes.resize(bytes.len() + filler, 0x5a);
    bytes
}

fn name(question: &[u8]) -> String {
    let end = 13 + usize::from(question[12]);
    String::from_utf8_lossy(&question[13..end]).into_owned()
}

/// A resolver on the host's loopback. What it does with a question, the question's name says.
fn start_resolver(ip: Ipv4Addr) -> Arc<AtomicUsize> {
    let (udp, tcp) = (
        UdpSocket::bind((ip, 53)).expect("bind"),
        TcpListener::bind((ip, 53)).expect("bind"),
    );
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            counter.fetch_add(1, Ordering::SeqCst);
            let question = &buffer[..length];
            let reply = match name(question).as_str() {
                "silent" => continue,
                "truncated" => answer(question, 0x02, 0, 0),
                "huge" => answer(question, 0, 0, 6000),
                "edge" => answer(question, 0, 0, 4096 - length),
                "broken" => answer(question, 0, 2, 0),
                "forged" => {
                    let mut foreign = answer(question, 0, 0, 0);
                    foreign[1] ^= 0xff;
                    udp.send_to(&foreign, from).expect("send");
                    udp.send_to(b"junk", from).expect("send");
                    answer(question, 0, 0, 7)
                }
                _usual => answer(question, 0, 0, 16),
            };
            udp.send_to(&reply, from).expect("send");
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                while let Ok(question) = read_frame(&mut stream) {
                    let filler = if name(&question) == "large" {
                        65_535 - question.len()
                    } else {
                        16
                    };
                    if write_frame(&mut stream, &answer(&question, 0, 0, filler)).is_err() {
                        return;
                    }
                }
            });
        }
    });
    asked
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).expect("a DNS message");
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat())
}

async fn by_udp(guest: &Path, bytes: Vec<u8>, within: Duration) -> io::Result<Vec<u8>> {
    inside(guest, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(within))?;
        socket.connect((GATEWAY, 53))?;
        socket.send(&bytes)?;
        let mut buffer = vec![0; 65_535];
        let length = socket.recv(&mut buffer)?;
        buffer.truncate(length);
        Ok(buffer)
    })
    .await
}

async fn by_tcp(guest: &Path, questions: Vec<Vec<u8>>) -> io::Result<Vec<Vec<u8>>> {
    inside(guest, move || {
        let mut stream = TcpStream::connect((GATEWAY, 53))?;
        stream.set_read_timeout(Some(PATIENT))?;
        let ask = |question: &Vec<u8>| {
            write_frame(&mut stream, question)?;
            read_frame(&mut stream)
        };
        questions.iter().map(ask).collect()
    })
    .await
}

#[test]
fn names_are_looked_up_by_udp_and_tcp_with_the_hosts_loopback_resolver() {
    on_a_host(|| async {
        start_resolver(FIRST);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let asked = question(0x1234, "example");
        let expected = answer(&asked, 0, 0, 16);
        let got = by_udp(&slot.guest_netns, asked.clone(), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got, expected);
        let second = question(7, "second");
        let both = vec![asked, second.clone()];
        let got = by_tcp(&slot.guest_netns, both).await.expect("answered");
        assert_eq!(got, [expected, answer(&second, 0, 0, 16)]);
    });
}

#[test]
fn large_and_truncated_answers_come_as_they_are_or_ask_for_tcp() {
    on_a_host(|| async {
        start_resolver(FIRST);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let guest = &slot.guest_netns;
        let truncated = question(1, "truncated");
        let got = by_udp(guest, truncated.clone(), PATIENT)
            .await
            .expect("answered");
        assert_eq!(
            got,
            answer(&truncated, 0x02, 0, 0),
            "the client asks again by TCP"
        );
        let got = by_udp(guest, question(2, "edge"), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got.len(), 4096, "the largest that is passed on");
        let got = by_udp(guest, question(3, "huge"), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got[2] & 0x82, 0x82, "larger: ask by TCP");
        assert!(got.len() < 100);
        let got = by_tcp(guest, vec![question(4, "large")])
            .await
            .expect("answered");
        assert_eq!(got[0].len(), 65_535);
    });
}

#[test]
fn forged_answers_are_not_taken() {
    on_a_host(|| async {
        start_resolver(FIRST);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let asked = question(9, "forged");
        let got = by_udp(&slot.guest_netns, asked.clone(), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got, answer(&asked, 0, 0, 7));
    });
}

#[test]
fn the_next_resolver_is_asked_when_one_fails_and_a_failure_is_told_in_time() {
    on_a_host(|| async {
        let asked_first = start_resolver(FIRST);
        let options = options(0);
        std::fs::write(
            &options.resolv_conf,
            format!("nameserver {SECOND}\nnameserver {FIRST}\n"),
        )
        .expect("written");
        let network = Network::open(options).await.expect("open");
        let slot = network.acquire().await.expect("slot");
        let guest = &slot.guest_netns;
        // Nobody listens on the first of the list: the kernel says so, and the second is asked at once.
        let asked = question(1, "example");
        let got = by_udp(guest, asked.clone(), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got, answer(&asked, 0, 0, 16));
        assert_eq!(asked_first.load(Ordering::SeqCst), 1);
        // "I cannot" of one is passed on when no other has more to say.
        let got = by_udp(guest, question(2, "broken"), PATIENT)
            .await
            .expect("answered");
        assert_eq!(got[3] & 0x0f, 2);
        // Silence is a failure after less time than a client waits.
        let got = by_udp(guest, question(3, "silent"), Duration::from_secs(5)).await;
        assert_eq!(got.expect("told in time")[3] & 0x0f, 2);
    });
}

#[test]
fn a_changed_resolv_conf_counts_from_the_next_question_on() {
    on_a_host(|| async {
        let first = start_resolver(FIRST);
        let second = start_resolver(SECOND);
        let options = options(0);
        let path = options.resolv_conf.clone();
        let network = Network::open(options).await.expect("open");
        let slot = network.acquire().await.expect("slot");
        by_udp(&slot.guest_netns, question(1, "a"), PATIENT)
            .await
            .expect("answered");
        std::fs::write("/run/new", format!("nameserver {SECOND}\n")).expect("written");
        std::fs::rename("/run/new", path).expect("replaced");
        by_udp(&slot.guest_netns, question(2, "b"), PATIENT)
            .await
            .expect("answered");
        assert_eq!(
            (first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)),
            (1, 1)
        );
    });
}

#[test]
fn what_is_no_question_is_answered_or_ignored_and_harms_nothing() {
    on_a_host(|| async {
        let resolver = start_resolver(FIRST);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let guest = &slot.guest_netns;
        let good = question(5, "example");
        for ignored in [
            vec![],
            vec![0; 11],
            answer(&good, 0, 0, 0),
            vec![0x5a; 4097],
            vec![0xff; 60_000],
        ] {
            let length = ignored.len();
            let got = by_udp(guest, ignored, SHORT).await;
            assert!(got.is_err(), "{length} bytes were answered with {got:?}");
        }
        let cut = by_udp(guest, good[..good.len() - 1].to_vec(), PATIENT)
            .await
            .expect("answered");
        assert_eq!((cut.len(), cut[3] & 0x0f), (12, 1));
        let mut update = good.clone();
        update[2] |= 5 << 3;
        let refused = by_udp(guest, update, PATIENT).await.expect("answered");
        assert_eq!(refused[3] & 0x0f, 4);
        // A frame that announces more than comes, then the end.
        inside(guest, || {
            let mut stream = TcpStream::connect((GATEWAY, 53)).expect("connect");
            stream.write_all(&[0xff, 0xff, 1, 2, 3]).expect("send");
        })
        .await;
        assert!(
            by_tcp(guest, vec![vec![]]).await.is_err(),
            "an empty frame ends the connection"
        );
        assert_eq!(
            resolver.load(Ordering::SeqCst),
            0,
            "none of it reached the resolver"
        );
        assert!(by_udp(guest, good, PATIENT).await.is_ok());
    });
}

#[test]
fn a_flood_is_bounded_and_does_not_stop_another_machine() {
    on_a_host(|| async {
        let resolver = start_resolver(FIRST);
        let (network, _) = open(0).await;
        let noisy = network.acquire().await.expect("slot");
        let quiet = network.acquire().await.expect("slot");
        inside(&noisy.guest_netns, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
            for id in 0..5000 {
                // A full buffer on the way refuses some: that is the bound at work.
                let _ = socket.send_to(&question(id, "silent"), (GATEWAY, 53));
            }
            // Idle connections up to more than a machine may have.
            let target = SocketAddr::from((GATEWAY, 53));
            let idle: Vec<_> = (0..40)
                .map(|_| TcpStream::connect_timeout(&target, SHORT))
                .collect();
            std::mem::forget(idle);
        })
        .await;
        let started = std::time::Instant::now();
        for id in 0..20 {
            let got = by_udp(&quiet.guest_netns, question(id, "example"), PATIENT).await;
            assert!(got.is_ok(), "{got:?}");
        }
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        // Each of the 32 in flight is asked once or twice in this time, not 5,000 times.
        let asked = resolver.load(Ordering::SeqCst);
        assert!(
            asked <= 20 + 2 * 32 * 2,
            "{asked} questions reached the resolver"
        );
    });
}

#[test]
fn only_the_machine_itself_reaches_its_name_server() {
    on_a_host(|| async {
        start_resolver(FIRST);
        let (network, _) = open(0).await;
        let slot = network.acquire().await.expect("slot");
        let other = network.acquire().await.expect("slot");
        let outside = (slot.outside_ip, 53).into();
        for namespace in [host(), internet(), &other.guest_netns] {
            assert!(try_tcp(namespace, outside).await.is_err());
        }
    });
}

#[test]
fn after_a_crash_the_name_server_answers_again() {
    on_a_host(|| async {
        start_resolver(FIRST);
        let options = options(0);
        let before = Network::open(options.clone()).await.expect("open");
        let slot = before.acquire().await.expect("slot");
        let guest = &slot.guest_netns;
        drop(before);
        let deadline = std::time::Instant::now() + LONG;
        while by_udp(guest, question(1, "a"), SHORT).await.is_ok() {
            assert!(
                std::time::Instant::now() < deadline,
                "the old one still answers"
            );
        }
        let after = Network::open(options).await.expect("open again");
        after.adopt(slot.id).await.expect("adopted");
        assert!(by_udp(guest, question(2, "b"), PATIENT).await.is_ok());
        assert!(by_tcp(guest, vec![question(3, "c")]).await.is_ok());
    });
}
