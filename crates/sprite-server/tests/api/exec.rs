//! Behaviour reference §1.4.1 to §1.4.4, §8, §11, §12: exec over WebSocket.

use std::time::Duration;

use serde_json::json;
use sprite_server::ServeLimits;
use sprite_testkit::{Step, TestHost};
use tokio_tungstenite::tungstenite::Message;

use crate::setup::Server;
use crate::setup::socket::Event;

const EXEC: &str = "/v1/sprites/s/exec";

/// Appendix A: the transcript that satisfies all SDKs; §1.4.4 rule 1: the binary exit is the last message.
#[tokio::test]
async fn output_then_text_exit_then_binary_exit_and_nothing_more() {
    let server = Server::with_sprite().await;
    let mut ws = server
        .ws(&format!(
            "{EXEC}?cmd=echo&cmd=hello&cmd=world&path=echo&stdin=false"
        ))
        .await;
    assert_eq!(ws.head.header("x-sprite-capabilities"), Some("signal"));
    assert_eq!(ws.head.header("sprite-version"), Some("0.0.1-rc48"));
    let seen = ws.until_exit().await;
    let [Event::Info(info), rest @ ..] = &seen[..] else {
        panic!("session_info is first: {seen:?}");
    };
    assert!(info["session_id"].is_string() && info["created"].is_i64());
    assert_eq!(
        (&info["tty"], &info["is_owner"]),
        (&json!(false), &json!(true))
    );
    let expected = [
        Event::Stdout("hello world\n".to_owned()),
        Event::TextExit(0),
        Event::Exit(0),
    ];
    assert_eq!(rest, expected);
    // Rule 3: the client closes first, and sees the whole handshake before the connection ends.
    assert_eq!(ws.close().await, [Event::Close(1000), Event::Gone]);
}

/// §12 (exit truth): exactly one end, with the true status, after all output of both streams.
#[tokio::test]
async fn streams_are_apart_and_statuses_true() {
    let server = Server::with_sprite().await;
    for (command, status) in [
        ("cmd=true", 0),
        ("cmd=false", 1),
        ("cmd=exit&cmd=42", 42),
        ("cmd=exit&cmd=255", 255),
    ] {
        let mut ws = server.ws(&format!("{EXEC}?{command}")).await;
        let seen = ws.until_exit().await;
        assert_eq!(
            &seen[1..],
            [Event::TextExit(status.into()), Event::Exit(status)],
            "{command}"
        );
    }
    let mut ws = server.ws(&format!("{EXEC}?cmd=echo-err&cmd=oops")).await;
    let seen = ws.until_exit().await;
    assert!(
        seen.contains(&Event::Stderr("oops\n".to_owned())),
        "{seen:?}"
    );
}

/// §1.4.1: what a command is started with.
#[tokio::test]
async fn commands_get_their_environment_and_directory() {
    let server = Server::with_sprite().await;
    let mut ws = server
        .ws(&format!(
            "{EXEC}?cmd=env&env=TEST_VAR%3Dhello&env=A%3Db%3Dc+d"
        ))
        .await;
    let seen = format!("{:?}", ws.until_exit().await);
    assert!(
        seen.contains("TEST_VAR=hello") && seen.contains("A=b=c d"),
        "{seen}"
    );
    let mut ws = server.ws(&format!("{EXEC}?cmd=pwd&dir=%2Ftmp")).await;
    assert_eq!(ws.until_exit().await[1], Event::Stdout("/tmp\n".to_owned()));
}

