//! A host of the test's own: a network namespace with an uplink, a private network beside it and a mount
//! namespace with an empty `/run`. Nothing of the real host is touched, and tests run side by side.
//!
//! ```text
//!  "internet" 203.0.113.80 ── 192.0.2.1 ── up0 192.0.2.2 (host) lan0 192.168.7.1 ── 192.168.7.2 "lan"
//! ```
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};
use sprite_net::{NetOptions, Network};

/// An address of the internet.
pub const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// The host's address towards it.
pub const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The host's address on its private network, and its neighbour there.
pub const HOST_LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
pub const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);
/// Within one machine everything that arrives at all arrives within this.
pub const SHORT: Duration = Duration::from_millis(300);
/// Less than the second after which the kernel sends a lost first packet again.
pub const ONE_TRY: Duration = Duration::from_millis(900);
pub const LONG: Duration = Duration::from_secs(10);

/// Runs a test on a host of its own, on a runtime whose threads all stand there. Without root, or without the
/// two programs that make up the surroundings, the test says so and passes.
pub fn on_a_host<F>(test: impl FnOnce() -> F + Send + 'static)
where
    F: Future<Output = ()>,
{
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: needs root for network namespaces");
    }
    if Command::new("ip").arg("-V").output().is_err()
        || Command::new("nft").arg("-v").output().is_err()
    {
        return eprintln!("skipped: needs the programs ip (iproute2) and nft (nftables)");
    }
    let host = std::thread::spawn(move || {
        // SAFETY: file descriptor tables stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }.expect("unshare");
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .expect("private mounts");
        mount("none", "/run", "tmpfs", MountFlags::empty(), None).expect("an empty /run");
        set_up_host();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(test());
    });
    if let Err(panic) = host.join() {
        std::panic::resume_unwind(panic);
    }
}

fn set_up_host() {
    for line in [
        "ip link set lo up",
        "ip netns add internet",
        "ip link add up0 type veth peer name eth0 netns internet",
        "ip addr add 192.0.2.2/24 dev up0",
        "ip link set up0 mtu 1400 up",
        "ip -n internet link set lo up",
        "ip -n internet addr add 192.0.2.1/24 dev eth0",
        "ip -n internet addr add 203.0.113.80/32 dev lo",
        "ip -n internet link set eth0 mtu 1400 up",
        "ip route add default via 192.0.2.1",
        "ip netns add lan",
        "ip link add lan0 type veth peer name eth0 netns lan",
        "ip addr add 192.168.7.1/24 dev lan0",
        "ip link set lan0 up",
        "ip -n lan addr add 192.168.7.2/24 dev eth0",
        "ip -n lan link set eth0 up",
        "ip -n lan route add default via 192.168.7.1",
    ] {
        run(line);
    }
}

/// Runs a command, words split at spaces; it must succeed.
pub fn run(line: &str) -> String {
    let mut words = line.split(' ');
    let output = Command::new(words.next().expect("a program"))
        .args(words)
        .output()
        .expect("run");
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Feeds a rule set to nft.
pub fn nft(rules: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("run nft");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(rules.as_bytes())
        .expect("write rules");
    assert!(child.wait().expect("nft ends").success(), "{rules}");
}

/// Options for a new instance; its resolvers are in a file that says 127.0.0.53.
pub fn options(pool_size: usize) -> NetOptions {
    let resolv_conf = PathBuf::from("/run/resolv.conf");
    fs::write(&resolv_conf, "nameserver 127.0.0.53\n").expect("write resolv.conf");
    let instance = sprite_types::InstanceId::random();
    NetOptions {
        pool_size,
        resolv_conf,
        ..NetOptions::new(instance)
    }
}

pub async fn open(pool_size: usize) -> (Network, sprite_types::InstanceId) {
    let options = options(pool_size);
    let instance = options.instance.clone();
    (Network::open(options).await.expect("open"), instance)
}

/// Waits until `state` says yes; panics with what it last said.
pub async fn eventually<T: std::fmt::Debug>(what: &str, state: impl Fn() -> Result<(), T>) {
    let deadline = Instant::now() + LONG;
    while let Err(last) = state() {
        assert!(Instant::now() < deadline, "{what}: still {last:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs blocking work in a namespace, on a thread of its own, and waits for it without blocking the runtime.
pub async fn inside<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let namespace = fs::File::open(namespace).expect("namespace");
    tokio::task::spawn_blocking(move || {
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the namespace");
            work()
        })
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .await
    .expect("the thread ends")
}

pub fn internet() -> &'static Path {
    Path::new("/run/netns/internet")
}

pub fn lan() -> &'static Path {
    Path::new("/run/netns/lan")
}

pub fn host() -> &'static Path {
    // The thread's own namespace: every thread of the runtime stands on the test's host.
    Path::new("/proc/thread-self/ns/net")
}

