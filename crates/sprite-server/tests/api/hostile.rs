//! Clients that break the rules: each is answered or cut off, nobody else notices, and memory stays bounded.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::time::Duration;

use sprite_server::ServeLimits;
use sprite_testkit::{TestHost, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::setup::http::can_fall_silent;
use crate::setup::socket::Event;
use crate::setup::{SOON, Server};

const EXEC: &str = "/v1/sprites/s/exec";

/// Bad input of the issue: 10,000 environment variables, in a request line of several hundred kilobytes.
#[tokio::test]
async fn ten_thousand_variables_arrive() {
    let server = Server::with_sprite().await;
    let mut path = format!("{EXEC}?cmd=env");
    for n in 0..10_000 {
        write!(path, "&env=VARIABLE_{n}%3Dthe+value+of+number+{n}").unwrap();
    }
    assert!(path.len() > 400_000);
    let mut ws = server.ws(&path).await;
    let seen = ws.until_exit().await;
    let Event::Stdout(output) = &seen[1] else {
        panic!("{:?}", seen.len())
    };
    for n in [0, 9_999] {
        assert!(output.contains(&format!("VARIABLE_{n}=the value of number {n}\n")));
    }
    let post = server.post(&path, "").await;
    assert_eq!(
        (post.status(), post.chunks.last()),
        (200, Some(&vec![3, 0]))
    );
}

/// More than that is refused clearly.
#[tokio::test]
async fn endless_request_lines_are_refused() {
    let server = Server::with_sprite().await;
    let long = server
        .get(&format!("{EXEC}?cmd={}", "a".repeat(5 << 20)))
        .await;
    assert_eq!(
        (long.status(), long.error().as_str()),
        (414, "uri_too_long")
    );
    let query = format!("{EXEC}?cmd={}", "a".repeat((4 << 20) - 1000));
    let head = server.try_ws(&query).await.err().unwrap();
    assert_eq!(
        head.status, 413,
        "it fits the line, but not the machine's frame"
    );
}

/// A session whose client does not read stops, instead of filling memory; and nothing of it is lost.
#[tokio::test]
async fn a_client_that_never_reads_stops_its_session() {
    let server = Server::with_sprite().await;
    let bytes: usize = 256 << 20;
    let mut ws = server.ws(&format!("{EXEC}?cmd=yes&cmd={bytes}")).await;
    let id = ws.session().await;
    let mut tcp = ws.into_tcp();
    let written = async || {
        let list = server.get(EXEC).await.json();
        let session = list["sessions"]
            .as_array()
            .unwrap()
            .iter()
            .find(|s| s["id"] == id.as_str())
            .cloned();
        session
            .expect("it runs")
            .get("bytes_per_second")
            .unwrap()
            .as_f64()
            .unwrap()
    };
    // It has stopped when its rate has fallen to nothing.
    eventually(SOON, async || match written().await {
        0.0 => ControlFlow::Break(()),
        rate => ControlFlow::Continue(rate),
    })
    .await;
    let mut seen = 0;
    let mut buffer = vec![0; 1 << 20];
    while seen < bytes {
        seen += timeout(SOON, tcp.read(&mut buffer))
            .await
            .expect("it goes on")
            .unwrap();
    }
}

/// The same over plain HTTP.
#[tokio::test]
async fn a_client_that_never_reads_its_answer_stops_its_session() {
    let server = Server::with_sprite().await;
    let bytes: usize = 64 << 20;
    let path = format!("{EXEC}?cmd=yes&cmd={bytes}");
    let slow = server.request("POST", &path).begin().await;
    let rate = async || server.get(EXEC).await.json()["sessions"][0]["bytes_per_second"].as_f64();
    eventually(SOON, async || match rate().await {
        Some(0.0) => ControlFlow::Break(()),
        other => ControlFlow::Continue(other),
    })
    .await;
    let answer = slow.whole().await;
    let output: usize = answer
        .chunks
        .iter()
        .filter(|chunk| chunk[0] == 1)
        .map(|chunk| chunk.len() - 1)
        .sum();
    assert_eq!((output, answer.complete), (bytes, true));
}

/// Frames that are none: the connection is closed with the reason, and the session lives on.
#[tokio::test]
async fn broken_frames_close_the_socket() {
    let server = Server::with_sprite().await;
    let unmasked: &[u8] = &[0x82, 0x01, 0x00];
    let reserved: &[u8] = &[0xf2, 0x80, 0, 0, 0, 0];
    let oversized: &[u8] = &[0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0];
    let not_text: &[u8] = &[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe];
    for (bytes, code) in [
        (unmasked, 1002_u16),
        (reserved, 1002),
        (oversized, 1009),
        (not_text, 1007),
    ] {
        let path = format!("{EXEC}?cmd=cat&stdin=true&max_run_after_disconnect=0s");
        let mut ws = server.ws(&path).await;
        let id = ws.session().await;
        let mut tcp = ws.into_tcp();
        tcp.write_all(bytes).await.unwrap();
        let mut head = [0; 4];
        timeout(SOON, tcp.read_exact(&mut head))
            .await
            .expect("a close in time")
            .unwrap();
        assert_eq!(
            (head[0], u16::from_be_bytes([head[2], head[3]])),
            (0x88, code),
            "{bytes:x?}"
        );
        drop(tcp);
        server.ws(&format!("{EXEC}/{id}")).await.session().await;
    }
}

/// Garbage of any shape ends one connection and nothing else.
#[tokio::test]
async fn garbage_ends_one_connection() {
    let server = Server::with_sprite().await;
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"\n\n\n",
        &[0; 70_000],
    ] {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        // The server may have had enough before it has read it all.
        let _ = tcp.write_all(bytes).await;
        let _ = tcp.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(SOON, tcp.read_to_end(&mut answer))
            .await
            .expect("an end in time");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
            "{answer:?}"
        );
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
}

