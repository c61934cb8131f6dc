//! URLs that programs in a sprite want opened, and who is asked.

use std::ops::ControlFlow;

use serde_json::json;
use sprite_testkit::eventually;

use crate::inside::{ask, machine};
use crate::setup::socket::Event;
use crate::setup::{SOON, Server};

const LOGIN: &str = "https://id.example/a?redirect_uri=http%3A%2F%2Flocalhost%3A8976%2Fback";

fn wanted(url: &str) -> String {
    json!({ "url": url }).to_string()
}

#[tokio::test]
async fn whoever_said_so_and_typed_last_is_asked_and_nobody_else() {
    let server = Server::with_sprite().await;
    server.test.create("other").await;
    let (inside, other) = (machine(&server, "s").await, machine(&server, "other").await);
    let mut silent = server.ws("/v1/sprites/s/exec?cmd=cat&stdin=true").await;
    assert!(matches!(silent.next().await, Event::Info(_)));
    // Somebody is attached, but said nothing of a browser.
    let (status, body) = ask(&inside, "POST", "/v1/browser", &wanted(LOGIN)).await;
    assert_eq!((status, &body["error"]), (409, &json!("conflict")));
    assert!(
        body["hint"].as_str().unwrap().contains("sprite console s"),
        "{body}"
    );

    let path = "/v1/sprites/s/exec?cmd=cat&stdin=true&browser=true";
    let (mut first, mut second) = (server.ws(path).await, server.ws(path).await);
    for client in [&mut first, &mut second] {
        assert!(matches!(client.next().await, Event::Info(_)));
    }
    first.stdin("typed").await;
    assert_eq!(first.next().await, Event::Stdout("typed".to_owned()));
    let (status, body) = ask(&inside, "POST", "/v1/browser", &wanted(LOGIN)).await;
    assert_eq!((status, body), (202, json!({"status": "sent"})));
    let told = json!({"type": "open_url", "url": LOGIN, "callback_port": 8976});
    assert_eq!(first.next().await, Event::Text(told));
    second.stdin("me").await;
    assert_eq!(second.next().await, Event::Stdout("me".to_owned()));
    ask(&inside, "POST", "/v1/browser", &wanted("http://a/")).await;
    let told = json!({"type": "open_url", "url": "http://a/"});
    assert_eq!(second.next().await, Event::Text(told));

    // Of another sprite's programs they hear nothing.
    let (status, _) = ask(&other, "POST", "/v1/browser", &wanted(LOGIN)).await;
    assert_eq!(status, 409);
    // Who is gone is not asked.
    for mut client in [second, first] {
        client.eof().await;
        while client.next().await != Event::Exit(0) {}
    }
    eventually(SOON, async || {
        match ask(&inside, "POST", "/v1/browser", &wanted(LOGIN)).await.0 {
            409 => ControlFlow::Break(()),
            status => ControlFlow::Continue(status),
        }
    })
    .await;
    silent.stdin("still here").await;
    assert_eq!(silent.next().await, Event::Stdout("still here".to_owned()));
}

#[tokio::test]
async fn only_urls_of_the_web_are_passed_on() {
    let server = Server::with_sprite().await;
    let inside = machine(&server, "s").await;
    let mut client = server
        .ws("/v1/sprites/s/exec?cmd=cat&stdin=true&browser=true")
        .await;
    assert!(matches!(client.next().await, Event::Info(_)));
    let long = format!("http://a/{}", "x".repeat(8192));
    for url in [
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://a/\u{1b}[2J",
        "http://bank@evil/",
        "",
        &long,
    ] {
        let (status, body) = ask(&inside, "POST", "/v1/browser", &wanted(url)).await;
        let said = body["message"].as_str().unwrap();
        assert_eq!((status, said.contains("url")), (400, true), "{url}: {said}");
    }
    for body in ["", "[]", "{}", r#"{"url":7}"#, r#"{"url":null}"#] {
        let (status, _) = ask(&inside, "POST", "/v1/browser", body).await;
        assert_eq!(status, 400, "{body}");
    }
    client.stdin("nothing came").await;
    assert_eq!(
        client.next().await,
        Event::Stdout("nothing came".to_owned())
    );
}

#[tokio::test]
async fn attached_clients_are_asked_too_and_a_wrong_word_is_refused() {
    let server = Server::with_sprite().await;
    let inside = machine(&server, "s").await;
    let mut first = server
        .ws("/v1/sprites/s/exec?cmd=cat&stdin=true&tty=true")
        .await;
    let Event::Info(info) = first.next().await else {
        panic!("a session")
    };
    let id = info["session_id"].as_str().unwrap();
    let mut joined = server
        .ws(&format!("/v1/sprites/s/exec/{id}?browser=1"))
        .await;
    assert!(matches!(joined.next().await, Event::Info(_)));
    let (status, _) = ask(&inside, "POST", "/v1/browser", &wanted(LOGIN)).await;
    assert_eq!(status, 202);
    loop {
        // What the terminal shows comes first.
        match joined.next().await {
            Event::Text(told) => break assert_eq!(told["url"], LOGIN),
            Event::Stdout(_) | Event::Terminal(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let refused = server
        .try_ws("/v1/sprites/s/exec?cmd=cat&browser=maybe")
        .await;
    assert_eq!(refused.err().map(|head| head.status), Some(400));
}
