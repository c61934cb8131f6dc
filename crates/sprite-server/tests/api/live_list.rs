//! Behaviour reference §1.3 (watch): the listing as a stream of changes.

use crate::setup::Server;
use crate::setup::http::Coming;

async fn watch(server: &Server, query: &str) -> Coming {
    let request = server.request("GET", &format!("/v1/sprites{query}"));
    let coming = request
        .header("Accept", "application/x-ndjson")
        .begin()
        .await;
    assert_eq!(coming.head.status, 200);
    assert_eq!(
        coming.head.header("content-type"),
        Some("application/x-ndjson")
    );
    coming
}

/// Every sprite as it is, then every change, each line with the organisation's counts.
#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let server = Server::start().await;
    server.test.create("first").await;
    let mut lines = watch(&server, "").await;
    let line = lines.line().await;
    assert_eq!(line["name"], "first");
    assert_eq!(line["org"]["name"], "personal");
    assert!(line["timestamp"].is_string());
    server.test.create("second").await;
    loop {
        let line = lines.line().await;
        if line["name"] == "second" {
            assert!(line["status"].is_string());
            break;
        }
    }
    server.request("DELETE", "/v1/sprites/first").send().await;
    loop {
        let line = lines.line().await;
        if line["type"] == "deleted" {
            assert_eq!(
                (&line["name"], &line["status"]),
                (&"first".into(), &"deleted".into())
            );
            break;
        }
    }
}

/// An empty list says something at once; a prefix hides the others.
#[tokio::test]
async fn an_empty_list_beats() {
    let server = Server::start().await;
    let mut lines = watch(&server, "?prefix=b").await;
    assert_eq!(lines.line().await["type"], "heartbeat");
    server.test.create("a").await;
    server.test.create("b").await;
    assert_eq!(lines.line().await["name"], "b");
}

/// §12 (honest listing): a stream that ends with the server is broken off, not ended.
#[tokio::test]
async fn a_stopping_server_breaks_the_list_off() {
    let mut server = Server::start().await;
    let mut lines = watch(&server, "").await;
    lines.line().await;
    let (rest, ()) = tokio::join!(lines.whole(), server.stop());
    assert!(!rest.complete);
}
