//! Which connections to a sprite's program are used for one request after the other, and how many there are.

use std::time::Duration;

use sprite_server::ServeLimits;
use sprite_testkit::TestHost;
use tokio::time::timeout;

use super::program::Client;
use super::{Program, falls_asleep, host_of, make_public, served};
use crate::setup::http::{Answer, Coming, read_head};
use crate::setup::{SOON, Server};

/// A server with an awake sprite `s` whose URL is public, its host and its program.
async fn public() -> (Server, String, Program) {
    let (server, host) = served().await;
    make_public(&server, "s").await;
    let program = Program::by_hand(&server, 8080).await;
    (server, host, program)
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
}

async fn ask(server: &Server, method: &str, host: &str, more: &str) -> Answer {
    let text = format!("{method} / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    let mut io = server.raw(&text).await;
    let head = read_head(&mut io).await;
    Coming::new(head, io).whole().await
}

/// A request that comes on a new connection.
async fn anew(server: &Server, host: &str, program: &mut Program, body: &str) -> Client {
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client.say(&ok(body)).await;
        client
    };
    let (answer, client) = tokio::join!(ask(server, "GET", host, ""), answering);
    assert_eq!(answer.body(), body.as_bytes());
    client
}

/// A request that comes on a connection that was used before.
async fn on(server: &Server, host: &str, client: &mut Client, body: &str) {
    let answering = async {
        let head = client.head().await;
        assert!(head.starts_with("GET / "), "{head}");
        client.say(&ok(body)).await;
    };
    let (answer, ()) = tokio::join!(ask(server, "GET", host, ""), answering);
    assert_eq!(answer.body(), body.as_bytes());
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    on(&server, &host, &mut client, "two").await;
    on(&server, &host, &mut client, "three").await;
    // While it is in use the next has another.
    let mut io = server
        .raw(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    client.head().await;
    let _second = anew(&server, &host, &mut program, "four").await;
    client.say(&ok("five")).await;
    let head = read_head(&mut io).await;
    assert_eq!(head.status, 200);
}

/// Chunked answers have an end too, and heads alone.
#[tokio::test]
async fn answers_of_every_kind_have_an_end() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    for (method, answer, body) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "abc",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
    ] {
        let answering = async {
            client.head().await;
            client.say(answer).await;
        };
        let (got, ()) = tokio::join!(ask(&server, method, &host, ""), answering);
        assert_eq!(got.body(), body.as_bytes(), "{answer}");
    }
    on(&server, &host, &mut client, "end").await;
}

/// What changes something, has a body or logs a connection in has one of its own, before and after.
#[tokio::test]
async fn what_cannot_be_sent_twice_has_a_connection_of_its_own() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    for (method, more) in [
        ("POST", "Content-Length: 0\r\n"),
        ("DELETE", ""),
        ("GET", "Authorization: NTLM x\r\n"),
    ] {
        let answering = async {
            let mut own = program.accept().await;
            own.head().await;
            own.say(&ok("own")).await;
            own.ends().await;
        };
        let (answer, ()) = tokio::join!(ask(&server, method, &host, more), answering);
        assert_eq!(answer.body(), b"own", "{method} {more}");
    }
    // One that a login is asked for on is used by nobody else.
    let answering = async {
        client.head().await;
        client
            .say("HTTP/1.1 401 Unauthorized\r\nwww-authenticate: NTLM\r\ncontent-length: 0\r\n\r\n")
            .await;
        client.ends().await;
    };
    let (answer, ()) = tokio::join!(ask(&server, "GET", &host, ""), answering);
    assert_eq!(answer.status(), 401);
}

