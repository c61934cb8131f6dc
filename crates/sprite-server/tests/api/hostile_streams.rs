//! Clients that read slowly, write slowly, say nothing or are gone without a word, on every kind of stream: each is
//! waited for as long as it is there, holds nothing when it is not, and costs a bounded amount of memory.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::{Value, json};
use sprite_server::ServeLimits;
use sprite_testkit::{TestHost, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::setup::http::can_fall_silent;
use crate::setup::socket::{Event, Ws};
use crate::setup::{SOON, Server};

/// More than all buffers between a program and its client hold.
const MUCH: usize = 64 << 20;

/// Nobody takes anything for so long: it is not slow, it stands.
const STANDS: Duration = Duration::from_secs(2);

fn of(sprite: &str, stream: &str) -> String {
    format!("/v1/sprites/{sprite}/{stream}")
}

async fn connected(server: &Server, sprite: &str) -> Ws {
    let mut ws = server.ws(&of(sprite, "proxy")).await.terminal();
    ws.send_text(json!({"port": 7})).await;
    assert!(matches!(ws.next().await, Event::Text(answer) if answer["status"] == "connected"));
    ws
}

/// A frame of a client, as RFC 6455 has it; the mask is zero.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u16::try_from(payload.len()).unwrap() {
        short @ 0..=125 => frame.push(0x80 | u8::try_from(short).unwrap()),
        long => {
            frame.push(0x80 | 126);
            frame.extend(long.to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// Every stream, each to a sprite of its own, with a client whose computer has lost its power.
async fn silent_streams(server: &Server) -> (Vec<&'static str>, Vec<TcpStream>) {
    let run = "exec?cmd=sleep&cmd=1000&max_run_after_disconnect=50ms";
    let names = [
        "exec", "attach", "control", "idle", "proxy", "ports", "files", "http", "list",
    ];
    let mut silent = Vec::new();
    for name in names {
        server.test.create(name).await;
        let ws = match name {
            "exec" | "attach" => {
                let mut first = server.ws(&of(name, run)).await;
                let id = first.session().await;
                if name == "exec" {
                    first
                } else {
                    let mut ws = server.ws(&of(name, &format!("exec/{id}"))).await;
                    ws.session().await;
                    first.vanish();
                    ws
                }
            }
            "control" => {
                let mut ws = server.ws(&of(name, "control")).await;
                ws.start(json!({"cmd": ["sleep", "1000"], "max_run_after_disconnect": "50ms"}))
                    .await;
                ws.session().await;
                ws
            }
            "idle" => server.ws(&of(name, "control")).await,
            "proxy" => connected(server, name).await,
            "ports" => server.ws(&of(name, "ports/watch")).await,
            "files" => server.ws(&of(name, "fs/watch")).await,
            "list" => {
                let list = server.request("GET", "/v1/sprites");
                let list = list.header("Accept", sprite_api::NDJSON).begin().await;
                silent.push(list.fall_silent());
                continue;
            }
            _ => {
                let path = of(name, "exec?cmd=yes&cmd=200000000");
                let mut coming = server.request("POST", &path).begin().await;
                coming.chunk().await.unwrap();
                silent.push(coming.fall_silent());
                continue;
            }
        };
        silent.push(ws.fall_silent());
    }
    (names.to_vec(), silent)
}

/// Whoever is gone without a word is noticed on every stream: its sprite may sleep, and its connection is given to others.
#[tokio::test]
async fn whoever_falls_silent_is_let_go_of_on_every_stream() {
    if !can_fall_silent() {
        return;
    }
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(100)),
        ..TestHost::options()
    };
    let limits = ServeLimits {
        silent_for: Duration::from_secs(2),
        // One for whoever looks.
        connections: 10,
        ..ServeLimits::default()
    };
    let server = Server::with(options, limits).await;
    let (names, silent) = silent_streams(&server).await;
    for name in &names {
        eventually(SOON, async || {
            let sprite = server.get(&format!("/v1/sprites/{name}")).await.json();
            match sprite["status"].as_str() {
                // Nobody ever woke the one beside the list.
                Some("warm" | "cold") => ControlFlow::Break(()),
                status => ControlFlow::Continue(format!("{name} is {status:?}")),
            }
        })
        .await;
    }
    // All their places are free: as many as there are fit side by side.
    let mut others = Vec::new();
    for name in &names {
        others.push(server.ws(&of(name, "control")).await);
    }
    drop(silent);
}

/// A client that never says where to is not waited for for ever, and the sprite not kept awake by it.
#[tokio::test]
async fn a_proxy_without_a_hello_ends() {
    let server = Server::with_sprite().await;
    for half in [
        &[][..],
        &frame(1, br#"{"host":"localhost","port":7}"#)[..20],
    ] {
        let mut ws = server.ws(&of("s", "proxy")).await;
        ws.raw_bytes(half).await;
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        let said = ws.raw_unlimited().await;
        tokio::time::resume();
        assert!(
            began.elapsed() <= Duration::from_secs(15),
            "{:?}",
            began.elapsed()
        );
        let Message::Text(text) = said else {
            panic!("{said:?}")
        };
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&answer["status"], &answer["error"]),
            (&json!("error"), &json!("invalid_request"))
        );
        assert_eq!(ws.next().await, Event::Close(1011));
    }
}

