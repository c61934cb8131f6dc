//! Sprites that sprites make: what one sees, and what it does not.

use std::ops::ControlFlow;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sprite_testkit::{FakeMachine, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::inside::{ask, machine};
use crate::setup::{SOON, Server};

const SPRITES: &str = "/v1/orgs/personal/sprites";

async fn switch(server: &Server, name: &str, access: bool) {
    let body = json!({"config": {"api_access": access}}).to_string();
    let path = format!("/v1/sprites/{name}");
    let answer = server.request("PUT", &path).body(body).send().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json()["config"]["api_access"], access);
}

async fn make(parent: &FakeMachine, name: &str) -> Value {
    let body = json!({ "name": name }).to_string();
    let (status, made) = ask(parent, "POST", SPRITES, &body).await;
    assert_eq!(status, 201, "{made}");
    made
}

/// Sends a request, and reads its answer's head.
async fn begin(call: &mut DuplexStream, request: &str) -> String {
    call.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, call.read_u8()).await.expect("an answer");
        head.push(byte.expect("an open connection"));
    }
    String::from_utf8(head).unwrap()
}

async fn upgrade(
    machine: &FakeMachine,
    path: &str,
) -> Result<WebSocketStream<DuplexStream>, String> {
    let mut call = machine.call();
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let head = begin(&mut call, &request).await;
    match head.starts_with("HTTP/1.1 101") {
        true => Ok(WebSocketStream::from_raw_socket(call, Role::Client, None).await),
        false => Err(head),
    }
}