/// Connections that say nothing, or say it slowly, are cut off, and do not keep others out.
#[tokio::test]
async fn slow_strangers_are_cut_off() {
    let limits = ServeLimits {
        connections: 4,
        first_line_within: Duration::from_millis(200),
        head_within: Duration::from_millis(300),
        ..ServeLimits::default()
    };
    let server = Server::with(TestHost::options(), limits).await;
    let mut strangers = Vec::new();
    for n in 0..12 {
        let mut tcp = TcpStream::connect(server.addr).await.unwrap();
        if n % 2 == 0 {
            tcp.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
                .await
                .unwrap();
        }
        strangers.push(tcp);
    }
    assert_eq!(server.get("/healthz").await.status(), 200);
    for mut tcp in strangers {
        let mut rest = Vec::new();
        // However it ends, it ends.
        let _ = timeout(SOON, tcp.read_to_end(&mut rest))
            .await
            .expect("cut off");
    }
}

/// A client that vanishes in the middle of each stream leaves nothing that holds the sprite.
#[tokio::test]
async fn vanishing_clients_leave_no_session() {
    let server = Server::with_sprite().await;
    // More than all buffers on the way hold: without its client it ends only if it was detached.
    let run = "cmd=yes&cmd=200000000";
    for path in [format!("{EXEC}?{run}"), format!("{EXEC}?{run}&tty=true")] {
        let mut ws = server.ws(&path).await;
        ws.session().await;
        ws.vanish();
    }
    let mut coming = server
        .request("POST", &format!("{EXEC}?{run}"))
        .begin()
        .await;
    coming.chunk().await.unwrap();
    drop(coming);
    let list = server
        .request("GET", "/v1/sprites")
        .header("Accept", "application/x-ndjson")
        .begin()
        .await;
    drop(list);
    until_count(&server, 0).await;
}

/// A client whose computer lost its power or its network says nothing more, not even to the kernel's questions.
#[tokio::test]
async fn clients_that_fall_silent_leave_no_session() {
    if !can_fall_silent() {
        return;
    }
    let server = Server::with_silence(Duration::from_secs(2)).await;
    server.test.create("s").await;
    let run = "cmd=yes&cmd=200000000";
    let mut silent = Vec::new();
    // With bytes that are never acknowledged, and with nothing but the kernel's own questions.
    for path in [
        format!("{EXEC}?{run}"),
        format!("{EXEC}?cmd=sleep&cmd=1000&max_run_after_disconnect=50ms"),
    ] {
        let mut ws = server.ws(&path).await;
        ws.session().await;
        silent.push(ws.fall_silent());
    }
    let mut coming = server
        .request("POST", &format!("{EXEC}?{run}"))
        .begin()
        .await;
    coming.chunk().await.unwrap();
    silent.push(coming.fall_silent());
    until_count(&server, 0).await;
}

/// A client that does not read for long is there all the same: its system says so. It loses nothing.
#[tokio::test]
async fn a_client_that_pauses_is_not_taken_for_a_silent_one() {
    if !can_fall_silent() {
        return;
    }
    let server = Server::with_silence(Duration::from_secs(1)).await;
    server.test.create("s").await;
    let bytes: usize = 32 << 20;
    let mut paused = server.ws(&format!("{EXEC}?cmd=yes&cmd={bytes}")).await;
    paused.session().await;
    // Silent ones are the clock: each that is let go is a limit that the paused one outlived.
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut ws = server
            .ws(&format!(
                "{EXEC}?cmd=sleep&cmd=1000&max_run_after_disconnect=50ms"
            ))
            .await;
        ws.session().await;
        silent.push(ws.fall_silent());
        until_count(&server, 1).await;
    }
    let output: usize = paused
        .until_exit()
        .await
        .iter()
        .map(|event| match event {
            Event::Stdout(text) => text.len(),
            _ => 0,
        })
        .sum();
    assert_eq!(output, bytes);
}

async fn until_count(server: &Server, count: u64) {
    eventually(
        SOON,
        async || match server.get(EXEC).await.json()["count"].as_u64() {
            Some(now) if now == count => ControlFlow::Break(()),
            other => ControlFlow::Continue(other),
        },
    )
    .await;
}