/// A program may end a connection that waits, just when a request is on its way.
#[tokio::test]
async fn a_request_on_a_connection_that_ended_is_brought_on_another() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    let answering = async {
        let head = client.head().await;
        assert!(head.starts_with("GET / "), "{head}");
        drop(client);
        let mut other = program.accept().await;
        other.head().await;
        other.say(&ok("two")).await;
        other
    };
    let (answer, mut other) = tokio::join!(ask(&server, "GET", &host, ""), answering);
    assert_eq!(answer.body(), b"two");
    // It is tried once more, not for ever.
    let answering = async {
        other.head().await;
        drop(other);
        drop(program.accept().await);
    };
    let (answer, ()) = tokio::join!(ask(&server, "GET", &host, ""), answering);
    assert_eq!(answer.status(), 502);
}

/// Whoever leaves in the middle of an answer takes the connection along: its rest is nobody else's.
#[tokio::test]
async fn a_half_read_answer_is_read_by_nobody_else() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    let mut io = server
        .raw(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .await;
    client.head().await;
    client
        .say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
        .await;
    assert_eq!(read_head(&mut io).await.status, 200);
    drop(io);
    client.ends().await;
    anew(&server, &host, &mut program, "two").await;
}

/// A connection that waits holds nothing, does not put sleep off when it ends, and ends with the sleep.
#[tokio::test]
async fn a_connection_that_waits_does_not_keep_the_sprite_awake() {
    let options = sprite_host::HostOptions {
        idle_timeout: Some(Duration::from_millis(300)),
        ..TestHost::options()
    };
    let server = Server::with(options, ServeLimits::default()).await;
    server.test.create("s").await;
    let host = host_of(&server, "s").await;
    make_public(&server, "s").await;
    let mut program = Program::by_hand(&server, 8080).await;
    for body in ["one", "two"] {
        let mut client = anew(&server, &host, &mut program, body).await;
        on(&server, &host, &mut client, body).await;
        falls_asleep(&server).await;
        timeout(SOON, client.ends()).await.expect("it ends");
    }
}

/// Another memory has other connections, whatever the old ones still seem to be.
#[tokio::test]
async fn no_connection_outlives_the_memory_that_it_was_made_in() {
    let (server, host, mut program) = public().await;
    let mut client = anew(&server, &host, &mut program, "one").await;
    let restarted = server.request("POST", "/v1/sprites/s/restart").send().await;
    assert_eq!(restarted.status(), 200);
    anew(&server, &host, &mut program, "two").await;
    timeout(SOON, client.ends()).await.expect("it ends");
}

#[tokio::test]
async fn one_sprite_takes_so_many_requests_and_leaves_the_others_theirs() {
    let limits = ServeLimits::default();
    let server = Server::configured(TestHost::options(), limits, |config| {
        config.url_requests = 2;
    })
    .await;
    let mut programs = Vec::new();
    for name in ["s", "t"] {
        server.test.create(name).await;
        make_public(&server, name).await;
    }
    programs.push(Program::by_hand(&server, 8080).await);
    let (host, other) = (host_of(&server, "s").await, host_of(&server, "t").await);
    let program = &mut programs[0];
    let mut open = Vec::new();
    let asked = |more: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    for more in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        let io = server.raw(&asked(more)).await;
        let mut client = program.accept().await;
        client.head().await;
        open.push((io, client));
    }
    let (_, websocket) = &mut open[1];
    websocket
        .say(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        )
        .await;
    let refused = ask(&server, "GET", &host, "").await;
    assert_eq!(
        (refused.status(), refused.error().as_str()),
        (503, "unavailable")
    );
    assert_eq!(refused.head.header("retry-after"), Some("2"));
    let body = refused.json();
    let text = format!("{} {}", body["message"], body["hint"]);
    assert!(text.contains("2 requests and WebSockets"), "{text}");
    // Another sprite has its own.
    let mut io = server
        .raw(&format!("GET / HTTP/1.1\r\nHost: {other}\r\n\r\n"))
        .await;
    let mut theirs = program.accept().await;
    theirs.head().await;
    theirs.say(&ok("t")).await;
    assert_eq!(read_head(&mut io).await.status, 200);
    // One that ends makes room.
    let (io, mut client) = open.remove(0);
    drop(io);
    client.ends().await;
    anew(&server, &host, program, "room").await;
}
