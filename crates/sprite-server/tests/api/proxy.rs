//! Behaviour reference §1.6, §1.7, §11.4, §11.12: connections to ports, and the watch of ports.

use std::time::Duration;

use serde_json::json;
use sprite_server::ServeLimits;
use sprite_testkit::TestHost;
use tokio_tungstenite::tungstenite::Message;

use crate::setup::Server;
use crate::setup::socket::{Event, Ws};

const PROXY: &str = "/v1/sprites/s/proxy";
const PORTS: &str = "/v1/sprites/s/ports/watch";

async fn connected(server: &Server) -> Ws {
    let mut ws = server.ws(PROXY).await.terminal();
    ws.send_text(json!({"host": "localhost", "port": 7})).await;
    let answer = json!({"status": "connected", "target": "127.0.0.1:7"});
    assert_eq!(ws.next().await, Event::Text(answer));
    ws
}

fn sleepy() -> sprite_host::HostOptions {
    sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(100)),
        ..TestHost::options()
    }
}

#[tokio::test]
async fn bytes_go_both_ways_until_a_close() {
    let server = Server::with_sprite().await;
    let mut ws = connected(&server).await;
    for text in ["GET / HTTP/1.0", "again"] {
        ws.send_binary(text).await;
        assert_eq!(ws.next().await, Event::Terminal(text.to_owned()));
    }
    assert_eq!(ws.close().await, [Event::Close(1000), Event::Gone]);
}

/// A client that says where to in the query has no first message.
#[tokio::test]
async fn a_query_says_where_to_as_well() {
    let server = Server::with_sprite().await;
    let to = |query: &str| format!("{PROXY}?{query}");
    let mut ws = server.ws(&to("port=7&half_close=true")).await.terminal();
    ws.send_binary("first words").await;
    assert_eq!(ws.next().await, Event::Terminal("first words".to_owned()));
    assert_eq!(ws.close().await, [Event::Close(1000), Event::Gone]);

    for (wrong, status) in [
        ("port=9&host=localhost", 502),
        ("port=0", 400),
        ("port=65536", 400),
        ("port=web", 400),
        ("port=7&half_close=half", 400),
    ] {
        let refused = server.try_ws(&to(wrong)).await.err();
        assert_eq!(refused.expect(wrong).status, status, "{wrong}");
    }
}

/// A client that can tell the end of its own direction still hears the other one to its end.
#[tokio::test]
async fn an_end_of_one_direction_is_not_the_end() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(PROXY).await.terminal();
    ws.send_text(json!({"host": "localhost", "port": 7, "half_close": true}))
        .await;
    let answer = json!({"status": "connected", "target": "127.0.0.1:7", "half_close": true});
    assert_eq!(ws.next().await, Event::Text(answer));
    ws.send_binary("last words").await;
    ws.send_text(json!({"type": "eof"})).await;
    let seen = ws.until(|_| false).await;
    let expected = [
        Event::Terminal("last words".to_owned()),
        Event::Text(json!({"type": "eof"})),
        Event::Close(1000),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_cannot_be_connected_is_answered_and_closed() {
    let server = Server::with_sprite().await;
    for (hello, error) in [
        (r#"{"host":"localhost","port":9}"#, "connection_refused"),
        (r#"{"host":"localhost","port":0}"#, "invalid"),
        (r#"{"host":"localhost","port":65536}"#, "invalid"),
        (r#"{"host":"localhost"}"#, "invalid"),
        ("hello", "invalid"),
    ] {
        let mut ws = server.ws(PROXY).await;
        ws.message(Message::text(hello)).await;
        let Event::Text(answer) = ws.next().await else {
            panic!("{hello} was not answered")
        };
        assert_eq!(answer["status"], "error", "{hello}");
        assert!(answer["message"].is_string(), "{hello}");
        let code = answer["error"].as_str().unwrap();
        assert!(code.starts_with(error), "{hello}: {code}");
        assert_eq!(ws.next().await, Event::Close(1011), "{hello}");
    }
    let missing = server.try_ws("/v1/sprites/none/proxy").await.err();
    assert_eq!(missing.map(|head| head.status), Some(404));
    assert_eq!(server.get(PROXY).await.status(), 426);
    assert_eq!(server.get(PORTS).await.status(), 426);
}

/// §11.4: an open proxy keeps a sprite awake; one that has ended does not.
#[tokio::test]
async fn an_open_connection_keeps_the_sprite_awake() {
    let server = Server::with(sleepy(), ServeLimits::default()).await;
    server.test.create("s").await;
    let mut ws = connected(&server).await;
    // A watch that begins meanwhile sees the sprite fall asleep, and not before.
    let mut watch = server.ws(PORTS).await;
    assert!(matches!(watch.next().await, Event::Text(_)));
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ws.send_binary("x").await;
        assert_eq!(ws.next().await, Event::Terminal("x".to_owned()));
        assert_eq!(
            server.get("/v1/sprites/s").await.json()["status"],
            "running"
        );
    }
    ws.vanish();
    assert_eq!(watch.next().await, Event::Close(1001));
}

/// §11.12: the watch tells the ports first, holds nothing, and goes with the sprite.
#[tokio::test]
async fn a_watch_of_ports_lets_the_sprite_sleep() {
    let server = Server::with(sleepy(), ServeLimits::default()).await;
    server.test.create("s").await;
    let mut ws = server.ws(PORTS).await;
    let port = json!({"type": "port_opened", "port": 7, "address": "127.0.0.1", "pid": 1});
    let list = json!({"type": "port_list", "ports": [port]});
    assert_eq!(ws.next().await, Event::Text(list));
    assert_eq!(ws.next().await, Event::Close(1001));
}

/// A machine that ends takes its connections along, and says so.
#[tokio::test]
async fn a_lost_machine_is_not_a_normal_end() {
    let server = Server::with_sprite().await;
    let mut ws = connected(&server).await;
    server
        .test
        .driver
        .machines()
        .remove(0)
        .end("killed by the test");
    assert_eq!(ws.next().await, Event::Close(1011));
}

/// Connections that broke are continued unseen.
#[tokio::test]
async fn a_transport_that_breaks_is_not_noticed() {
    let server = Server::with_sprite().await;
    let mut ws = connected(&server).await;
    for round in 0..20 {
        server.test.driver.machines().remove(0).cut_transports();
        ws.send_binary(format!("{round}")).await;
        assert_eq!(ws.next().await, Event::Terminal(format!("{round}")));
    }
}
