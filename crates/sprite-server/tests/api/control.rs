//! Behaviour reference §1.5, §8, §11: operations one after the other over one socket.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::json;
use sprite_server::ServeLimits;
use sprite_testkit::{TestHost, eventually};
use tokio_tungstenite::tungstenite::Message;

use crate::setup::socket::{Event, Ws};
use crate::setup::{SOON, Server};

const CONTROL: &str = "/v1/sprites/s/control";

async fn until_complete(ws: &mut Ws) -> Vec<Event> {
    ws.until(|event| matches!(event, Event::Control(_))).await
}

fn complete(code: u8) -> Event {
    Event::Control(json!({"type": "op.complete", "args": {"exitCode": code}}))
}

/// EXIT, then `op.complete`; then the next operation on the same socket.
#[tokio::test]
async fn operations_follow_each_other() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(CONTROL).await;
    for status in [0, 7] {
        ws.start(json!({"cmd": ["exit", status.to_string()], "path": "exit", "stdin": "false"}))
            .await;
        let seen = until_complete(&mut ws).await;
        assert!(matches!(seen[0], Event::Info(_)));
        assert_eq!(
            &seen[1..],
            [
                Event::TextExit(status.into()),
                Event::Exit(status),
                complete(status)
            ]
        );
    }
    ws.start(json!({"cmd": ["cat"], "stdin": "true", "env": ["A=b"]}))
        .await;
    ws.session().await;
    ws.stdin("x").await;
    assert_eq!(ws.next().await, Event::Stdout("x".to_owned()));
    ws.eof().await;
    assert_eq!(until_complete(&mut ws).await.last(), Some(&complete(0)));
    // Input that comes late belongs to nothing.
    ws.stdin("late").await;
    ws.send_text(json!({"type": "release"})).await;
    ws.start(json!({"cmd": "true"})).await;
    assert_eq!(until_complete(&mut ws).await.last(), Some(&complete(0)));
    assert_eq!(ws.close().await, [Event::Close(1000), Event::Gone]);
}

/// §11.6: JavaScript sends resize and signal as binary messages that hold JSON; they are not typed.
#[tokio::test]
async fn binary_json_is_a_message_not_input() {
    let server = Server::with_sprite().await;
    for tty in ["false", "true"] {
        let mut ws = server.ws(CONTROL).await;
        ws.start(json!({"cmd": ["sleep", "1000"], "tty": tty, "rows": "24", "cols": "80"}))
            .await;
        ws.session().await;
        ws.send_binary(json!({"type": "resize", "cols": 90, "rows": 30}).to_string())
            .await;
        ws.send_binary(json!({"type": "signal", "signal": "SIGTERM"}).to_string())
            .await;
        assert_eq!(
            until_complete(&mut ws).await.last(),
            Some(&complete(143)),
            "tty={tty}"
        );
    }
}

/// Errors are envelopes, and the socket goes on.
#[tokio::test]
async fn what_cannot_be_done_is_answered() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(CONTROL).await;
    for text in [
        r#"control:{"type":"op.start","op":"proxy","args":{}}"#,
        r#"control:{"type":"op.start","op":"fs.read","args":"path=%2Fx"}"#,
        r#"control:{"type":"op.start","op":"exec","args":{"cmd":["a"],"rows":"x"}}"#,
        r#"control:{"type":"op.start","op":"exec","args":{"id":"424242"}}"#,
        r#"control:{"type":"dial"}"#,
        "control:not json",
        r#"{"type":"start","operation":"proxy","params":{}}"#,
    ] {
        ws.message(Message::text(text)).await;
        let envelope = match ws.next().await {
            Event::Control(envelope) if text.starts_with("control:") => envelope,
            Event::Text(envelope) if !text.starts_with("control:") => envelope,
            other => panic!("{text} was answered {other:?}"),
        };
        assert_eq!(envelope["type"], "op.error", "{text}");
        assert!(envelope["args"]["error"].is_string(), "{text}");
    }
    ws.start(json!({"cmd": ["sleep", "1000"]})).await;
    ws.session().await;
    ws.start(json!({"cmd": ["true"]})).await;
    let Event::Control(envelope) = ws.next().await else {
        panic!("a second operation was not answered")
    };
    assert_eq!(envelope["type"], "op.error");
    server
        .test
        .driver
        .machines()
        .remove(0)
        .end("killed by the test");
    let Event::Control(envelope) = ws.next().await else {
        panic!("a lost machine was not told")
    };
    assert_eq!(envelope["type"], "op.error", "never an exit");
}

