//! Behaviour reference §1.13: tasks, from outside.

use std::time::{Duration, Instant};

use serde_json::json;
use sprite_host::HostOptions;
use sprite_server::ServeLimits;
use sprite_testkit::TestHost;

use crate::setup::Server;
use crate::setup::http::Answer;

/// Falls asleep as soon as nothing holds it.
async fn sleepy() -> Server {
    let options = HostOptions {
        idle_timeout: Some(Duration::from_millis(50)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    server
}

async fn put(server: &Server, path: &str, body: &str) -> Answer {
    server.request("PUT", path).body(body).send().await
}

async fn delete(server: &Server, path: &str) -> Answer {
    server.request("DELETE", path).send().await
}

async fn until_status(server: &Server, status: &str) {
    sprite_testkit::eventually(crate::setup::SOON, async || {
        let sprite = server.get("/v1/sprites/s").await.json();
        match sprite["status"] == status {
            true => std::ops::ControlFlow::Break(()),
            false => std::ops::ControlFlow::Continue(sprite["status"].clone()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_is_created_listed_shown_extended_and_deleted() {
    let server = Server::with_sprite().await;
    let all = "/v1/sprites/s/tasks";
    assert_eq!(server.get(all).await.json(), json!({"tasks": []}));
    let created = server.post(all, r#"{"name":"build","expire":"30m"}"#).await;
    assert_eq!(created.status(), 201);
    let task = created.json();
    assert_eq!(task["name"], "build");
    let taken = server.post(all, r#"{"name":"build","expire":10}"#).await;
    assert_eq!((taken.status(), taken.error().as_str()), (409, "conflict"));
    assert_eq!(server.get(all).await.json(), json!({"tasks": [task]}));
    let shown = server.get("/v1/sprites/s/tasks/build").await;
    assert_eq!((shown.status(), shown.json()), (200, task.clone()));
    let extended = put(&server, "/v1/sprites/s/tasks/build", r#"{"expire":"1h"}"#).await;
    assert_eq!(extended.status(), 200);
    let extended = extended.json();
    assert_eq!(extended["started_at"], task["started_at"]);
    assert!(extended["expires_at"].as_str() > task["expires_at"].as_str());
    let other = put(&server, all, r#"{"name":"a-0","expire":60}"#).await;
    assert_eq!(other.status(), 200);
    assert_eq!(
        server.get(all).await.json(),
        json!({"tasks": [other.json(), extended]})
    );
    assert_eq!(
        delete(&server, "/v1/sprites/s/tasks/build").await.status(),
        204
    );
    assert_eq!(
        delete(&server, "/v1/sprites/s/tasks/build").await.status(),
        404
    );
    let gone = server.get("/v1/sprites/s/tasks/build").await;
    assert_eq!((gone.status(), gone.error().as_str()), (404, "not_found"));
}

#[tokio::test]
async fn a_task_without_name_or_end_or_with_a_wrong_one_is_refused() {
    let server = Server::with_sprite().await;
    for (body, says) in [
        (r#"{"expire":"1h"}"#, "name is required"),
        (r#"{"name":"","expire":"1h"}"#, "name is required"),
        (r#"{"name":"Build","expire":"1h"}"#, "lowercase"),
        (r#"{"name":"a/b","expire":"1h"}"#, "lowercase"),
        (r#"{"name":"a"}"#, "expire is required"),
        (r#"{"name":"a","expire":"soon"}"#, "is not a duration"),
        (r#"{"name":"a","expire":0}"#, "at most 1h"),
        (r#"{"name":"a","expire":-5}"#, "is not a duration"),
        (r#"{"name":"a","expire":"1h1s"}"#, "at most 1h"),
        (r#"{"name":"a","expire":3601}"#, "at most 1h"),
        (r#"{"name":"a","expire":[]}"#, "not the expected JSON"),
        ("[]", "not a JSON object"),
    ] {
        let answer = server.post("/v1/sprites/s/tasks", body).await;
        assert_eq!(answer.status(), 400, "{body}");
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(says), "{body}: {message}");
    }
    let long = json!({"name": "a".repeat(64), "expire": 3600}).to_string();
    assert_eq!(
        server.post("/v1/sprites/s/tasks", &long).await.status(),
        400
    );
    let limit = json!({"name": "a".repeat(63), "expire": 3600}).to_string();
    assert_eq!(
        server.post("/v1/sprites/s/tasks", &limit).await.status(),
        201
    );
    assert_eq!(server.get("/v1/sprites/s/tasks/A").await.status(), 400);
}

#[tokio::test]
async fn a_sprite_has_a_bounded_number_of_tasks() {
    let server = Server::with_sprite().await;
    for n in 0..64 {
        let body = json!({"name": format!("t{n}"), "expire": 60}).to_string();
        assert_eq!(
            server.post("/v1/sprites/s/tasks", &body).await.status(),
            201
        );
    }
    let more = server
        .post("/v1/sprites/s/tasks", r#"{"name":"more","expire":60}"#)
        .await;
    assert_eq!(more.status(), 400);
    let known = put(&server, "/v1/sprites/s/tasks/t5", r#"{"expire":90}"#).await;
    assert_eq!(known.status(), 200);
}

#[tokio::test]
async fn tasks_of_a_foreign_sprite_do_not_exist() {
    let server = Server::with_sprite().await;
    let foreign = server.foreign_token().await;
    for (method, path) in [
        ("GET", "/v1/sprites/s/tasks"),
        ("POST", "/v1/sprites/s/tasks"),
        ("PUT", "/v1/sprites/s/tasks/a"),
        ("DELETE", "/v1/sprites/s/tasks/a"),
    ] {
        let request = server.request(method, path).token(Some(&foreign));
        let answer = request.body(r#"{"name":"a","expire":1}"#).send().await;
        assert_eq!(answer.status(), 404, "{method} {path}");
    }
}

#[tokio::test]
async fn a_task_wakes_a_sprite_holds_it_and_lets_go_at_its_end() {
    let server = sleepy().await;
    until_status(&server, "warm").await;
    let began = Instant::now();
    let put = put(&server, "/v1/sprites/s/tasks/a", r#"{"expire":2}"#).await;
    assert_eq!(put.status(), 200);
    assert_eq!(
        server.get("/v1/sprites/s").await.json()["status"],
        "running"
    );
    until_status(&server, "warm").await;
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it was held to the end"
    );
    assert_eq!(
        server.get("/v1/sprites/s/tasks").await.json(),
        json!({"tasks": []})
    );
}

#[tokio::test]
async fn deleting_the_last_task_lets_a_sprite_sleep() {
    let server = sleepy().await;
    for name in ["a", "b"] {
        let path = format!("/v1/sprites/s/tasks/{name}");
        put(&server, &path, r#"{"expire":"1h"}"#).await;
    }
    assert_eq!(delete(&server, "/v1/sprites/s/tasks/a").await.status(), 204);
    // Many idle times: nothing but the other task holds it.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        assert_eq!(
            server.get("/v1/sprites/s").await.json()["status"],
            "running"
        );
    }
    assert_eq!(delete(&server, "/v1/sprites/s/tasks/b").await.status(), 204);
    until_status(&server, "warm").await;
}
