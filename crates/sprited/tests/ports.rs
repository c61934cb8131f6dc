//! Ports of real machines: what listens in a sprite is told, and is reached from outside as if it stood here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::ErrorKind;
use std::time::Duration;

use harness::{Server, driver, eventually, ready, text};
use sprite_client::{Child, ConnectError, Connection, PortChange, Sprite, Stdio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// Far beyond anything that is waited for: only so that a test that fails ends.
const LONG: Duration = Duration::from_secs(60);

/// A server in Perl, which every base image has: listens on `$ARGV[0]`, port `$ARGV[1]`, says so, and serves each
/// connection `$c` in a process of its own.
fn serving(each: &str) -> String {
    format!(
        r#"use IO::Socket::IP; $| = 1; $SIG{{CHLD}} = 'IGNORE';
        my $s = IO::Socket::IP->new(LocalHost => $ARGV[0], LocalPort => $ARGV[1], Listen => 4096, ReuseAddr => 1,
            GetAddrInfoFlags => 0)
            or die "listen: $!";
        print "listening\n";
        while (my $c = $s->accept) {{ next if fork; close $s; binmode $c; {each}; close $c; exit }}"#
    )
}

const ECHO: &str = "while (sysread($c, my $b, 65536)) { syswrite($c, $b) or exit }";

/// Starts a server; it listens when this returns.
async fn serve(sprite: &Sprite, each: &str, address: &str, port: u16) -> Child {
    let mut command = sprite.command("perl");
    command = command.args(["-e", &serving(each), address, &port.to_string()]);
    let mut child = command.stdin(Stdio::Null).spawn().await.unwrap();
    let mut said = [0; 10];
    let stdout = child.stdout.as_mut().unwrap();
    timeout(LONG, stdout.read_exact(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&said, b"listening\n");
    child
}

async fn said_of(connection: &mut Connection) -> String {
    let mut said = String::new();
    timeout(LONG, connection.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    said
}

fn resident_mib(pid: u64) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() / 1024
}

/// An echo, an end of one direction, a refusal, IPv6, and what is not the sprite's.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_reached_as_if_it_stood_here() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    let _echo = serve(&sprite, ECHO, "127.0.0.1", 3000).await;
    let mut connection = sprite.connect("localhost", 3000).await.unwrap();
    assert_eq!(connection.target(), "127.0.0.1:3000");
    connection.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    connection.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ping");
    // Its end goes there, and what is said after it still comes here.
    let counting = r#"my $n = 0; while (my $r = sysread($c, my $b, 65536)) { $n += $r } syswrite($c, "$n bytes")"#;
    let _counter = serve(&sprite, counting, "::1", 3001).await;
    let mut connection = sprite.connect("localhost", 3001).await.unwrap();
    assert_eq!(connection.target(), "[::1]:3001");
    connection.write_all(&vec![7; 300_000]).await.unwrap();
    connection.shutdown().await.unwrap();
    assert_eq!(said_of(&mut connection).await, "300000 bytes");
    // The other way round: the port ends first, and still hears.
    let deaf = r#"syswrite($c, "bye"); shutdown($c, 1); open(my $f, '>', '/tmp/heard');
        while (sysread($c, my $b, 65536)) { syswrite($f, $b) }"#;
    let _bye = serve(&sprite, deaf, "10.0.0.1", 3002).await;
    let mut connection = sprite.connect("10.0.0.1", 3002).await.unwrap();
    assert_eq!(said_of(&mut connection).await, "bye");
    connection.write_all(b"good night").await.unwrap();
    connection.shutdown().await.unwrap();
    drop(connection);
    eventually(LONG, async || {
        match text(&sprite, "cat /tmp/heard").await.as_str() {
            "good night" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    let nobody = sprite.connect("localhost", 9).await.map(drop);
    assert!(
        matches!(&nobody, Err(ConnectError::Refused { code, .. }) if code == "connection_refused"),
        "{nobody:?}"
    );
    for elsewhere in ["10.0.0.2", "example.com", "203.0.113.1"] {
        let Err(ConnectError::Call(refused)) = sprite.connect(elsewhere, 80).await else {
            panic!("{elsewhere} was not refused");
        };
        let code = refused.refusal().map(|refusal| refusal.code.as_str());
        assert_eq!(code, Some("invalid_request"), "{elsewhere}: {refused}");
    }
    server.finish();
}

/// A reset is a reset on the other side too, whoever's it was, and never an end.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_does_not_end() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    // SO_LINGER with 0 s: the close is a reset.
    let reset = r#"sysread($c, my $b, 1); setsockopt($c, 1, 13, pack("ii", 1, 0))"#;
    let _server = serve(&sprite, reset, "127.0.0.1", 3000).await;
    let mut connection = sprite.connect("localhost", 3000).await.unwrap();
    connection.write_all(b"x").await.unwrap();
    let mut rest = Vec::new();
    let read = timeout(LONG, connection.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    // A client that vanishes: the port's read fails.
    let noting = r#"syswrite($c, "x"); my $r = sysread($c, my $b, 1);
        open(my $f, '>', '/tmp/end'); print $f (defined $r ? "end" : "error")"#;
    let _noting = serve(&sprite, noting, "127.0.0.1", 3001).await;
    let address = server.url().trim_start_matches("http://").to_owned();
    let mut raw = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "GET /v1/sprites/s/proxy HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.token()
    );
    raw.write_all(request.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        assert_ne!(raw.read_buf(&mut seen).await.unwrap(), 0);
    }
    let hello = br#"{"host":"localhost","port":3001}"#;
    let frame = [
        &[0x81, 0x80 | u8::try_from(hello.len()).unwrap(), 0, 0, 0, 0],
        &hello[..],
    ]
    .concat();
    raw.write_all(&frame).await.unwrap();
    while !seen.ends_with(b"\x82\x01x") {
        assert_ne!(
            timeout(LONG, raw.read_buf(&mut seen))
                .await
                .unwrap()
                .unwrap(),
            0
        );
    }
    drop(raw);
    eventually(LONG, async || {
        match text(&sprite, "cat /tmp/end 2>&1 || true").await.as_str() {
            "error" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    server.finish();
}

/// A GiB comes through whole, and one whose reader does not read stops its writer: memory does not grow.
#[tokio::test(flavor = "multi_thread")]
async fn a_gigabyte_goes_through_in_bounded_memory() {
    const GIB: usize = 1 << 30;
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    let pouring = r#"my $b = "x" x 65536; for (1..16384) { my $o = 0;
        while ($o < 65536) { my $w = syswrite($c, $b, 65536 - $o, $o) or exit; $o += $w } }"#;
    let _server = serve(&sprite, pouring, "127.0.0.1", 3000).await;
    let mut slow = Vec::new();
    for _ in 0..8 {
        slow.push(sprite.connect("localhost", 3000).await.unwrap());
    }
    let mut connection = sprite.connect("localhost", 3000).await.unwrap();
    let mut buffer = vec![0; 1 << 20];
    let (mut seen, mut most) = (0, 0);
    loop {
        match timeout(LONG, connection.read(&mut buffer))
            .await
            .unwrap()
            .unwrap()
        {
            0 => break,
            count => seen += count,
        }
        if seen % (1 << 24) < (1 << 16) {
            most = most.max(resident_mib(server.pid().into()));
        }
    }
    assert_eq!(seen, GIB);
    assert!(most < 256, "sprited grew to {most} MiB");
    if driver() == "container" {
        // A virtual machine has its memory, and its agent is seen by nobody outside.
        assert!(resident_mib(server.agent_pid()) < 256);
    }
    // Those that waited go on where they stopped.
    let mut last = slow.pop().unwrap();
    let mut seen = 0;
    while seen < 64 << 20 {
        seen += timeout(LONG, last.read(&mut buffer))
            .await
            .unwrap()
            .unwrap();
    }
    server.finish();
}

/// As many as clients may want at once, all of them there at the same time.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_live_side_by_side() {
    const COUNT: usize = 1000;
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    // One process for all: a thousand would meet the sprite's own limit.
    let echo = r#"use IO::Socket::IP; use IO::Select; $| = 1;
        my $s = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 3000, Listen => 4096, ReuseAddr => 1) or die;
        my $all = IO::Select->new($s); print "listening\n";
        while (my @r = $all->can_read) { for my $c (@r) {
            if ($c == $s) { $all->add($s->accept) }
            elsif (sysread($c, my $b, 4096)) { syswrite($c, $b) } else { $all->remove($c); close $c } } }"#;
    // More files than the usual limit, which select(2) cannot take: perl's select grows its sets.
    let line = "ulimit -n 4096; exec perl -e \"$0\"";
    let mut child = sprite
        .command("sh")
        .args(["-c", line, echo])
        .spawn()
        .await
        .unwrap();
    let mut said = [0; 10];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .await
        .unwrap();
    let mut connections = Vec::new();
    for some in 0..10 {
        let connecting = (0..COUNT / 10).map(|_| sprite.connect("localhost", 3000));
        for connected in futures_util::future::join_all(connecting).await {
            connections.push(connected.unwrap_or_else(|error| panic!("{some}: {error}")));
        }
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        let said = format!("{number:04}");
        connection.write_all(said.as_bytes()).await.unwrap();
    }
    for (number, connection) in connections.iter_mut().enumerate() {
        let mut back = [0; 4];
        timeout(LONG, connection.read_exact(&mut back))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(back, *format!("{number:04}").as_bytes());
    }
    assert_eq!(text(&sprite, "echo others work").await, "others work");
    drop(connections);
    // Their ends arrive, and there is room again.
    let again = sprite.connect("localhost", 3000).await;
    assert!(again.is_ok());
    server.finish();
}

/// Ports are told with their process and their bound address, to a watch and beside a session, and their closing too.
#[tokio::test(flavor = "multi_thread")]
async fn ports_are_told_as_they_open_and_close() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    let _before = serve(&sprite, ECHO, "::", 3000).await;
    let mut ports = sprite.ports().await.unwrap();
    let first: Vec<_> = ports
        .at_first()
        .iter()
        .map(|port| (port.port, port.address.as_str()))
        .collect();
    assert_eq!(first, [(3000, "::")]);
    let mut child = serve(&sprite, ECHO, "127.0.0.1", 3001).await;
    let pid = child.session().unwrap().id.0;
    let opened = timeout(LONG, ports.next()).await.unwrap().unwrap().unwrap();
    let PortChange::Opened(port) = &opened else {
        panic!("{opened:?}")
    };
    assert_eq!(
        (port.port, port.address.as_str(), port.pid),
        (3001, "127.0.0.1", pid)
    );
    let beside = timeout(LONG, child.ports.as_mut().unwrap().next())
        .await
        .unwrap();
    assert_eq!(
        beside,
        Some(opened.clone()),
        "and not the port that was there before"
    );
    child
        .controls()
        .signal(&sprite_client::Signal::term())
        .await
        .unwrap();
    let closed = timeout(LONG, ports.next()).await.unwrap().unwrap();
    assert_eq!(closed, Some(PortChange::Closed(port.clone())));
    server.finish();
}

/// A program that opens and closes ports in a loop costs little, and its last state is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_ports_is_told_in_measure() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("s").await;
    let mut ports = sprite.ports().await.unwrap();
    let storm = r#"use IO::Socket::IP; my $n = 0; my $end = time + 3;
        while (time < $end) { my @s = map { IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 4000 + $_,
            Listen => 1, ReuseAddr => 1) } 0..49; $n += @s }
        $| = 1; print "$n\n"; my $last = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 5000, Listen => 1) or die;
        sleep 1000"#;
    let mut child = sprite
        .command("perl")
        .args(["-e", storm])
        .spawn()
        .await
        .unwrap();
    let mut open = std::collections::BTreeSet::new();
    let mut told = 0_u32;
    loop {
        match timeout(LONG, ports.next()).await.unwrap().unwrap().unwrap() {
            PortChange::Opened(port) => assert!(open.insert(port.port), "{port:?} is open already"),
            PortChange::Closed(port) => assert!(open.remove(&port.port), "{port:?} is not open"),
        }
        told += 1;
        if open.iter().eq([&5000]) {
            break;
        }
    }
    let mut opened = String::new();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    timeout(LONG, stdout.read_line(&mut opened))
        .await
        .unwrap()
        .unwrap();
    let opened: u32 = opened.trim().parse().unwrap();
    // Fifty ports, ten times a second at most, opened and closed.
    assert!(
        told < 50 * 10 * 2 * 5,
        "{told} changes were told of {opened}"
    );
    server.finish();
}
