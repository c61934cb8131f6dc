//! Behaviour reference §1.13: the API inside a sprite, spoken to by processes of any kind.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sprite_testkit::{FakeMachine, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::timeout;

use crate::setup::{SOON, Server};

/// The machine of a sprite, awake.
pub(crate) async fn machine(server: &Server, name: &str) -> Arc<FakeMachine> {
    let sprite = server
        .test
        .host
        .sprite(&server.test.principal.org, &name.parse().unwrap())
        .await
        .unwrap();
    drop(server.test.host.awake(sprite.id).await.unwrap());
    server.test.driver.machine_of(sprite.id).unwrap()
}

/// Sends `text` in one piece; what comes until the connection ends.
async fn exchange(machine: &FakeMachine, text: &str) -> String {
    let mut call = machine.call();
    call.write_all(text.as_bytes()).await.unwrap();
    rest(&mut call).await
}

async fn rest(call: &mut DuplexStream) -> String {
    let mut said = Vec::new();
    timeout(SOON, call.read_to_end(&mut said))
        .await
        .expect("an answer in time")
        .unwrap();
    String::from_utf8(said).unwrap()
}

/// Status and JSON of one request of a process inside.
pub(crate) async fn ask(
    machine: &FakeMachine,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, Value) {
    let text = format!(
        "{method} {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let said = exchange(machine, &text).await;
    let status = said.split(' ').nth(1).unwrap().parse().unwrap();
    let body = said.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn each_sprite_is_told_who_it_is() {
    let server = Server::with_sprite().await;
    let other = server.test.create("other").await;
    let (first, second) = (machine(&server, "other").await, machine(&server, "s").await);
    let (status, info) = ask(&first, "GET", "/info", "").await;
    assert_eq!(status, 200);
    let url = format!(
        "http://other-{}.sprites.localhost:{}",
        server.test.principal.org,
        server.addr.port()
    );
    assert_eq!(
        info,
        json!({"version": "0.0.1-rc48", "sprite_name": "other", "sprite_url": url,
            "sprite_id": other.id.to_string(), "org": "personal"})
    );
    let (_, info) = ask(&second, "GET", "/info", "").await;
    assert_eq!(info["sprite_name"], "s");
}

#[tokio::test]
async fn tasks_made_inside_are_seen_outside_and_the_other_way_round() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    let body = r#"{"name":"inner","expire":"1h"}"#;
    let (status, task) = ask(&machine, "POST", "/v1/tasks", body).await;
    assert_eq!((status, &task["name"]), (201, &json!("inner")));
    assert_eq!(ask(&machine, "POST", "/v1/tasks", body).await.0, 409);
    let seen = server.get("/v1/sprites/s/tasks").await.json();
    assert_eq!(seen, json!({"tasks": [task]}));
    let (status, _) = ask(&machine, "PUT", "/v1/tasks", r#"{"name":"two","expire":9}"#).await;
    assert_eq!(status, 200);
    let (status, _) = ask(&machine, "PUT", "/v1/tasks/three", r#"{"expire":9}"#).await;
    assert_eq!(status, 200);
    let (status, tasks) = ask(&machine, "GET", "/v1/tasks", "").await;
    assert_eq!((status, tasks["tasks"].as_array().unwrap().len()), (200, 3));
    assert_eq!(ask(&machine, "GET", "/v1/tasks/two", "").await.0, 200);
    assert_eq!(ask(&machine, "DELETE", "/v1/tasks/two", "").await.0, 204);
    assert_eq!(ask(&machine, "GET", "/v1/tasks/two", "").await.0, 404);
    assert_eq!(ask(&machine, "DELETE", "/v1/tasks/two", "").await.0, 404);
}

#[tokio::test]
async fn alarms_are_set_told_and_deleted() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    let at = "2199-01-01T00:00:00.000001Z";
    let body = json!({ "at": at }).to_string();
    for _ in 0..2 {
        let set = ask(&machine, "POST", "/v1/wake", &body).await;
        assert_eq!(set, (201, json!({ "at": at })));
    }
    let (status, soon) = ask(&machine, "POST", "/v1/wake", r#"{"in":"1h"}"#).await;
    assert_eq!(status, 201);
    let listed = ask(&machine, "GET", "/v1/wake", "").await;
    assert_eq!(listed, (200, json!({"alarms": [soon, {"at": at}]})));
    let path = format!("/v1/wake?at={}", at.replace(':', "%3A"));
    assert_eq!(ask(&machine, "DELETE", &path, "").await.0, 204);
    assert_eq!(ask(&machine, "DELETE", &path, "").await.0, 404);
    assert_eq!(ask(&machine, "DELETE", "/v1/wake", "").await.0, 204);
    let listed = ask(&machine, "GET", "/v1/wake", "").await;
    assert_eq!(listed, (200, json!({"alarms": []})));
    for body in [
        "{}",
        r#"{"at":"soon"}"#,
        r#"{"at":"1999-01-01T00:00:00Z"}"#,
        r#"{"in":"1h","at":"2199-01-01T00:00:00Z"}"#,
        r#"{"in":-1}"#,
        r#"{"in":1e18}"#,
    ] {
        assert_eq!(
            ask(&machine, "POST", "/v1/wake", body).await.0,
            400,
            "{body}"
        );
    }
    assert_eq!(ask(&machine, "DELETE", "/v1/wake?at=soon", "").await.0, 400);
}

#[tokio::test]
async fn what_is_not_there_is_refused_and_never_pretended() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    for (method, path, status, code) in [
        ("GET", "/v1/services/web", 404, "not_found"),
        ("GET", "/v1/services/web/logs", 404, "not_found"),
        ("POST", "/v1/services/web/start", 404, "not_found"),
        ("GET", "/v1/checkpoints/v1", 404, "not_found"),
        ("DELETE", "/v1/checkpoints/Current", 404, "not_found"),
        ("POST", "/v1/checkpoints/v1/restore", 404, "not_found"),
        ("POST", "/v1/browser", 400, "invalid_request"),
        ("GET", "/v1/browser", 405, "method_not_allowed"),
        ("POST", "/policy/network", 405, "method_not_allowed"),
        ("GET", "/v1/orgs", 403, "forbidden"),
        ("POST", "/v1/orgs/personal/v1/sprites", 403, "forbidden"),
        ("PATCH", "/v1/tasks", 405, "method_not_allowed"),
        ("GET", "/nothing", 404, "not_found"),
    ] {
        let (got, body) = ask(&machine, method, path, "").await;
        assert_eq!(
            (got, &body["error"]),
            (status, &json!(code)),
            "{method} {path}"
        );
    }
}

/// Policies can be read inside, and not be changed.
#[tokio::test]
async fn policies_are_read_inside_as_they_are_outside() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    for kind in ["network", "privileges", "resources"] {
        let outside = server.get(&format!("/v1/sprites/s/policy/{kind}")).await;
        let inside = ask(&machine, "GET", &format!("/policy/{kind}"), "").await;
        assert_eq!(inside, (200, outside.json()), "{kind}");
        let body = r#"{"rules":[]}"#;
        for method in ["POST", "PUT", "DELETE"] {
            let changed = ask(&machine, method, &format!("/policy/{kind}"), body).await;
            assert_eq!(changed.0, 405, "{method} {kind}");
        }
    }
}

/// The identity is the connection's: no path, header or token makes another of it.
#[tokio::test]
async fn no_request_reaches_the_public_api_or_another_sprite() {
    let server = Server::with_sprite().await;
    server.test.create("other").await;
    let machine = machine(&server, "s").await;
    let token = server.test.token.clone();
    for path in [
        "/v1/sprites",
        "/v1/sprites/other",
        "/v1/sprites/other/tasks",
        "/v1/organization",
        "/healthz",
        "//v1/sprites",
        "/v1/tasks/../sprites",
        "/info/../v1/sprites",
        "/v1/tasks/%2e%2e/sprites",
    ] {
        for line in [path.to_owned(), format!("http://{}{path}", server.addr)] {
            let said = exchange(
                &machine,
                &format!(
                    "GET {line} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
                     X-Sprite: other\r\nConnection: close\r\n\r\n",
                    server.addr
                ),
            )
            .await;
            assert!(said.starts_with("HTTP/1.1 404"), "{line}: {said}");
        }
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    let one = "GET /v1/tasks HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let said = exchange(&machine, &(one.repeat(20) + last)).await;
    assert_eq!(said.matches("HTTP/1.1 200").count(), 21);
    assert_eq!(said.matches(r#"{"tasks":[]}"#).count(), 20);
    assert!(said.ends_with('}') && said.contains("sprite_name"));
}

/// Whoever says all and then waits, as `nc -U` does, is answered.
#[tokio::test]
async fn a_caller_that_ends_its_side_is_answered() {
    let server = Server::with_sprite().await;
    let mut call = machine(&server, "s").await.call();
    call.write_all(b"GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    call.shutdown().await.unwrap();
    assert!(rest(&mut call).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_too_large_or_no_http_is_refused() {
    let server = Server::with_sprite().await;
    let machine = machine(&server, "s").await;
    let line = "GET /info HTTP/1.1\r\nHost: x\r\n";
    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(100 << 10));
    for headers in [many, long] {
        let mut call = machine.call();
        // It may be refused before it is sent to its end.
        let _ = call
            .write_all(format!("{line}{headers}\r\n").as_bytes())
            .await;
        let said = rest(&mut call).await;
        assert!(said.starts_with("HTTP/1.1 431"), "{said}");
    }
    for text in [
        "\x16\x03\x01 hello\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
    ] {
        let said = exchange(&machine, text).await;
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 400"),
            "{said}"
        );
    }
    let body = format!(
        r#"{{"name":"a","expire":9,"x":"{}"}}"#,
        "y".repeat(64 << 10)
    );
    assert_eq!(ask(&machine, "POST", "/v1/tasks", &body).await.0, 413);
    let (status, info) = ask(&machine, "GET", "/info", "").await;
    assert_eq!((status, &info["sprite_name"]), (200, &json!("s")));
}

/// Slow and silent callers use up their own sprite's share, for as long as a head may take.
#[tokio::test]
async fn a_sprite_that_holds_all_its_connections_harms_no_other() {
    let server = Server::with_sprite().await;
    server.test.create("other").await;
    let (hostile, other) = (machine(&server, "s").await, machine(&server, "other").await);
    let mut held = Vec::new();
    for n in 0..300 {
        let mut call = hostile.call();
        if n % 2 == 0 {
            // It may be one too many, and refused.
            let _ = call.write_all(b"GET /info HT").await;
        }
        held.push(call);
    }
    let began = Instant::now();
    for _ in 0..20 {
        assert_eq!(ask(&other, "GET", "/info", "").await.0, 200);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(server.get("/v1/sprites").await.status(), 200);
    drop(held);
    eventually(SOON, async || {
        match timeout(SOON, ask(&hostile, "GET", "/info", "")).await {
            Ok((200, _)) => ControlFlow::Break(()),
            other => ControlFlow::Continue(format!("{other:?}")),
        }
    })
    .await;
}

/// A sprite that only asks is not kept awake by it, and what it asks again after a sleep is answered.
#[tokio::test]
async fn calls_come_again_after_a_sleep_and_after_a_lost_transport() {
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..sprite_testkit::TestHost::options()
    };
    let server = Server::with(options, sprite_server::ServeLimits::default()).await;
    server.test.create("s").await;
    for _ in 0..3 {
        let machine = machine(&server, "s").await;
        machine.cut_transports();
        let sprite = eventually(SOON, async || {
            let sprite = server.get("/v1/sprites/s").await.json();
            match sprite["status"] == "warm" {
                true => ControlFlow::Break(sprite),
                false => ControlFlow::Continue(sprite),
            }
        })
        .await;
        let asked = tokio::spawn(async move { ask(&machine, "GET", "/info", "").await.0 });
        let id = sprite["id"].as_str().unwrap().parse().unwrap();
        let awake = server.test.host.awake(id).await.unwrap();
        assert_eq!(timeout(SOON, asked).await.unwrap().unwrap(), 200);
        drop(awake);
    }
}