/// §1.4.3: stdin and its end; §12 (stdin is total); §1.4.4 rule 10: without stdin it is at its end at once.
#[tokio::test]
async fn stdin_ends_when_it_is_ended() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=cat&stdin=true")).await;
    ws.session().await;
    ws.stdin("one\n").await;
    assert_eq!(ws.next().await, Event::Stdout("one\n".to_owned()));
    ws.stdin("two\n").await;
    ws.eof().await;
    // What comes behind the end is passed over.
    ws.eof().await;
    ws.stdin("three\n").await;
    let seen = ws.until_exit().await;
    assert_eq!(
        seen,
        [
            Event::Stdout("two\n".to_owned()),
            Event::TextExit(0),
            Event::Exit(0)
        ]
    );
    let mut ws = server.ws(&format!("{EXEC}?cmd=cat")).await;
    assert_eq!(
        &ws.until_exit().await[1..],
        [Event::TextExit(0), Event::Exit(0)]
    );
}

/// §1.4.4 rule 2: a terminal's bytes are bare, its exit is a text, and the close code is 1000 for 0 only.
#[tokio::test]
async fn terminals_end_with_a_text_exit_and_a_close_code() {
    let server = Server::with_sprite().await;
    for (status, code) in [(0, 1000), (3, 4003)] {
        let path = format!("{EXEC}?cmd=exit&cmd={status}&tty=true&rows=30&cols=90&stdin=true");
        let mut ws = server.ws(&path).await;
        let seen = ws.until(|_| false).await;
        let [
            Event::Info(info),
            Event::TextExit(exit),
            Event::Close(closed),
        ] = &seen[..]
        else {
            panic!("{seen:?}");
        };
        assert_eq!(
            (&info["tty"], &info["rows"], &info["cols"]),
            (&json!(true), &json!(30), &json!(90))
        );
        assert_eq!((*exit, *closed), (status, code));
    }
    let mut ws = server.ws(&format!("{EXEC}?cmd=echo&cmd=hi&tty=true")).await;
    let seen = ws.until(|_| false).await;
    assert!(
        matches!(&seen[1], Event::Terminal(text) if text.starts_with("hi")),
        "{seen:?}"
    );
}

/// §1.4.3: a signal goes to the process group, by name or number.
#[tokio::test]
async fn signals_end_commands() {
    let server = Server::with_sprite().await;
    for (signal, status) in [
        (json!("TERM"), 143),
        (json!("SIGKILL"), 137),
        (json!(2), 130),
    ] {
        let mut ws = server.ws(&format!("{EXEC}?cmd=sleep&cmd=1000")).await;
        ws.session().await;
        ws.send_text(json!({"type": "resize", "cols": 100, "rows": 40}))
            .await;
        ws.send_text(json!({"type": "nobody-knows"})).await;
        ws.message(Message::text("not json")).await;
        ws.send_text(json!({"type": "signal", "signal": signal}))
            .await;
        assert_eq!(
            ws.until_exit().await.last(),
            Some(&Event::Exit(status)),
            "{signal}"
        );
    }
}

/// §1.4.1: what cannot be started is a status, not a stream; nothing was started.
#[tokio::test]
async fn what_cannot_start_is_an_http_status() {
    let server = Server::with_sprite().await;
    for (path, status) in [
        ("/v1/sprites/none/exec?cmd=true", 404),
        ("/v1/sprites/s/exec?cmd=true&env=NOVALUE", 400),
        ("/v1/sprites/s/exec?cmd=true&tty=maybe", 400),
        ("/v1/sprites/s/exec?cmd=a%00b", 400),
        ("/v1/sprites/s/exec?id=424242", 404),
        ("/v1/sprites/s/exec/424242", 404),
        ("/v1/sprites/s/exec/not-a-number", 404),
    ] {
        let head = server
            .try_ws(path)
            .await
            .err()
            .unwrap_or_else(|| panic!("{path} was upgraded"));
        assert_eq!(head.status, status, "{path}");
        assert_eq!(
            head.header("content-type"),
            Some("application/json"),
            "{path}"
        );
    }
    let plain = server.get("/v1/sprites/s/exec/424242").await;
    assert_eq!(
        (plain.status(), plain.error().as_str()),
        (426, "upgrade_required")
    );
}

