//! Many sleeps, and many sleepers: a WebSocket at a sprite's URL, whose client counts and is answered over a thousand
//! sleeps; sprites that all wake at once.
//! Source: behaviour reference §4.1, RFC 6455.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use harness::{Server, eventually, patiently, ready, text};
use sprite_client::{Sprite, UrlSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far beyond anything that is waited for: only so that a test that fails ends.
const LONG: Duration = Duration::from_secs(120);

/// A WebSocket server for the key of RFC 6455 §1.3. Each message is a number, which must be the next one: it is
/// answered, each fifth only after a moment's thought, and anything else ends the connection.
const SOCKET: &str = r#"use IO::Socket::INET; my $next = 0; sub get { my $b = '';
    while (length $b < $_[1]) { sysread($_[0], $b, $_[1] - length $b, length $b) or exit 1 } $b }
my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0:8080', Listen => 5, ReuseAddr => 1) or die; my $c = $s->accept;
while (my $l = <$c>) { last if $l =~ /^\r?\n$/ } $c->autoflush(1); binmode $c;
syswrite $c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" .
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
while (1) { my ($op, $n) = unpack 'CC', get($c, 2); $op == 0x81 and $n > 0x80 or exit 2;
    my @m = unpack 'C4', get($c, 4); my @b = unpack 'C*', get($c, $n & 0x7f); my $i = 0;
    my $said = pack 'C*', map { $_ ^ $m[$i++ % 4] } @b; $said eq $next++ or exit 3;
    select undef, undef, undef, 0.03 if $said % 5 == 0;
    syswrite $c, pack('CC', 0x81, length $said) . $said }"#;

/// A message of a client, masked.
fn frame(number: u64) -> Vec<u8> {
    let text = number.to_string();
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = text.bytes().zip(mask.iter().cycle()).map(|(b, m)| b ^ m);
    let head = [0x81, 0x80 | u8::try_from(text.len()).unwrap()];
    head.into_iter().chain(mask).chain(masked).collect()
}

/// The client: what it has sent, and what came back, in order.
struct Counting {
    socket: TcpStream,
    sent: u64,
    heard: u64,
}

impl Counting {
    async fn open(server: &Server, sprite: &Sprite) -> Self {
        let url = sprite.info().await.unwrap().url.unwrap();
        let host = url.strip_prefix("http://").unwrap();
        let address = server.url();
        let address = address.strip_prefix("http://").unwrap();
        let mut socket = TcpStream::connect(address).await.unwrap();
        let asked = format!(
            "GET /count HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(asked.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(LONG, socket.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
        Self {
            socket,
            sent: 0,
            heard: 0,
        }
    }

    async fn send(&mut self, messages: u64) {
        for _ in 0..messages {
            self.socket.write_all(&frame(self.sent)).await.unwrap();
            self.sent += 1;
        }
    }

    /// All that was sent is answered, each once and in its place.
    async fn hear_all(&mut self) {
        while self.heard < self.sent {
            let wanted = self.heard.to_string();
            let mut message = vec![0; 2 + wanted.len()];
            let read = timeout(LONG, self.socket.read_exact(&mut message)).await;
            read.unwrap_or_else(|_| panic!("no answer to {wanted} of {}", self.sent))
                .unwrap_or_else(|error| panic!("instead of an answer to {wanted}: {error}"));
            assert_eq!(message[..2], [0x81, u8::try_from(wanted.len()).unwrap()]);
            assert_eq!(message[2..], *wanted.as_bytes());
            self.heard += 1;
        }
    }
}

/// Sleeps so often, each time with something else going on, and verifies the sequence.
async fn sleeps(times: u64) {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("counts").await;
    let public = UrlSettings {
        auth: Some("public".to_owned()),
        ..UrlSettings::default()
    };
    sprite.update().url_settings(public).send().await.unwrap();
    let quoted = SOCKET.replace('\'', "'\\''");
    let script = format!("setsid perl -e '{quoted}' > /dev/null 2>&1 < /dev/null &");
    assert!(patiently(&sprite, &script).await.unwrap().status.success());
    eventually(LONG, async || {
        match text(&sprite, "grep -c ':1F90 .* 0A ' /proc/net/tcp || true").await {
            listening if listening == "1" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let mut counting = Counting::open(&server, &sprite).await;
    for round in 0..times {
        match round % 4 {
            // It sleeps when something is sent.
            0 => {
                sprite.sleep().await.unwrap();
                let status = sprite.info().await.unwrap().status.to_string();
                assert_eq!(status, "warm", "round {round}");
                counting.send(1).await;
            }
            // It is falling asleep when something is sent.
            1 => {
                let (slept, ()) = tokio::join!(sprite.sleep(), counting.send(3));
                slept.unwrap();
            }
            // It thinks about its answer when it is to sleep, and nobody says anything afterwards.
            2 => {
                counting.send(5).await;
                sprite.sleep().await.unwrap();
            }
            // It has much to answer when it is to sleep.
            _ => {
                counting.send(50).await;
                sprite.sleep().await.unwrap();
                counting.send(1).await;
            }
        }
        counting.hear_all().await;
    }
    let counted = counting.heard;
    assert!(counted >= times, "{counted} answers");
    server.finish();
}

#[tokio::test]
async fn a_websocket_counts_on_over_thirty_sleeps() {
    sleeps(30).await;
}

#[tokio::test]
#[ignore = "takes minutes; cargo xtask soak sleeps runs it"]
async fn a_websocket_counts_on_over_a_thousand_sleeps() {
    sleeps(1000).await;
}

/// Puts so many sprites to sleep, and asks all of them at once.
async fn wake_at_once(count: usize) {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let names: Vec<String> = (0..count)
        .map(|number| format!("at-once-{number}"))
        .collect();
    let each = stream::iter(&names).for_each_concurrent(8, async |name| {
        let sprite = server.sprite(name).await;
        text(&sprite, &format!("echo {name} > /dev/shm/name")).await;
        sprite.sleep().await.unwrap();
    });
    each.await;
    let client = server.client();
    let asked = names.iter().map(async |name| {
        let sprite = client.sprite(name);
        let remembered = text(&sprite, "cat /dev/shm/name").await;
        assert_eq!(remembered, *name);
    });
    timeout(LONG, future::join_all(asked))
        .await
        .expect("all wake");
    let destroyed = stream::iter(&names).for_each_concurrent(8, async |name| {
        client.sprite(name).destroy().await.unwrap();
    });
    destroyed.await;
    server.finish();
}

#[tokio::test]
async fn twenty_sprites_wake_at_once() {
    wake_at_once(20).await;
}

#[tokio::test]
#[ignore = "takes minutes; cargo xtask soak sleeps runs it"]
async fn two_hundred_sprites_wake_at_once() {
    wake_at_once(200).await;
}