/// A connection to a port is an operation like others, in both dialects; the socket goes on behind it.
#[tokio::test]
async fn a_port_is_reached_over_the_socket() {
    let server = Server::with_sprite().await;
    let connected = Event::Text(json!({"status": "connected", "target": "127.0.0.1:7"}));
    let mut ws = server.ws(CONTROL).await.terminal();
    for (start, complete) in [
        (
            r#"control:{"type":"op.start","op":"proxy","args":{"host":"localhost","port":"7"}}"#,
            complete(0),
        ),
        (
            r#"{"type":"start","operation":"proxy","params":{"host":"localhost","port":7,"keep_alive":true}}"#,
            Event::Text(json!({"type": "op.complete", "args": {"exitCode": 0}})),
        ),
    ] {
        ws.message(Message::text(start)).await;
        assert_eq!(ws.next().await, connected);
        ws.send_binary("hello").await;
        assert_eq!(ws.next().await, Event::Terminal("hello".to_owned()));
        ws.send_text(json!({"type": "release"})).await;
        assert_eq!(ws.next().await, complete);
    }
    let refused = r#"control:{"type":"op.start","op":"proxy","args":{"port":"9"}}"#;
    ws.message(Message::text(refused)).await;
    let Event::Control(envelope) = ws.next().await else {
        panic!("a port where nobody listens was not answered")
    };
    assert_eq!(envelope["type"], "op.error");
    ws.message(Message::text(
        r#"{"type":"start","operation":"proxy","params":{"port":9}}"#,
    ))
    .await;
    let Event::Text(answer) = ws.next().await else {
        panic!("a port where nobody listens was not answered")
    };
    assert_eq!(
        (&answer["status"], &answer["error"]),
        (&json!("error"), &json!("connection_refused"))
    );
    ws.start(json!({"cmd": ["true"]})).await;
    let mut ws = ws.pipes();
    assert_eq!(until_complete(&mut ws).await.last(), Some(&complete(0)));
}

/// §1.5, §9.5: 404 for the client that works only without.
#[tokio::test]
async fn the_go_sdk_is_turned_away() {
    let server = Server::with_sprite().await;
    let refused = server
        .ws_with(CONTROL, &[("User-Agent", "sprites-go-sdk/1.0")])
        .await;
    assert_eq!(refused.err().map(|head| head.status), Some(404));
    assert_eq!(
        server
            .try_ws("/v1/sprites/none/control")
            .await
            .err()
            .map(|head| head.status),
        Some(404)
    );
    assert_eq!(server.get(CONTROL).await.status(), 426);
}

/// §11.12: an idle socket does not keep the sprite awake, and is closed with 1001 when it falls asleep.
#[tokio::test]
async fn an_idle_socket_lets_the_sprite_sleep() {
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(100)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    let mut ws = server.ws(CONTROL).await;
    ws.start(json!({"cmd": ["true"]})).await;
    assert_eq!(until_complete(&mut ws).await.last(), Some(&complete(0)));
    assert_eq!(ws.next().await, Event::Close(1001));
    // It is told before the sleep is over.
    eventually(SOON, async || {
        let status = server.get("/v1/sprites/s").await.json()["status"].clone();
        match status == "warm" {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(status),
        }
    })
    .await;
}

/// A client that goes away in the middle of an operation detaches.
#[tokio::test]
async fn a_client_that_vanishes_detaches() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(CONTROL).await;
    ws.start(json!({"cmd": ["cat"], "stdin": "true", "max_run_after_disconnect": "0s"}))
        .await;
    let id = ws.session().await;
    ws.vanish();
    let mut again = server.ws(&format!("/v1/sprites/s/exec/{id}")).await;
    assert_eq!(again.session().await, id);
}