/// §1.4.4 rule 4: pings are answered, pongs never demanded.
#[tokio::test]
async fn pings_are_answered() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=cat&stdin=true")).await;
    ws.session().await;
    ws.message(Message::Ping("beat".into())).await;
    let pong = ws.raw().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("beat".into()));
    ws.eof().await;
    ws.until_exit().await;
}

/// §1.4.4 rule 5, §8: silence is broken by a harmless text before clients lose patience.
#[tokio::test]
async fn silence_is_broken_by_keepalives() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=sleep&cmd=100000")).await;
    ws.session().await;
    // The clock stands still but for what is waited for.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let raw = ws.raw_unlimited().await;
    tokio::time::resume();
    assert_eq!(raw, Message::text(r#"{"type":"keepalive"}"#));
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_secs(19) && waited <= Duration::from_secs(30),
        "{waited:?}"
    );
}

/// §1.4.4 rule 3: a client that does not close is closed, with the whole handshake.
#[tokio::test]
async fn a_client_that_does_not_close_is_closed() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=true")).await;
    assert_eq!(ws.until_exit().await.last(), Some(&Event::Exit(0)));
    let seen = ws.until(|_| false).await;
    assert_eq!(seen, [Event::Close(1000)]);
}

/// §12 (exit truth): a machine that is killed in the middle is a transport error, never an exit.
#[tokio::test]
async fn a_lost_machine_is_never_an_exit() {
    let server = Server::with_sprite().await;
    for query in ["cmd=sleep&cmd=1000", "cmd=sleep&cmd=1000&tty=true"] {
        let mut ws = server.ws(&format!("{EXEC}?{query}")).await;
        ws.session().await;
        let sprite = server
            .test
            .host
            .list(&server.test.principal.org, first())
            .await
            .unwrap()
            .sprites
            .remove(0);
        server
            .test
            .driver
            .machine_of(sprite.id)
            .unwrap()
            .end("killed by the test");
        let seen = ws.until(|_| false).await;
        let [Event::Text(error), Event::Close(1011)] = &seen[..] else {
            panic!("{query}: {seen:?}");
        };
        assert_eq!(error["type"], "error");
    }
}

fn first() -> sprite_host::ListQuery {
    sprite_host::ListQuery {
        limit: 1,
        ..Default::default()
    }
}

/// §1.2, §9.3: the request is held while the sprite wakes, and told to come again only after that.
#[tokio::test]
async fn a_sprite_that_does_not_wake_in_time_says_so() {
    let options = sprite_host::HostOptions {
        wake_within: Duration::from_millis(200),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    let held = server.test.driver.hold(Step::Start);
    let sprite = server.test.create("s").await;
    let answer = server
        .request("POST", &format!("{EXEC}?cmd=true"))
        .send()
        .await;
    assert_eq!(
        (answer.status(), answer.error().as_str()),
        (503, "sprite_starting")
    );
    assert_eq!(answer.json()["sprite_id"], sprite.id.to_string());
    let seconds: u64 = answer.head.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(answer.json()["retry_after_seconds"], seconds);
    drop(held);
    let mut ws = server.ws(&format!("{EXEC}?cmd=true")).await;
    assert_eq!(ws.until_exit().await.last(), Some(&Event::Exit(0)));
}

/// A server that stops tells its clients (1001), and their sessions live on.
#[tokio::test]
async fn a_stopping_server_says_goodbye() {
    let mut server = Server::with_sprite().await;
    let mut ws = server
        .ws(&format!("{EXEC}?cmd=sleep&cmd=1000&tty=true"))
        .await;
    ws.session().await;
    let goodbye = async { (ws.until(|_| false).await, ws.next().await) };
    let (seen, ()) = tokio::join!(goodbye, server.stop());
    assert_eq!(seen, (vec![Event::Close(1001)], Event::Gone));
    let machine = server.test.driver.machines().remove(0);
    assert_eq!(machine.live_sessions(), 1);
}