/// Listens in a namespace by TCP: every connection is told the address that it comes from.
pub async fn serve_tcp(namespace: &Path, address: impl Into<SocketAddr>) -> SocketAddr {
    let address = address.into();
    let listener = inside(namespace, move || {
        TcpListener::bind(address).expect("listen")
    })
    .await;
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            if let Ok(peer) = stream.peer_addr() {
                // A client that is gone is no concern of the server's.
                let _ = stream.write_all(peer.ip().to_string().as_bytes());
            }
        }
    });
    address
}

/// Receives datagrams in a namespace; each is told on the channel with its sender.
pub async fn receive_udp(
    namespace: &Path,
    address: impl Into<SocketAddr>,
) -> (SocketAddr, std::sync::mpsc::Receiver<SocketAddr>) {
    let address = address.into();
    let socket = inside(namespace, move || UdpSocket::bind(address).expect("bind")).await;
    let address = socket.local_addr().expect("address");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
            if sender.send(from).is_err() {
                return;
            }
        }
    });
    (address, receiver)
}

/// Connects from a namespace, and returns what the other end says. A lost packet is a failure.
pub async fn ask_tcp(namespace: &Path, address: SocketAddr) -> io::Result<String> {
    connect_tcp(namespace, address, ONE_TRY).await
}

/// Connects where it should not succeed.
pub async fn try_tcp(namespace: &Path, address: SocketAddr) -> io::Result<String> {
    connect_tcp(namespace, address, SHORT).await
}

async fn connect_tcp(
    namespace: &Path,
    address: SocketAddr,
    within: Duration,
) -> io::Result<String> {
    inside(namespace, move || {
        let mut stream = TcpStream::connect_timeout(&address, within)?;
        stream.set_read_timeout(Some(LONG))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    })
    .await
}

/// Sends one datagram from a namespace.
pub async fn send_udp(namespace: &Path, address: SocketAddr) -> io::Result<()> {
    inside(namespace, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(b"x", address).map(drop)
    })
    .await
}

/// Everything on the host that carries an instance's id.
pub fn traces(instance: &sprite_types::InstanceId) -> Vec<String> {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let mut found = Vec::new();
    found.extend(lines(run("ip -o link")));
    found.extend(lines(run("nft list tables")));
    found.extend(lines(
        fs::read_to_string("/proc/self/mountinfo").expect("mountinfo"),
    ));
    found.extend(lines(
        fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo"),
    ));
    for directory in [
        "/run/netns",
        "/run/sprited-net/forwarding",
        "/run/sprited-net/forwarding/up0",
    ] {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        found.extend(entries.map(|e| e.expect("entry").path().display().to_string()));
    }
    found.retain(|line| line.contains(instance.as_str()));
    // A claim has no name; its metric is the instance, and only ours have this protocol.
    found.extend(
        lines(run("ip route show proto 83"))
            .into_iter()
            .filter(|line| {
                line.contains("unreachable")
                    && line.contains(&format!("metric {}", metric(instance)))
            }),
    );
    found
}

fn metric(instance: &sprite_types::InstanceId) -> u32 {
    let alphabet = "abcdefghijklmnopqrstuvwxyz234567";
    instance.as_str().chars().fold(0, |number, c| {
        let digit = alphabet.find(c).expect("base 32");
        (number << 5) | u32::try_from(digit).expect("below 32")
    })
}

/// Whether the host forwards what comes in by an interface (`all`: its global switch).
pub fn forwarding(link: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/conf/{link}/forwarding");
    fs::read_to_string(path).expect("switch").trim().to_owned()
}