#[tokio::test]
async fn a_sprite_makes_and_uses_sprites_of_its_own_once_it_may() {
    let server = Server::with_sprite().await;
    let parent = machine(&server, "s").await;
    for (method, path) in [("GET", "/v1/orgs"), ("GET", SPRITES), ("POST", SPRITES)] {
        let (status, body) = ask(&parent, method, path, r#"{"name":"a"}"#).await;
        assert_eq!(
            (status, &body["error"]),
            (403, &json!("forbidden")),
            "{path}"
        );
        assert!(
            body["hint"].as_str().unwrap().contains("--api-access"),
            "{body}"
        );
    }
    switch(&server, "s", true).await;
    let (status, orgs) = ask(&parent, "GET", "/v1/orgs", "").await;
    let expected = json!({"orgs": [{"slug": "personal", "name": "personal"}]});
    assert_eq!((status, orgs), (200, expected));

    let made = make(&parent, "child").await;
    let me = server.get("/v1/sprites/s").await.json();
    assert_eq!(made["made_by"], me["id"]);
    assert_eq!(made["config"]["api_access"], false);
    assert_eq!(me.get("made_by"), None);
    let exec = format!("{SPRITES}/child/exec?cmd=hostname");
    let (status, _) = ask(&parent, "POST", &exec, "").await;
    assert_eq!(status, 200);
    let body = r#"{"labels":["mine"]}"#;
    let (status, labelled) = ask(&parent, "PUT", &format!("{SPRITES}/child"), body).await;
    assert_eq!((status, &labelled["labels"]), (200, &json!(["mine"])));
    // A socket of a session works as it does outside.
    let mut cat = upgrade(&parent, &format!("{SPRITES}/child/exec?cmd=cat&stdin=true"))
        .await
        .expect("an upgrade");
    cat.send(Message::binary(b"\x00hello".to_vec()))
        .await
        .unwrap();
    loop {
        match timeout(SOON, cat.next())
            .await
            .expect("a message")
            .unwrap()
            .unwrap()
        {
            Message::Binary(said) => break assert_eq!(&said[..], b"\x01hello"),
            Message::Text(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let (status, _) = ask(&parent, "DELETE", &format!("{SPRITES}/child"), "").await;
    assert_eq!(status, 204);
    assert_eq!(server.get("/v1/sprites/child").await.status(), 404);
}

#[tokio::test]
async fn a_sprite_sees_and_touches_none_but_what_it_made() {
    let server = Server::with_sprite().await;
    server.test.create("other").await;
    server.test.create("second").await;
    switch(&server, "s", true).await;
    switch(&server, "second", true).await;
    let (parent, second) = (
        machine(&server, "s").await,
        machine(&server, "second").await,
    );
    make(&parent, "child").await;
    make(&second, "foreign").await;
    for (machine, own) in [(&parent, "child"), (&second, "foreign")] {
        let (_, list) = ask(machine, "GET", SPRITES, "").await;
        let names: Vec<&Value> = list["sprites"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| &s["name"])
            .collect();
        assert_eq!(names, [own]);
        let counts = &list["org"];
        let counted = ["running", "warm", "cold"].map(|status| counts[status].as_u64().unwrap());
        assert_eq!(counted.iter().sum::<u64>(), 1, "{counts}");
    }
    let rule = r#"{"rules":[]}"#;
    // Itself, one of the organisation, one of another sprite.
    for name in ["s", "other", "foreign"] {
        for (method, rest, body) in [
            ("GET", "", ""),
            ("PUT", "", r#"{"labels":["x"]}"#),
            ("DELETE", "", ""),
            ("GET", "/check", ""),
            ("POST", "/restart", ""),
            ("POST", "/exec?cmd=true", ""),
            ("GET", "/exec", ""),
            ("GET", "/policy/network", ""),
            ("GET", "/fs/read?path=/etc/passwd", ""),
            ("PUT", "/fs/write?path=/tmp/x", "x"),
            ("GET", "/tasks", ""),
            ("POST", "/tasks", r#"{"name":"a","expire":"1h"}"#),
            ("GET", "/services", ""),
        ] {
            let (status, said) =
                ask(&parent, method, &format!("{SPRITES}/{name}{rest}"), body).await;
            assert_eq!(
                (status, &said["message"]),
                (404, &json!("sprite not found")),
                "{method} {name}{rest}"
            );
        }
        for rest in [
            "exec?cmd=true",
            "control",
            "proxy",
            "ports/watch",
            "fs/watch",
        ] {
            let refused = upgrade(&parent, &format!("{SPRITES}/{name}/{rest}")).await;
            assert!(
                refused.is_err_and(|head| head.starts_with("HTTP/1.1 404")),
                "{name}/{rest}"
            );
        }
        assert_eq!(
            server.get(&format!("/v1/sprites/{name}")).await.status(),
            200
        );
    }
    for (method, path, body) in [
        ("POST", format!("{SPRITES}/child/policy/network"), rule),
        ("DELETE", format!("{SPRITES}/child/policy/resources"), ""),
        ("POST", format!("{SPRITES}/child/upgrade"), ""),
        (
            "PUT",
            format!("{SPRITES}/child"),
            r#"{"url_settings":{"auth":"public"}}"#,
        ),
        (
            "PUT",
            format!("{SPRITES}/child"),
            r#"{"config":{"api_access":true}}"#,
        ),
        (
            "POST",
            SPRITES.to_owned(),
            r#"{"name":"x","config":{"api_access":true}}"#,
        ),
        (
            "POST",
            SPRITES.to_owned(),
            r#"{"name":"x","url_settings":{"auth":"public"}}"#,
        ),
        ("GET", "/v1/orgs/personal/organization".to_owned(), ""),
        (
            "POST",
            "/v1/orgs/personal/organizations/personal/tokens".to_owned(),
            "{}",
        ),
    ] {
        let (status, said) = ask(&parent, method, &path, body).await;
        assert_eq!(
            (status, &said["error"]),
            (403, &json!("forbidden")),
            "{method} {path}"
        );
    }
    let (status, _) = ask(&parent, "GET", "/v1/orgs/others/sprites", "").await;
    assert_eq!(status, 404);
    let large = r#"{"name":"x","config":{"ram_mb":1000000}}"#;
    let (status, said) = ask(&parent, "POST", SPRITES, large).await;
    assert_eq!(status, 400, "{said}");
    let (status, said) = ask(&parent, "POST", SPRITES, r#"{"name":"other"}"#).await;
    assert_eq!((status, &said["error"]), (409, &json!("name_taken")));
}

#[tokio::test]
async fn what_is_made_begins_under_the_policies_of_its_maker() {
    let server = Server::with_sprite().await;
    switch(&server, "s", true).await;
    let closed = r#"{"rules":[{"domain":"*","action":"deny"}]}"#;
    let set = server.post("/v1/sprites/s/policy/network", closed).await;
    assert_eq!(set.status(), 204);
    let parent = machine(&server, "s").await;
    make(&parent, "child").await;
    let own = server.get("/v1/sprites/s/policy/network").await.json();
    assert_eq!(own["enforcement"], "closed");
    assert_eq!(
        server.get("/v1/sprites/child/policy/network").await.json(),
        own
    );
}

#[tokio::test]
async fn the_switch_goes_off_at_once_for_open_connections_too() {
    let server = Server::with_sprite().await;
    switch(&server, "s", true).await;
    let parent = machine(&server, "s").await;
    make(&parent, "child").await;
    let cat = format!("{SPRITES}/child/exec?cmd=cat&stdin=true");
    let mut socket = upgrade(&parent, &cat).await.expect("an upgrade");
    let mut list = parent.call();
    let request =
        format!("GET {SPRITES} HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n");
    let head = begin(&mut list, &request).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    switch(&server, "s", false).await;
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    timeout(SOON, ended).await.expect("the socket ends");
    let mut rest = Vec::new();
    // An end or an error: either way nothing more comes.
    let _ = timeout(SOON, list.read_to_end(&mut rest))
        .await
        .expect("the list ends");
    assert!(
        !String::from_utf8_lossy(&rest).ends_with("0\r\n\r\n"),
        "it must not look whole"
    );
    let (status, _) = ask(&parent, "GET", SPRITES, "").await;
    assert_eq!(status, 403);
    // The rest of the API inside goes on.
    assert_eq!(ask(&parent, "GET", "/info", "").await.0, 200);
}

#[tokio::test]
async fn what_a_sprite_made_stays_when_it_is_deleted() {
    let server = Server::with_sprite().await;
    switch(&server, "s", true).await;
    let parent = machine(&server, "s").await;
    let made = make(&parent, "child").await;
    let gone = server.request("DELETE", "/v1/sprites/s").send().await;
    assert_eq!(gone.status(), 204);
    let kept = server.get("/v1/sprites/child").await.json();
    assert_eq!(
        (&kept["id"], &kept["made_by"]),
        (&made["id"], &made["made_by"])
    );
    // A sprite of the same name is another, and sees nothing of it.
    server.test.create("s").await;
    switch(&server, "s", true).await;
    let again = machine(&server, "s").await;
    let (_, list) = ask(&again, "GET", SPRITES, "").await;
    assert_eq!(list["sprites"], json!([]));
}

/// A list that is watched from inside tells of the sprites that were made there, and of no others.
#[tokio::test]
async fn a_watched_list_tells_of_what_the_sprite_made() {
    let server = Server::with_sprite().await;
    switch(&server, "s", true).await;
    let parent = machine(&server, "s").await;
    let mut list = parent.call();
    let request =
        format!("GET {SPRITES} HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n");
    begin(&mut list, &request).await;
    server.test.create("unseen").await;
    make(&parent, "child").await;
    let mut said = String::new();
    let told = eventually(SOON, async || {
        let mut piece = vec![0; 4096];
        let read = timeout(SOON, list.read(&mut piece))
            .await
            .expect("more")
            .unwrap();
        said.push_str(&String::from_utf8_lossy(&piece[..read]));
        match said.contains(r#""name":"child""#) {
            true => ControlFlow::Break(said.clone()),
            false => ControlFlow::Continue(said.clone()),
        }
    })
    .await;
    assert!(!told.contains("unseen"), "{told}");
}
