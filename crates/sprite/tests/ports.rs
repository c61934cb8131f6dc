//! Ports of a sprite as ports here.

mod harness;

use std::process::Stdio;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use harness::{Conn, Fake, Home, Seen, hello};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::ChildStderr;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Far beyond anything that is waited for: only so that a test that fails ends.
const LONG: Duration = Duration::from_secs(30);

/// A server whose port 7 says again what it hears, and whose sessions open a port of that number.
async fn echoing() -> Fake {
    Fake::start(|seen: Seen, conn: Conn| async move {
        match (seen.path(), seen.is_websocket()) {
            ("/v1/sprites/a/proxy", true) => echo(&seen, conn).await,
            ("/v1/sprites/a/exec", true) => open_a_port(&seen, conn).await,
            ("/v1/sprites/a", false) => {
                let body = r#"{"id":"1","name":"a","status":"running","organization":"o"}"#;
                return conn.reply(200, body).await;
            }
            (_, true | false) => {
                return conn
                    .reply(404, r#"{"error":"not_found","message":"no"}"#)
                    .await;
            }
        }
        None
    })
    .await
}

async fn echo(seen: &Seen, conn: Conn) {
    let mut socket = conn.websocket(seen).await;
    let Some(Ok(Message::Text(text))) = socket.next().await else {
        panic!("a first message")
    };
    let asked: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    if asked["port"] != 7 {
        let no = r#"{"status":"error","error":"connection_refused","message":"connect: refused"}"#;
        // The client may be gone.
        let _ = socket.send(Message::text(no)).await;
        return;
    }
    let yes = r#"{"status":"connected","target":"127.0.0.1:7","half_close":true}"#;
    socket.send(Message::text(yes)).await.expect("it listens");
    while let Some(Ok(message)) = socket.next().await {
        let ended = message.is_text();
        if (ended || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
        if ended {
            let _ = socket.close(None).await;
        }
    }
}

async fn open_a_port(seen: &Seen, conn: Conn) {
    let mut socket = hello(seen, conn, false).await;
    let opened = r#"{"type":"port_opened","port":7,"address":"127.0.0.1","pid":9}"#;
    socket
        .send(Message::text(opened))
        .await
        .expect("it listens");
    // Runs until its input ends.
    while let Some(Ok(message)) = socket.next().await {
        if matches!(&message, Message::Binary(bytes) if bytes.first() == Some(&4)) {
            let _ = socket.send(Message::binary(vec![3, 0])).await;
        }
    }
}

/// The local address in the next line of standard error that tells one.
async fn told_address(lines: &mut Lines<BufReader<ChildStderr>>) -> String {
    loop {
        let line = timeout(LONG, lines.next_line())
            .await
            .expect("a line in time");
        let line = line.expect("UTF-8").expect("a line");
        let found = line
            .split([' ', '/'])
            .find(|word| word.starts_with("127.0.0.1:"));
        if let Some(address) = found {
            return address.to_owned();
        }
    }
}

async fn says_again(address: &str) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"hello").await.expect("it takes bytes");
    stream.shutdown().await.expect("it is open");
    let mut said = String::new();
    let read = timeout(LONG, stream.read_to_string(&mut said)).await;
    read.expect("an end in time").expect("an end");
    assert_eq!(said, "hello");
}

#[tokio::test]
async fn a_port_of_the_sprite_is_a_port_here() {
    let fake = echoing().await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["proxy", "-s", "a", "0:7", "0:8"]);
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let seventh = told_address(&mut lines).await;
    let eighth = told_address(&mut lines).await;
    says_again(&seventh).await;
    let mut refused = TcpStream::connect(&eighth).await.expect("it listens");
    // An end or a reset: either way nothing comes.
    let mut nothing = Vec::new();
    let _ = timeout(LONG, refused.read_to_end(&mut nothing))
        .await
        .expect("an end in time");
    assert_eq!(nothing, b"");
    let line = timeout(LONG, lines.next_line())
        .await
        .expect("a line in time");
    assert!(
        line.expect("UTF-8")
            .expect("a line")
            .contains("connect: refused")
    );
    let (_, port) = seventh.split_once(':').expect("a port");
    let taken = home.run(&["proxy", "-s", "a", &format!("{port}:7")]).await;
    assert_eq!(taken.code, 1);
    let holder = format!("sprite (process {})", child.id().expect("it runs"));
    assert!(taken.stderr.contains(&holder), "{}", taken.stderr);
    child.kill().await.expect("it runs");
}

#[tokio::test]
async fn standard_input_and_output_are_a_connection() {
    let fake = echoing().await;
    let home = Home::of(&fake);
    let ran = home
        .run_with(&["proxy", "-s", "a", "-W", ":7"], b"SSH-2.0\r\n")
        .await;
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (0, "SSH-2.0\r\n"),
        "{}",
        ran.stderr
    );
    let refused = home
        .run(&["proxy", "-s", "a", "--stdio", "localhost:8"])
        .await;
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("connect: refused"),
        "{}",
        refused.stderr
    );
    for wrong in [
        &["proxy", "-s", "a"][..],
        &["proxy", "-s", "a", "x"],
        &["proxy", "-s", "a", "-W", ":7", "7"],
    ] {
        assert_eq!(home.run(wrong).await.code, 2, "{wrong:?}");
    }
}

#[tokio::test]
async fn what_a_command_opens_is_forwarded() {
    let fake = echoing().await;
    let home = Home::of(&fake);
    let mut child = home.spawn(&["exec", "-s", "a", "--", "serve"]);
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    says_again(&told_address(&mut lines).await).await;
    drop(child.stdin.take());
    let status = timeout(LONG, child.wait()).await.expect("an end in time");
    assert!(status.expect("it ends").success());
    let mut quiet = home.command(&["exec", "-s", "a", "--no-port-forward", "--", "serve"]);
    let ended = quiet.stdin(Stdio::null()).output().await.expect("it ends");
    assert_eq!(
        (ended.status.code(), &ended.stderr[..]),
        (Some(0), &b""[..])
    );
}
