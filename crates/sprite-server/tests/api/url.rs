//! Behaviour reference §4.4: a sprite's own URL leads to the program that listens in it, and to nothing else.

mod domains;
mod hostile;
mod login;
mod program;
mod reuse;
mod tls;

use std::ops::ControlFlow;
use std::time::Duration;

use serde_json::json;
use sprite_server::ServeLimits;
use sprite_testkit::{Step, TestHost, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::program::Program;
use crate::setup::http::{Coming, read_head};
use crate::setup::{SOON, Server};

/// A server with an awake sprite `s`, and the host of its URL.
async fn served() -> (Server, String) {
    let server = Server::with_sprite().await;
    let host = host_of(&server, "s").await;
    (server, host)
}

async fn host_of(server: &Server, name: &str) -> String {
    let sprite = server.get(&format!("/v1/sprites/{name}")).await.json();
    let url = sprite["url"].as_str().unwrap();
    url.strip_prefix("http://").unwrap().to_owned()
}

async fn make_public(server: &Server, name: &str) {
    let change = json!({"url_settings": {"auth": "public"}}).to_string();
    let request = server.request("PUT", &format!("/v1/sprites/{name}"));
    assert_eq!(request.body(change).send().await.status(), 200);
}

async fn falls_asleep(server: &Server) {
    eventually(SOON, async || {
        let sprite = server.get("/v1/sprites/s").await.json();
        match sprite["status"].as_str() {
            Some("warm") => ControlFlow::Break(()),
            other => ControlFlow::Continue(format!("{other:?}")),
        }
    })
    .await;
}

impl Server {
    /// Sends a request as it is written.
    async fn raw(&self, text: &str) -> BufReader<TcpStream> {
        let mut tcp = TcpStream::connect(self.addr).await.unwrap();
        tcp.write_all(text.as_bytes()).await.unwrap();
        BufReader::new(tcp)
    }

    /// A GET with the server's token and more headers, each with its end of line.
    async fn url_get(&self, host: &str, path: &str, headers: &str) -> Coming {
        let token = &self.test.token;
        let headers = format!("Authorization: Bearer {token}\r\n{headers}");
        self.url_ask(host, path, &headers).await
    }

    /// A GET with these headers.
    async fn url_ask(&self, host: &str, path: &str, headers: &str) -> Coming {
        let text =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n");
        let mut io = self.raw(&text).await;
        let head = read_head(&mut io).await;
        Coming::new(head, io)
    }
}

#[tokio::test]
async fn a_request_reaches_the_program_and_its_answer_comes_back() {
    let (server, host) = served().await;
    let program = Program::echo(&server, 8080).await;
    let answer = server.url_get(&host, "/a/b?c=d%20e", "X-Mine: 1\r\n").await;
    let answer = answer.whole().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.head.header("x-theirs"), Some("yes"));
    assert_eq!(answer.head.header("sprite-version"), None);
    let seen = String::from_utf8(answer.body()).unwrap();
    assert!(seen.starts_with("GET /a/b?c=d%20e HTTP/1.1\r\n"), "{seen}");
    for line in [
        "x-mine: 1",
        &format!("host: {host}"),
        &format!("x-forwarded-host: {host}"),
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
        "sprite-client-ip: 127.0.0.1",
        "via: 1.1 sprited",
    ] {
        assert!(seen.contains(&format!("\r\n{line}\r\n")), "{line}: {seen}");
    }
    assert!(!seen.contains("authorization"), "{seen}");
    assert!(!seen.contains("connection: close"), "{seen}");
    drop(program);
}

