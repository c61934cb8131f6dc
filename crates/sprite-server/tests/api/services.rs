//! Behaviour reference §1.9, §4.3: services.

use serde_json::{Value, json};
use sprite_testkit::eventually;
use std::ops::ControlFlow;

use crate::setup::http::Answer;
use crate::setup::{SOON, Server};

const ALL: &str = "/v1/sprites/s/services";

async fn put(server: &Server, name: &str, body: Value) -> Answer {
    let path = format!("{ALL}/{name}");
    server
        .request("PUT", &path)
        .body(body.to_string())
        .send()
        .await
}

async fn post(server: &Server, path: &str) -> Answer {
    server.post(&format!("{ALL}/{path}"), "").await
}

async fn delete(server: &Server, name: &str) -> Answer {
    server
        .request("DELETE", &format!("{ALL}/{name}"))
        .send()
        .await
}

async fn with_web() -> Server {
    let server = Server::with_sprite().await;
    assert_eq!(
        put(&server, "web", json!({"cmd": "serve"})).await.status(),
        200
    );
    server
}

fn text(answer: &Answer) -> String {
    String::from_utf8(answer.body()).unwrap()
}

/// The lines of an answer.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status(), 200, "{}", text(answer));
    let body = text(answer);
    let lines = body.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn kinds(answer: &Answer) -> Vec<String> {
    let lines = lines(answer);
    let kinds = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap().to_owned());
    kinds.collect()
}

async fn state(server: &Server, name: &str) -> Value {
    server.get(&format!("{ALL}/{name}")).await.json()["state"].clone()
}

#[tokio::test]
async fn a_service_is_put_shown_listed_and_deleted() {
    let server = Server::with_sprite().await;
    assert_eq!(server.get(ALL).await.json(), json!([]));
    let db = put(&server, "db", json!({"cmd": "postgres"})).await;
    assert_eq!(kinds(&db), ["started", "stdout", "complete"]);
    let web = json!({
        "cmd": "python3", "args": ["-m", "http.server"], "env": {"A": "1"}, "dir": "/srv",
        "needs": ["db"], "http_port": 3000, "something": "new",
    });
    let told = lines(&put(&server, "web", web).await);
    let path = "/.sprite/logs/services/web.log";
    let files = json!({"combined": path, "stdout": path, "stderr": path});
    assert_eq!(told[2]["log_files"], files);
    assert!(
        told.iter().all(|line| line["timestamp"].is_i64()),
        "{told:?}"
    );
    let shown = server.get("/v1/sprites/s/services/web").await.json();
    let mut described = shown.clone();
    described.as_object_mut().unwrap().remove("state");
    assert_eq!(
        described,
        json!({
            "name": "web", "cmd": "python3", "args": ["-m", "http.server"], "env": {"A": "1"},
            "dir": "/srv", "needs": ["db"], "http_port": 3000,
        })
    );
    assert_eq!(
        shown["state"],
        json!({
            "name": "web", "status": "running", "pid": 2, "error": "", "restart_count": 0,
            "started_at": "2026-06-02T17:11:14.555839Z",
        })
    );
    let listed = server.get(ALL).await.json();
    assert_eq!(
        (&listed[1], listed[0]["http_port"].is_null()),
        (&shown, true)
    );
    let needed = delete(&server, "db").await;
    assert_eq!(needed.status(), 409, "{}", text(&needed));
    for name in ["web", "db"] {
        assert_eq!(delete(&server, name).await.status(), 204);
    }
    assert_eq!(delete(&server, "web").await.status(), 404);
    assert_eq!(server.get("/v1/sprites/s/services/web").await.status(), 404);
    assert_eq!(server.get(ALL).await.json(), json!([]));
}

#[tokio::test]
async fn what_cannot_be_a_service_is_refused_and_changes_nothing() {
    let server = with_web().await;
    let before = server.get(ALL).await.json();
    for (name, body, status, reason) in [
        ("a", json!({}), 400, "cmd is required"),
        (
            "a",
            json!({"cmd": "x", "needs": ["gone"]}),
            400,
            "needs gone, which does not exist",
        ),
        (
            "a",
            json!({"cmd": "x", "needs": ["a"]}),
            400,
            "circle: a → a",
        ),
        ("a", json!({"cmd": "x", "needs": ["a b"]}), 400, "needs: "),
        ("a", json!({"cmd": "x", "http_port": 0}), 400, "http_port"),
        (
            "a",
            json!({"cmd": "x", "http_port": 70_000}),
            400,
            "http_port",
        ),
        ("a", json!({"cmd": "x", "env": {"A=B": "1"}}), 400, "env"),
        (
            "a",
            json!({"cmd": "x\0"}),
            400,
            "cmd cannot hold a zero byte",
        ),
        ("a", json!({"cmd": "x", "args": "not a list"}), 400, ""),
        ("a%20b", json!({"cmd": "x"}), 400, "service: "),
        (".a", json!({"cmd": "x"}), 400, "service: "),
        ("a", json!({"cmd": "x".repeat(70_000)}), 400, "at most"),
    ] {
        let refused = put(&server, name, body.clone()).await;
        assert_eq!(refused.status(), status, "{body} {}", text(&refused));
        assert!(text(&refused).contains(reason), "{body} {}", text(&refused));
    }
    assert_eq!(server.get(ALL).await.json(), before);
}

/// Behaviour reference §1.9: the text as clients know it.
#[tokio::test]
async fn one_service_has_the_http_port() {
    let server = Server::with_sprite().await;
    let with_port = |port: u16| json!({"cmd": "serve", "http_port": port});
    assert_eq!(put(&server, "web", with_port(3000)).await.status(), 200);
    let second = put(&server, "api", with_port(3001)).await;
    assert_eq!(second.status(), 409);
    let known = "another service already has an HTTP port configured";
    assert!(text(&second).contains(known), "{}", text(&second));
    assert_eq!(put(&server, "web", with_port(3001)).await.status(), 200);
    assert_eq!(
        put(&server, "web", json!({"cmd": "serve"})).await.status(),
        200
    );
    assert_eq!(put(&server, "api", with_port(3001)).await.status(), 200);
}