/// Waits until the only session of the sprite stands still.
async fn until_it_stands(server: &Server) {
    eventually(SOON, async || {
        let list = server.get(&of("s", "exec")).await.json();
        match list["sessions"][0]["bytes_per_second"].as_f64() {
            Some(0.0) => ControlFlow::Break(()),
            rate => ControlFlow::Continue(rate),
        }
    })
    .await;
}

fn output(seen: &[Event]) -> usize {
    let texts = seen.iter().map(|event| match event {
        Event::Stdout(text) => text.len(),
        _ => 0,
    });
    texts.sum()
}

/// Attached or over the control socket: a client that does not read stops its session, and loses nothing of it.
#[tokio::test]
async fn a_session_waits_for_whoever_reads_slowly() {
    let server = Server::with_sprite().await;
    let line = format!("yes {MUCH}; exit 0\n");
    let mut first = server
        .ws(&of(
            "s",
            "exec?cmd=sh&stdin=true&max_run_after_disconnect=0s",
        ))
        .await;
    let id = first.session().await;
    let mut attached = server.ws(&of("s", &format!("exec/{id}"))).await;
    attached.session().await;
    first.stdin(&line).await;
    // Its own client reads on; only then it goes.
    first.next().await;
    first.vanish();
    until_it_stands(&server).await;
    assert_eq!(output(&attached.until_exit().await), MUCH);

    let mut control = server.ws(&of("s", "control")).await;
    control
        .start(json!({"cmd": ["yes", MUCH.to_string()]}))
        .await;
    control.session().await;
    until_it_stands(&server).await;
    assert_eq!(output(&control.until_exit().await), MUCH);
}

/// Writes `piece` until nobody takes it any more; gives how many were written whole.
async fn write_until_it_stands(tcp: &mut TcpStream, piece: &[u8], most: usize) -> (usize, usize) {
    let mut written = 0;
    while written < most {
        let rest = &piece[written % piece.len()..];
        match timeout(STANDS, tcp.write(rest)).await {
            Ok(wrote) => written += wrote.unwrap(),
            Err(_) => break,
        }
    }
    (written / piece.len(), written % piece.len())
}

/// Over a proxy, whoever writes and does not read is stopped; what was taken comes back whole when it does.
#[tokio::test]
async fn a_proxy_waits_for_whoever_reads_slowly() {
    let server = Server::with_sprite().await;
    let mut tcp = connected(&server, "s").await.into_tcp();
    let piece = frame(2, &[b'x'; 60_000]);
    let (whole, part) = write_until_it_stands(&mut tcp, &piece, 4 * MUCH).await;
    assert!(
        whole * piece.len() < MUCH,
        "{whole} messages were taken of a client that reads nothing"
    );
    let (mut reader, mut writer) = tcp.into_split();
    let rest = piece[part..].to_vec();
    let rest = tokio::spawn(async move {
        writer.write_all(&rest).await.unwrap();
        writer
    });
    let wanted = (whole + 1) * 60_000;
    let (mut seen, mut buffer) = (0, vec![0; 1 << 20]);
    while seen < wanted {
        let read = timeout(SOON, reader.read(&mut buffer))
            .await
            .expect("it goes on")
            .unwrap();
        assert!(read > 0, "it ended after {seen} of {wanted}");
        seen += buffer[..read].iter().filter(|byte| **byte == b'x').count();
    }
    assert_eq!(seen, wanted);
    drop(rest.await.unwrap());
}