/// Nothing of the API is under the URL domain, nothing of a sprite under the API's host.
#[tokio::test]
async fn the_api_and_sprites_are_apart() {
    let (server, host) = served().await;
    let _program = Program::echo(&server, 8080).await;
    for path in ["/healthz", "/openapi.json", "/v1/sprites", "/login"] {
        let answer = server.url_get(&host, path, "").await.whole().await;
        let seen = String::from_utf8(answer.body()).unwrap();
        assert!(seen.starts_with(&format!("GET {path} ")), "{path}: {seen}");
        for nobody in ["sprites.localhost", "api.sprites.localhost:1"] {
            let answer = server.url_get(nobody, path, "").await.whole().await;
            assert_eq!(answer.status(), 404, "{nobody}{path}");
            assert_eq!(answer.error(), "not_found");
        }
    }
    // Whoever names a sprite twice, or two hosts, is no way around that.
    let (token, addr) = (&server.test.token, server.addr);
    let two = format!(
        "GET /v1/sprites HTTP/1.1\r\nHost: {addr}\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let mut io = server.raw(&two).await;
    assert_eq!(read_head(&mut io).await.status, 400);
    let absolute = format!(
        "GET http://{host}/v1/sprites HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Connection: close\r\n\r\n"
    );
    let mut io = server.raw(&absolute).await;
    let answer = Coming::new(read_head(&mut io).await, io).whole().await;
    let seen = String::from_utf8(answer.body()).unwrap();
    assert!(seen.starts_with("GET /v1/sprites HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains(&format!("\r\nhost: {host}\r\n")), "{seen}");
}

/// Whoever shows nothing cannot tell a private sprite from none; neither can another organisation.
#[tokio::test]
async fn strangers_learn_nothing() {
    let (server, host) = served().await;
    let program = Program::echo(&server, 8080).await;
    // Its first machine comes by itself.
    eventually(SOON, async || match server.test.driver.started() {
        1 => ControlFlow::Break(()),
        other => ControlFlow::Continue(other),
    })
    .await;
    let none = host.replacen("s-", "none-", 1);
    let slug = "other".parse().unwrap();
    let foreign = server.test.host.create_token(&slug, "test").await.unwrap();
    let foreign = format!("Authorization: Bearer {foreign}\r\n");
    for (headers, status, code) in [
        ("", 401, "unauthorized"),
        ("Authorization: Bearer a/b/c/d\r\n", 401, "unauthorized"),
        ("Authorization: Basic YTpi\r\n", 401, "unauthorized"),
        (foreign.as_str(), 404, "not_found"),
    ] {
        let mut answers = Vec::new();
        for host in [&host, &none] {
            let answer = server.url_ask(host, "/", headers).await.whole().await;
            assert_eq!(answer.status(), status, "{host} {headers}");
            assert_eq!(answer.error(), code, "{host} {headers}");
            answers.push(answer.json());
        }
        assert_eq!(answers[0], answers[1]);
    }
    assert_eq!(program.requests(), 0);
    assert_eq!(server.test.driver.started(), 1);
    make_public(&server, "s").await;
    let answer = server.url_ask(&host, "/", &foreign).await.whole().await;
    let seen = String::from_utf8(answer.body()).unwrap();
    // What is public takes everything as it comes.
    assert!(seen.contains("authorization: Bearer other/"), "{seen}");
}

/// Behaviour reference §1.2: `sprite_starting`; a person gets a page that tries again.
#[tokio::test]
async fn a_sprite_that_does_not_wake_in_time_is_starting() {
    let options = sprite_host::HostOptions {
        wake_within: Duration::from_millis(50),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    let mut held = server.test.driver.hold(Step::Environment);
    server.test.create("s").await;
    held.reached().await;
    let host = host_of(&server, "s").await;
    let answer = server.url_get(&host, "/", "").await.whole().await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.error(), "sprite_starting");
    assert_eq!(answer.head.header("retry-after"), Some("2"));
    let accept = "Accept: text/html,application/xhtml+xml\r\n";
    let page = server.url_get(&host, "/", accept).await.whole().await;
    assert_eq!(page.status(), 503);
    assert_eq!(page.head.header("retry-after"), Some("2"));
    let text = String::from_utf8(page.body()).unwrap();
    assert!(text.contains("http-equiv=\"refresh\""), "{text}");
    let _program = Program::echo(&server, 8080).await;
    drop(held);
    eventually(SOON, async || {
        let answer = server.url_get(&host, "/", "").await.whole().await;
        match answer.status() {
            200 => ControlFlow::Break(()),
            other => ControlFlow::Continue(other.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn where_nothing_listens_the_gateway_is_bad() {
    let (server, host) = served().await;
    let answer = server.url_get(&host, "/", "").await.whole().await;
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.error(), "bad_gateway");
    let accept = "Accept: text/html\r\n";
    let page = server.url_get(&host, "/", accept).await.whole().await;
    assert_eq!(page.status(), 502);
    let kind = page.head.header("content-type").unwrap();
    assert!(kind.starts_with("text/html"), "{kind}");
    // A program that is none, or ends in the middle.
    for said in ["SSH-2.0-OpenSSH\r\n\r\n", "", "HTTP/1.1 200"] {
        let _program = Program::saying(&server, 8080, said).await;
        let answer = server.url_get(&host, "/", "").await.whole().await;
        assert_eq!(answer.status(), 502, "{said:?}");
        assert_eq!(answer.error(), "bad_gateway");
    }
}

/// What comes is passed on as it comes: server-sent events are not collected, whatever their length is.
#[tokio::test]
async fn events_are_passed_one_by_one() {
    let (server, host) = served().await;
    let mut program = Program::by_hand(&server, 8080).await;
    let asking = server.url_get(&host, "/events", "");
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client
            .say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            .await;
        client
    };
    let (mut coming, mut client) = tokio::join!(asking, answering);
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        client
            .say(&format!("{:x}\r\n{event}\r\n", event.len()))
            .await;
        assert_eq!(
            coming.chunk().await.unwrap(),
            Some(event.as_bytes().to_vec())
        );
    }
    // A program that breaks off is no end.
    drop(client);
    assert!(coming.chunk().await.is_err());
}

/// A body goes up while its answer comes down.
#[tokio::test]
async fn bodies_pass_both_ways_at_once_with_their_trailers() {
    let (server, host) = served().await;
    let mut program = Program::by_hand(&server, 8080).await;
    let token = &server.test.token;
    let mut io = server
        .raw(&format!(
            "POST /up HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nTE: trailers\r\n\
             Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nping\r\n"
        ))
        .await;
    let mut client = program.accept().await;
    let head = client.head().await;
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(head.contains("\r\nte: trailers\r\n"), "{head}");
    client.expect("4\r\nping\r\n").await;
    client
        .say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-count\r\n\r\n4\r\npong\r\n")
        .await;
    let mut coming = Coming::new(read_head(&mut io).await, io);
    assert_eq!(coming.head.status, 200);
    assert_eq!(coming.chunk().await.unwrap(), Some(b"pong".to_vec()));
    coming.write("5\r\nagain\r\n").await;
    client.expect("5\r\nagain\r\n").await;
    coming.write("0\r\nx-sum: 9\r\n\r\n").await;
    client.expect("0\r\nx-sum: 9\r\n\r\n").await;
    client.say("0\r\nx-count: 4\r\n\r\n").await;
    coming.expect("0\r\nx-count: 4\r\n\r\n").await;
}

/// Nobody sends a body that the program does not want.
#[tokio::test]
async fn the_program_says_whether_a_body_may_come() {
    let (server, host) = served().await;
    let mut program = Program::by_hand(&server, 8080).await;
    let token = &server.test.token;
    let text = format!(
        "PUT /up HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n\
         Content-Length: 4\r\n\r\n"
    );
    let mut io = server.raw(&text).await;
    let mut client = program.accept().await;
    let head = client.head().await;
    assert!(head.contains("\r\nexpect: 100-continue\r\n"), "{head}");
    client.say("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(read_head(&mut io).await.status, 100);
    io.write_all(b"body").await.unwrap();
    client.expect("body").await;
    client.say("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(read_head(&mut io).await.status, 204);

    let mut io = server.raw(&text).await;
    let mut client = program.accept().await;
    client.head().await;
    client
        .say("HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
        .await;
    assert_eq!(read_head(&mut io).await.status, 413);

    // One that does not know of it gets the body after a while.
    let mut io = server.raw(&text).await;
    let mut client = program.accept().await;
    client.head().await;
    assert_eq!(read_head(&mut io).await.status, 100);
    io.write_all(b"body").await.unwrap();
    client.expect("body").await;
}

/// A WebSocket's bytes pass as they are, and hold the sprite awake; what waits for nothing does not.
#[tokio::test]
async fn a_switched_connection_passes_bytes_and_holds_the_sprite_awake() {
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(100)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    let host = host_of(&server, "s").await;
    let mut program = Program::by_hand(&server, 8080).await;
    let token = &server.test.token;
    let mut io = server
        .raw(&format!(
            "GET /ws HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
        ))
        .await;
    let mut client = program.accept().await;
    let head = client.head().await;
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    client
        .say("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nfirst")
        .await;
    let head = read_head(&mut io).await;
    assert_eq!(head.status, 101);
    assert_eq!(head.header("upgrade"), Some("websocket"));
    let mut first = [0; 5];
    io.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"first");
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        io.write_all(b"\x81\x00ping").await.unwrap();
        client.expect("\u{81}\0ping").await;
        assert_eq!(
            server.get("/v1/sprites/s").await.json()["status"],
            "running"
        );
    }
    drop(io);
    client.ends().await;
    falls_asleep(&server).await;
}

/// A client that waits for its next request holds nothing, and one that asks wakes the sprite.
#[tokio::test]
async fn a_request_holds_the_sprite_and_the_time_between_two_does_not() {
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(100)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    let host = host_of(&server, "s").await;
    make_public(&server, "s").await;
    let mut program = Program::by_hand(&server, 8080).await;
    let mut io = server.raw("").await;
    for _ in 0..2 {
        io.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut client = program.accept().await;
        client.head().await;
        // Longer than a sprite that nobody uses stays awake.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let sprite = server.get("/v1/sprites/s").await.json();
            assert_eq!(sprite["status"], "running");
        }
        client
            .say("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        let head = read_head(&mut io).await;
        assert_eq!(head.status, 200);
        let mut body = [0; 2];
        io.read_exact(&mut body).await.unwrap();
        falls_asleep(&server).await;
    }
}

/// A client that goes in the middle takes its request along.
#[tokio::test]
async fn a_client_that_goes_is_told_to_the_program() {
    let (server, host) = served().await;
    let mut program = Program::by_hand(&server, 8080).await;
    let token = &server.test.token;
    let io = server
        .raw(&format!(
            "GET /slow HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
        ))
        .await;
    let mut client = program.accept().await;
    client.head().await;
    drop(io);
    timeout(SOON, client.ends()).await.expect("it is told");
}

/// A head alone has the length of what it is the head of; a client of HTTP/1.0 gets no chunks.
#[tokio::test]
async fn heads_and_old_clients_are_answered_as_they_can_read() {
    let (server, host) = served().await;
    let _program = Program::answering(&server, 8080, |head| {
        let answer = if head.starts_with("HEAD ") {
            "content-length: 7\r\n\r\n"
        } else {
            "transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        };
        format!("HTTP/1.1 200 OK\r\n{answer}")
    })
    .await;
    let token = &server.test.token;
    let rest = format!("Host: {host}\r\nAuthorization: Bearer {token}\r\n");
    let mut io = server
        .raw(&format!(
            "HEAD / HTTP/1.1\r\nConnection: close\r\n{rest}\r\n"
        ))
        .await;
    let head = read_head(&mut io).await;
    assert_eq!(head.header("content-length"), Some("7"));
    let mut body = Vec::new();
    io.read_to_end(&mut body).await.unwrap();
    assert!(body.is_empty());
    let mut io = server.raw(&format!("GET / HTTP/1.0\r\n{rest}\r\n")).await;
    let head = read_head(&mut io).await;
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    io.read_to_end(&mut body).await.unwrap();
    assert_eq!(body, b"abc");
}