#[tokio::test]
async fn a_service_is_stopped_started_restarted_and_signalled() {
    let server = with_web().await;
    assert_eq!(
        kinds(&post(&server, "web/stop?timeout=1s").await),
        ["stopping", "stopped", "complete"]
    );
    assert_eq!(state(&server, "web").await["status"], "stopped");
    let again = post(&server, "web/stop").await;
    assert_eq!(again.status(), 409, "{}", text(&again));
    let body = r#"{"name":"web","signal":"HUP"}"#;
    let signal = format!("{ALL}/signal");
    assert_eq!(server.post(&signal, body).await.status(), 409);
    assert_eq!(
        kinds(&post(&server, "web/start?duration=0s").await),
        ["started", "stdout", "complete"]
    );
    assert_eq!(server.post(&signal, body).await.status(), 204);
    assert_eq!(
        server
            .post(&signal, r#"{"name":"web","signal":15}"#)
            .await
            .status(),
        204
    );
    for (body, status) in [
        (r#"{"name":"web","signal":"NOPE"}"#, 400),
        (r#"{"name":"web"}"#, 400),
        (r#"{"signal":"HUP"}"#, 400),
        (r#"{"name":"gone","signal":"HUP"}"#, 404),
    ] {
        assert_eq!(server.post(&signal, body).await.status(), status, "{body}");
    }
    let told = post(&server, "web/restart").await;
    assert_eq!(
        kinds(&told),
        ["stopping", "stopped", "started", "stdout", "complete"]
    );
    for path in ["gone/start", "gone/stop", "gone/restart"] {
        assert_eq!(post(&server, path).await.status(), 404, "{path}");
    }
    assert_eq!(post(&server, "web/start?duration=soon").await.status(), 400);
}

/// Behaviour reference §11.13: creating a service fails if it dies while it is watched; it stays, and its state says why.
#[tokio::test]
async fn a_service_that_dies_or_cannot_be_started_is_told_as_an_error() {
    let server = Server::with_sprite().await;
    let failed = put(&server, "bad", json!({"cmd": "fail"})).await;
    assert_eq!(kinds(&failed), ["started", "exit", "error", "complete"]);
    assert_eq!(lines(&failed)[1]["exit_code"], 1);
    let state = state(&server, "bad").await;
    assert_eq!(
        (&state["status"], &state["error"]),
        (&json!("failed"), &json!("exited with status 1"))
    );
    let missing = put(&server, "none", json!({"cmd": "missing"})).await;
    assert_eq!(kinds(&missing), ["error", "complete"]);
    let said = lines(&missing)[0]["data"].as_str().unwrap().to_owned();
    assert!(
        said.starts_with("executable file `missing` not found"),
        "{said}"
    );
}

#[tokio::test]
async fn logs_are_the_last_lines_that_are_asked_for() {
    let server = with_web().await;
    let logs = async |query: &str| server.get(&format!("{ALL}/web/logs{query}")).await;
    let data = |answer: &Answer| -> Vec<Value> {
        let lines = lines(answer);
        lines.iter().map(|line| line["data"].clone()).collect()
    };
    assert_eq!(
        data(&logs("").await),
        [
            json!("line 0"),
            json!("line 1"),
            json!("line 2"),
            Value::Null
        ]
    );
    assert_eq!(
        data(&logs("?lines=1&duration=0s").await),
        [json!("line 2"), Value::Null]
    );
    assert_eq!(logs("?lines=some").await.status(), 400);
    assert_eq!(server.get(&format!("{ALL}/gone/logs")).await.status(), 404);
}

/// A sprite without a machine has no processes: saying so wakes nobody. Whatever needs a process does.
#[tokio::test]
async fn looking_at_services_of_a_sprite_without_a_machine_does_not_wake_it() {
    let server = with_web().await;
    let machine = server.test.driver.machines().remove(0);
    machine.end("gone");
    eventually(SOON, async || {
        match server.get("/v1/sprites/s").await.json()["status"].clone() {
            status if status == "cold" => ControlFlow::Break(()),
            status => ControlFlow::Continue(status),
        }
    })
    .await;
    assert_eq!(
        state(&server, "web").await,
        json!({
            "name": "web", "status": "stopped", "error": "", "restart_count": 0,
        })
    );
    assert_eq!(server.get("/v1/sprites/s").await.json()["status"], "cold");
    assert_eq!(
        put(&server, "gone", json!({"cmd": "x", "needs": ["no"]}))
            .await
            .status(),
        400
    );
    assert_eq!(server.get("/v1/sprites/s").await.json()["status"], "cold");
    assert_eq!(kinds(&post(&server, "web/start").await)[0], "started");
    assert_eq!(
        server.get("/v1/sprites/s").await.json()["status"],
        "running"
    );
}

#[tokio::test]
async fn services_of_a_foreign_sprite_do_not_exist() {
    let server = with_web().await;
    let token = server.foreign_token().await;
    for (method, path) in [
        ("GET", ""),
        ("GET", "/web"),
        ("DELETE", "/web"),
        ("POST", "/web/stop"),
        ("GET", "/web/logs"),
    ] {
        let path = format!("{ALL}{path}");
        let answer = server
            .request(method, &path)
            .token(Some(&token))
            .send()
            .await;
        assert_eq!(answer.status(), 404, "{method} {path}");
    }
    assert_eq!(state(&server, "web").await["status"], "running");
}
