//! What sprites have used, and what the server tells monitoring.

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::Value;
use sprite_host::HostOptions;
use sprite_machine::Statistics;
use sprite_server::{ServeLimits, serve};
use sprite_testkit::{TestHost, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::inside::{ask, machine};
use crate::setup::{SOON, Server};

/// Falls asleep as soon as nothing holds it.
async fn sleepy() -> Server {
    let options = HostOptions {
        idle_timeout: Some(Duration::from_millis(20)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    server
}

async fn until_warm(server: &Server) {
    eventually(SOON, async || {
        let sprite = server.get("/v1/sprites/s").await.json();
        match sprite["status"] == "warm" {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(sprite["status"].clone()),
        }
    })
    .await;
}

fn number(usage: &Value, field: &str) -> f64 {
    usage[field]
        .as_f64()
        .unwrap_or_else(|| panic!("{field} of {usage}"))
}

#[tokio::test]
async fn what_a_sprite_used_is_told_and_wakes_nothing() {
    let server = sleepy().await;
    machine(&server, "s").await.set_used(Statistics {
        cpu_usec: 1_500_000,
        memory_bytes: 512 << 20,
        pids: 1,
        bytes_in: 70,
        bytes_out: 30,
    });
    until_warm(&server).await;
    let started = server.test.driver.started();
    let answer = server.get("/v1/sprites/s/usage").await;
    assert_eq!(answer.status(), 200);
    let usage = answer.json();
    assert_eq!(usage["sprite_name"], "s");
    assert_eq!(usage["status"], "warm");
    assert!((number(&usage, "cpu_seconds") - 1.5).abs() < 1e-9);
    assert_eq!(usage["network_in_bytes"], 70);
    assert_eq!(usage["network_out_bytes"], 30);
    let memory = number(&usage, "running_seconds") / 2.0;
    assert!((number(&usage, "memory_gib_seconds") - memory).abs() < 1e-6);
    assert!(number(&usage, "warm_seconds") > 0.0);
    assert!(usage["disk_unique_bytes"].as_u64().unwrap() > 0);
    assert_eq!(usage["memory_bytes"], Value::Null);
    let sprite = server.get("/v1/sprites/s").await.json();
    assert_eq!(usage["since"], sprite["created_at"]);
    assert_eq!(sprite["status"], "warm");
    assert_eq!(server.test.driver.started(), started);
}

#[tokio::test]
async fn nobody_is_told_of_another_organizations_sprite() {
    let server = Server::with_sprite().await;
    let none = server.get("/v1/sprites/other/usage").await;
    assert_eq!(none.status(), 404);
    let token = server.foreign_token().await;
    let foreign = server
        .request("GET", "/v1/sprites/s/usage")
        .token(Some(&token));
    assert_eq!(foreign.send().await.status(), 404);
}

#[tokio::test]
async fn a_sprite_is_told_what_itself_used() {
    let server = Server::with_sprite().await;
    server.test.create("other").await;
    let machine = machine(&server, "s").await;
    machine.set_used(Statistics {
        cpu_usec: 2_000_000,
        memory_bytes: 1 << 20,
        ..Statistics::default()
    });
    let (status, usage) = ask(&machine, "GET", "/v1/usage", "").await;
    assert_eq!(status, 200);
    assert_eq!(usage["sprite_name"], "s");
    assert_eq!(usage["status"], "running");
    assert_eq!(usage["memory_bytes"], 1 << 20);
    assert!((number(&usage, "cpu_seconds") - 2.0).abs() < 1e-9);
    let (status, _) = ask(&machine, "POST", "/v1/usage", "").await;
    assert_eq!(status, 405);
}

/// What a listener without tokens answers.
async fn plain(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let text = format!("GET {path} HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    said
}

#[tokio::test]
async fn metrics_are_told_on_their_own_listener_alone() {
    let server = sleepy().await;
    drop(machine(&server, "s").await);
    until_warm(&server).await;
    drop(machine(&server, "s").await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let router = server.api.metrics_router();
    let task = tokio::spawn(serve(listener, router, std::future::pending()));
    let told = plain(addr, "/metrics").await;
    assert!(told.starts_with("HTTP/1.1 200 "), "{told}");
    assert!(told.contains("application/openmetrics-text"), "{told}");
    for line in [
        "sprited_wakes_total{how=\"boot\",outcome=\"done\"} 1",
        "sprited_wakes_total{how=\"thaw\",outcome=\"done\"} ",
        "sprited_wake_seconds_count{how=\"boot\"} 1",
        "sprited_sleeps_total{outcome=\"done\"} ",
        "sprited_http_requests_total{surface=\"api\",status=\"2xx\"} ",
        "sprited_sprites{status=\"cold\"} 0",
        "sprited_resident_memory_bytes ",
        "# EOF",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    // Of no sprite and no organisation.
    assert!(
        !told.contains("personal") && !told.contains("sprite-"),
        "{told}"
    );
    // Nothing else is there, and it is nowhere else.
    for path in ["/", "/v1/sprites", "/healthz", "/openapi.json"] {
        let said = plain(addr, path).await;
        assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
    }
    assert_eq!(server.get("/metrics").await.status(), 404);
    task.abort();
}
