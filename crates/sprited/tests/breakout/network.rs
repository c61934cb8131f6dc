//! The host's addresses, and a neighbour's.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::time::Duration;

use crate::attack::{As, begin, bring, line, shell, withstand};
use crate::harness::{Server, ready};

/// The host's own addresses, loopback, links of other namespaces and all.
fn addresses() -> Vec<String> {
    let shown = Command::new("ip")
        .args(["-o", "addr", "show"])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let cidr = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    let all = text
        .lines()
        .filter(|line| !line.contains(" scope link"))
        .filter_map(cidr);
    all.filter_map(|cidr| cidr.split('/').next().map(str::to_owned))
        .collect()
}

/// Not a byte to a listener of the host on any of its addresses, nor to metadata addresses, nor to the API.
#[tokio::test]
async fn no_address_of_the_host_answers() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("caller").await;
    bring(&sprite).await;
    let tcp = TcpListener::bind("[::]:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let udp = UdpSocket::bind(("0.0.0.0", port)).unwrap();
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let name = format!("sprited-attack-{}", std::process::id());
    let local = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    local.set_nonblocking(true).unwrap();
    let api = server.url().rsplit_once(':').unwrap().1.to_owned();
    let gateway = shell(&sprite, "ip route show default | cut -d' ' -f3").await;
    let mut targets = vec!["network".to_owned(), format!("@{name}")];
    for address in addresses().iter().map(String::as_str).chain([
        "169.254.169.254",
        "169.254.170.2",
        gateway.trim(),
        "0.0.0.0",
        "127.0.0.1",
    ]) {
        for port in [port.to_string().as_str(), &api, "22", "80"] {
            let v6 = address.contains(':');
            targets.push(if v6 {
                format!("[{address}]:{port}")
            } else {
                format!("{address}:{port}")
            });
        }
    }
    let args: Vec<&str> = targets.iter().map(String::as_str).collect();
    for by in [As::User, As::Root] {
        withstand(&sprite, by, &args).await;
    }
    assert!(tcp.accept().is_err(), "a connection arrived");
    assert!(udp.recv(&mut [0; 16]).is_err(), "a datagram arrived");
    assert!(local.accept().is_err(), "a local connection arrived");
    server.finish();
}

/// The first addresses of a server's range, where its machines are.
fn neighbours(log: &str) -> Vec<Ipv4Addr> {
    let subnet = log
        .split("subnet=")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap();
    let first: Ipv4Addr = subnet.parse().unwrap();
    (0..48)
        .map(|n| Ipv4Addr::from_bits(first.to_bits() + n))
        .collect()
}

/// Of two sprites on one server none reaches a service of the other, whatever address it tries.
#[tokio::test]
async fn no_neighbour_answers() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let (one, two) = (server.sprite("one").await, server.sprite("two").await);
    for sprite in [&one, &two] {
        bring(sprite).await;
    }
    let mut service = begin(&one, As::User, &["serve"]).await;
    line(&mut service, "serving").await;
    let targets: Vec<String> = neighbours(&server.log())
        .iter()
        .map(|ip| format!("{ip}:8080"))
        .collect();
    let mut args = vec!["network"];
    args.extend(targets.iter().map(String::as_str));
    withstand(&two, As::Root, &args).await;
    // The service is there: its own sprite reaches it.
    let own = "timeout 5 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8080; head -c 9 <&3'";
    assert_eq!(shell(&one, own).await, "neighbour");
    let session = service.session().unwrap().id;
    one.kill(
        session,
        &sprite_client::Signal::kill(),
        Duration::from_secs(5),
    )
    .await
    .unwrap();
    server.finish();
}