/// A watch of files takes no more requests of a client that does not read the answers.
#[tokio::test]
async fn a_watch_of_files_waits_for_whoever_reads_slowly() {
    let server = Server::with_sprite().await;
    let mut tcp = server.ws(&of("s", "fs/watch")).await.into_tcp();
    let path = format!("/{}", "p".repeat(3000));
    let piece = frame(
        1,
        json!({"type": "subscribe", "paths": [path]})
            .to_string()
            .as_bytes(),
    );
    let (whole, _) = write_until_it_stands(&mut tcp, &piece, 4 * MUCH).await;
    assert!(
        whole * piece.len() < MUCH,
        "{whole} requests were taken of a client that reads nothing"
    );
    let wanted = 2 * whole;
    let (mut seen, mut buffer) = (0, vec![0; 1 << 20]);
    while seen < wanted {
        let read = timeout(SOON, tcp.read(&mut buffer))
            .await
            .expect("it goes on")
            .unwrap();
        assert!(read > 0, "it ended after {seen} of {wanted} answers");
        // Each answer has one path, and each path one slash.
        seen += buffer[..read].iter().filter(|byte| **byte == b'/').count();
    }
    assert_eq!(server.get("/v1/sprites/s").await.status(), 200);
}

/// A program opens and closes ports as fast as it can, before a client that reads and one that does not: both are told
/// what is true in the end, in far fewer words than there were changes.
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_ports_ends_in_the_truth() {
    const ROUNDS: u16 = 20_000;
    let server = Server::with_sprite().await;
    let mut watches = Vec::new();
    for _ in 0..2 {
        let mut ws = server.ws(&of("s", "ports/watch")).await;
        ws.next().await;
        watches.push(ws);
    }
    let machine = server.test.driver.machines().remove(0);
    let storm = tokio::task::spawn_blocking(move || {
        for round in 0..ROUNDS {
            let port = 1000 + round % 50;
            machine.open_port(port);
            if round % 64 == 0 {
                std::thread::yield_now();
            }
            machine.close_port(port);
        }
        machine.open_port(5000);
    });
    // The first reads while it storms, the second when it is over.
    for mut ws in watches {
        let (mut open, mut told) = (BTreeSet::from([7]), 0_u32);
        while open != BTreeSet::from([7, 5000]) {
            let Event::Text(change) = ws.next().await else {
                panic!("the watch ended")
            };
            let port = change["port"].as_u64().unwrap();
            let fits = match change["type"].as_str() {
                Some("port_opened") => open.insert(port),
                _ => open.remove(&port),
            };
            assert!(fits, "{change} is no change");
            told += 1;
        }
        assert!(told < u32::from(ROUNDS), "{told} changes were told");
    }
    storm.await.unwrap();
}

/// A client that sends a byte at a time is heard as any other, and nobody waits for it.
#[tokio::test]
async fn whoever_writes_slowly_is_heard() {
    let server = Server::with_sprite().await;
    let cat = "cmd=cat&stdin=true";
    let mut exec = server.ws(&of("s", &format!("exec?{cat}"))).await;
    let id = exec.session().await;
    let mut attached = server.ws(&of("s", &format!("exec/{id}"))).await;
    attached.session().await;
    let mut control = server.ws(&of("s", "control")).await;
    control
        .start(json!({"cmd": ["cat"], "stdin": "true"}))
        .await;
    control.session().await;
    let proxy = connected(&server, "s").await.pipes();
    for (mut ws, piece) in [
        (attached, &b"\0drop by drop"[..]),
        (control, b"\0drop by drop"),
        // An echo gives back what looks like stdout.
        (proxy, b"\x01drop by drop"),
    ] {
        for byte in frame(2, piece) {
            ws.raw_bytes(&[byte]).await;
            assert_eq!(server.get("/healthz").await.status(), 200);
        }
        let Event::Stdout(said) = ws.next().await else {
            panic!("it was not heard")
        };
        assert_eq!(said, "drop by drop");
    }
}

/// The same over plain HTTP: stdin is what has come so far.
#[tokio::test]
async fn a_body_that_comes_slowly_is_stdin_as_it_comes() {
    let server = Server::with_sprite().await;
    let mut tcp = TcpStream::connect(server.addr).await.unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        of("s", "exec?cmd=cat&stdin=true"),
        server.test.token
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    for piece in ["one", "two", "six"] {
        for byte in format!("3\r\n{piece}\r\n").bytes() {
            tcp.write_all(&[byte]).await.unwrap();
        }
        let until = format!("\x01{piece}");
        while !String::from_utf8_lossy(&seen).contains(&until) {
            assert!(
                timeout(SOON, tcp.read_buf(&mut seen))
                    .await
                    .expect("an echo in time")
                    .unwrap()
                    > 0
            );
        }
    }
    tcp.write_all(b"0\r\n\r\n").await.unwrap();
    while !seen.ends_with(b"2\r\n\x03\0\r\n0\r\n\r\n") {
        assert!(
            timeout(SOON, tcp.read_buf(&mut seen))
                .await
                .expect("an exit in time")
                .unwrap()
                > 0
        );
    }
}
