//! The description of streams (`openapi/streams.json`) and what really goes over them. What any test's client reads is
//! held against it as well; here every message that it promises of a WebSocket is brought about.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::inside::{ask, machine};
use crate::setup::Server;
use crate::setup::described::STREAMS;
use crate::setup::socket::{Event, Ws};

const EXEC: &str = "/v1/sprites/s/exec";
const CONTROL: &str = "/v1/sprites/s/control";

/// What no fake machine can be brought to say; tests with real machines read it.
const ELSEWHERE: [&str; 0] = [];

async fn port_opens_and_closes(server: &Server, ws: &mut Ws) {
    let machine = server.test.driver.machines().remove(0);
    machine.open_port(3000);
    assert!(matches!(ws.next().await, Event::Text(text) if text["type"] == "port_opened"));
    machine.close_port(3000);
    assert!(matches!(ws.next().await, Event::Text(text) if text["type"] == "port_closed"));
}

async fn keepalive(ws: &mut Ws) {
    tokio::time::pause();
    let said = loop {
        match ws.raw_unlimited().await {
            // A shell's prompt.
            Message::Binary(_) => {}
            said => break said,
        }
    };
    tokio::time::resume();
    assert_eq!(said, Message::text(r#"{"type":"keepalive"}"#));
}

/// A session to its end, first by `path`, then attached to at every turn.
async fn session(server: &Server, tty: bool, told: &mut BTreeSet<String>) {
    let run = format!("{EXEC}?cmd=sh&stdin=true&max_run_after_disconnect=0s&tty={tty}");
    let mut first = server.ws(&run).await;
    let id = first.session().await;
    let mut second = server.ws(&format!("{EXEC}/{id}")).await;
    if tty {
        second = second.terminal();
    }
    second.session().await;
    keepalive(&mut first).await;
    keepalive(&mut second).await;
    let machine = server.test.driver.machines().remove(0);
    for change in ["port_opened", "port_closed"] {
        match change {
            "port_opened" => machine.open_port(3000),
            _ => machine.close_port(3000),
        }
        for ws in [&mut first, &mut second] {
            assert!(matches!(ws.next().await, Event::Text(text) if text["type"] == change));
        }
    }
    let line = "echo out; echo-err err; exit 3\n";
    if tty {
        first.send_binary(line.replace('\n', "\r")).await;
    } else {
        first.stdin(line).await;
    }
    for mut ws in [first, second] {
        ws.until(|event| matches!(event, Event::Exit(_))).await;
        told.extend(ws.told);
    }
}

/// A machine that ends takes its sessions along.
async fn lost(server: &Server, told: &mut BTreeSet<String>) {
    let mut first = server.ws(&format!("{EXEC}?cmd=sleep&cmd=1000")).await;
    let id = first.session().await;
    let mut second = server.ws(&format!("{EXEC}/{id}")).await;
    second.session().await;
    let machine = server.test.driver.machines().remove(0);
    machine.end("killed by the test");
    for mut ws in [first, second] {
        ws.until(|_| false).await;
        told.extend(ws.told);
    }
}

/// A program inside wants something opened.
async fn opens(server: &Server, told: &mut BTreeSet<String>) {
    let machine = machine(server, "s").await;
    let mut first = server
        .ws(&format!("{EXEC}?cmd=cat&stdin=true&browser=true"))
        .await;
    let id = first.session().await;
    let mut second = server.ws(&format!("{EXEC}/{id}?browser=true")).await;
    second.session().await;
    // The one that came last is asked; then the one that is left.
    for mut ws in [second, first] {
        let asked = r#"{"url":"https://a/?redirect_uri=http://localhost:7/"}"#;
        assert_eq!(ask(&machine, "POST", "/v1/browser", asked).await.0, 202);
        ws.until(|event| matches!(event, Event::Text(text) if text["type"] == "open_url"))
            .await;
        ws.message(Message::Close(None)).await;
        ws.until(|_| false).await;
        told.extend(ws.told);
    }
}

async fn operation(ws: &mut Ws, op: &str, args: &str, last: &str) {
    let start = json!({"type": "op.start", "op": op, "args": args});
    ws.message(Message::text(format!("control:{start}"))).await;
    if op == "fs.write" {
        ws.next().await;
        ws.send_binary("bytes").await;
        ws.send_text(json!({"type": "eof"})).await;
    }
    let seen = ws
        .until(|event| matches!(event, Event::Control(envelope) if envelope["type"] == last))
        .await;
    assert!(
        matches!(seen.last(), Some(Event::Control(_))),
        "{op}: {seen:?}"
    );
}

async fn control(server: &Server, told: &mut BTreeSet<String>) {
    let mut ws = server.ws(CONTROL).await.terminal();
    for (op, args) in [
        ("fs.write", "path=%2Fa"),
        ("fs.read", "path=%2Fa"),
        ("fs.list", "path=%2F"),
        ("fs.copy", "source=%2Fa&dest=%2Fb"),
        ("fs.rename", "source=%2Fb&dest=%2Fc"),
        ("fs.chmod", "path=%2Fa&mode=0600"),
        ("fs.chown", "path=%2Fa&uid=0&gid=0&asRoot=true"),
        ("fs.delete", "path=%2Fa"),
    ] {
        operation(&mut ws, op, args, "op.complete").await;
    }
    operation(&mut ws, "fs.read", "path=%2Fnone", "op.error").await;
    for port in [9, 7] {
        let start = json!({"type": "start", "operation": "proxy", "params": {"port": port}});
        ws.send_text(start).await;
        assert!(matches!(ws.next().await, Event::Text(answer) if answer["status"].is_string()));
    }
    ws.send_binary("echo").await;
    ws.next().await;
    ws.send_text(json!({"type": "release"})).await;
    ws.next().await;
    for tty in [false, true] {
        ws = if tty { ws.terminal() } else { ws.pipes() };
        ws.start(json!({"cmd": ["sh"], "stdin": "true", "tty": tty}))
            .await;
        ws.session().await;
        if !tty {
            keepalive(&mut ws).await;
            port_opens_and_closes(server, &mut ws).await;
        }
        let line = "echo out; echo-err err; exit 3\r";
        ws.send_binary([if tty { &[][..] } else { &[0] }, line.as_bytes()].concat())
            .await;
        ws.until(|event| matches!(event, Event::Control(_))).await;
    }
    told.extend(ws.told);
}

async fn proxy(server: &Server, told: &mut BTreeSet<String>) {
    for port in [7, 9] {
        let mut ws = server.ws("/v1/sprites/s/proxy").await.terminal();
        ws.send_text(json!({"port": port, "half_close": true}))
            .await;
        ws.next().await;
        if port == 7 {
            ws.send_binary("echo").await;
            ws.send_text(json!({"type": "eof"})).await;
        }
        ws.until(|_| false).await;
        told.extend(ws.told);
    }
}

async fn watches(server: &Server, told: &mut BTreeSet<String>) {
    let mut ws = server.ws("/v1/sprites/s/ports/watch").await;
    ws.next().await;
    port_opens_and_closes(server, &mut ws).await;
    told.extend(ws.told);
    let mut ws = server.ws("/v1/sprites/s/fs/watch").await;
    for (kind, answers) in [("subscribe", 2), ("unsubscribe", 1), ("nonsense", 1)] {
        ws.send_text(json!({"type": kind, "paths": ["/a"]})).await;
        for _ in 0..answers {
            ws.next().await;
        }
    }
    told.extend(ws.told);
}

/// Whatever a WebSocket says is described (or the client of these tests fails), and whatever is described is said.
#[tokio::test]
async fn every_described_message_goes_over_the_wire() {
    let server = Server::with_sprite().await;
    let mut told = BTreeSet::new();
    session(&server, false, &mut told).await;
    session(&server, true, &mut told).await;
    control(&server, &mut told).await;
    proxy(&server, &mut told).await;
    watches(&server, &mut told).await;
    opens(&server, &mut told).await;
    lost(&server, &mut told).await;
    told.extend(ELSEWHERE.map(str::to_owned));
    let missing: Vec<String> = STREAMS.of_sockets().difference(&told).cloned().collect();
    assert!(missing.is_empty(), "described and never said: {missing:?}");
}

/// What clients say, as SDKs write it, is described.
#[test]
fn what_clients_say_is_described() {
    for (path, text, message) in [
        (
            EXEC,
            r#"{"type":"resize","cols":90,"rows":30}"#,
            "ClientText.resize",
        ),
        (
            EXEC,
            r#"{"type":"signal","signal":"TERM"}"#,
            "ClientText.signal",
        ),
        (EXEC, r#"{"type":"signal","signal":9}"#, "ClientText.signal"),
        (EXEC, r#"{"type":"stdin_eof"}"#, "ClientText.stdin_eof"),
        (
            CONTROL,
            r#"control:{"type":"op.start","op":"exec","args":{"cmd":["a","b"],"tty":"true","rows":24}}"#,
            "ClientEnvelope.op.start",
        ),
        (
            CONTROL,
            r#"{"type":"op.start","op":"fs.read","args":"path=%2Fa"}"#,
            "ClientEnvelope.op.start",
        ),
        (
            CONTROL,
            r#"{"type":"start","operation":"proxy","params":{"host":"localhost","port":80,"keep_alive":true}}"#,
            "ClientEnvelope.start",
        ),
        (CONTROL, r#"{"type":"release"}"#, "ClientEnvelope.release"),
        (
            "/v1/sprites/s/proxy",
            r#"{"host":"localhost","port":80}"#,
            "ProxyHello",
        ),
        ("/v1/sprites/s/proxy", r#"{"type":"eof"}"#, "ProxyText.eof"),
        (
            "/v1/sprites/s/fs/watch",
            r#"{"type":"subscribe","paths":["/x"],"recursive":true,"workingDir":"/"}"#,
            "WatchRequest.subscribe",
        ),
    ] {
        let (_, channel) = STREAMS.at(path, "websocket").expect("it is described");
        assert_eq!(channel.said(text), [message], "{text}");
    }
}

/// The comparison itself sees what is new: a type, a field, a stream, bytes too many.
#[test]
fn what_is_not_described_is_seen() {
    let (_, exec) = STREAMS.at(EXEC, "websocket").unwrap();
    let exit = r#"{"type":"exit","exit_code":0,"code":0}"#;
    assert_eq!(exec.text(exit), ["ServerText.exit"]);
    for text in [
        r#"{"type":"exit","exit_code":0,"code":0,"more":1}"#,
        r#"{"type":"exit","exit_code":"0","code":0}"#,
        r#"{"type":"news"}"#,
        "{}",
        "news",
    ] {
        assert_eq!(exec.text(text), [""; 0], "{text}");
    }
    assert_eq!(exec.bytes(&[3, 0], &["pipes"]), ["binary.exit"]);
    for bytes in [&[][..], &[3], &[3, 0, 0], &[5, 1]] {
        assert_eq!(exec.bytes(bytes, &["pipes"]), [""; 0], "{bytes:?}");
    }
    let list: Value = json!({"type": "port_list", "ports": []});
    assert_eq!(
        exec.text(&list.to_string()),
        [""; 0],
        "only a watch tells lists"
    );
}

/// The document is there for whoever asks, without a token.
#[tokio::test]
async fn a_server_gives_the_description_away() {
    let server = Server::start().await;
    let given = server
        .request("GET", "/streams.json")
        .token(None)
        .send()
        .await;
    assert_eq!(
        (given.status(), &given.json()["asyncapi"]),
        (200, &json!("3.0.0"))
    );
}
