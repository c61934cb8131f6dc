//! A program that answers what no program should: its own visitors see that it is broken, and nobody sees what was for
//! another.

use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::program::Client;
use super::{Program, make_public, served};
use crate::setup::http::read_head;
use crate::setup::{SOON, Server};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

async fn public() -> (Server, String, Program) {
    let (server, host) = served().await;
    make_public(&server, "s").await;
    let program = Program::by_hand(&server, 8080).await;
    (server, host, program)
}

/// Sends a GET; the answer's status, and its bytes if it came to its end. What was cut off may lack its head too.
async fn get(server: &Server, host: &str) -> (u16, Option<Vec<u8>>) {
    let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut io = server.raw(&text).await;
    let mut raw = String::new();
    // How it ended is told by the length.
    let read = timeout(SOON, io.read_to_string(&mut raw)).await;
    drop(read.expect("an end in time"));
    let Some((head, body)) = raw.split_once("\r\n\r\n") else {
        return (200, None);
    };
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    };
    let body = match header("transfer-encoding") {
        Some(_) => unchunked(body),
        None => {
            let length = header("content-length").map_or(0, |length| length.parse().unwrap());
            (length == body.len()).then(|| body.to_owned())
        }
    };
    (status, body.map(String::into_bytes))
}

/// What chunks hold, if the last is there.
fn unchunked(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// Asks once while the program says this, then asks on: the next answer is the next one's.
async fn said(server: &Server, host: &str, program: &mut Program, said: &str) -> Option<String> {
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client.say(said).await;
        client.finish().await;
        client
    };
    let ((status, body), client) = tokio::join!(get(server, host), answering);
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client.say(GOOD).await;
        client
    };
    let (next, other) = tokio::join!(get(server, host), answering);
    assert_eq!(next, (200, Some(b"good".to_vec())), "{said:?}");
    // What waits now is none of the next case's.
    drop((client, other));
    match (status, body) {
        (502, Some(_)) => None,
        (200 | 204, Some(body)) => Some(String::from_utf8(body).unwrap()),
        (200, None) => Some("cut off".to_owned()),
        other => panic!("{said:?}: {other:?}"),
    }
}

#[tokio::test]
async fn shapes_that_are_read_in_two_ways_reach_nobody_else() {
    let evil = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    for (shape, seen) in [
        // Two lengths.
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_owned(),
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 7\r\n\r\nabc".to_owned(),
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 3, 7\r\n\r\nabc".to_owned(),
            None,
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc".to_owned(), None),
        ("HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc".to_owned(), None),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nabc".to_owned(),
            None,
        ),
        // More than it says, and less.
        (
            format!("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc{evil}"),
            Some("abc"),
        ),
        (format!("HTTP/1.1 204 No Content\r\n\r\n{evil}"), Some("")),
        (
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{evil}"),
            Some("abc"),
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".to_owned(),
            Some("cut off"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc".to_owned(),
            Some("cut off"),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n".to_owned(),
            Some("cut off"),
        ),
        // Lines that some servers read as two, and some as one.
        (
            "HTTP/1.1 200 OK\r\nx-a: b\r\n content-length: 4\r\n\r\nevil".to_owned(),
            None,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length : 4\r\n\r\nevil".to_owned(),
            None,
        ),
        ("HTTP/1.1 200 OK\r\nx\0y: z\r\n\r\n".to_owned(), None),
        // Not HTTP/1, or no answer.
        ("HTTP/2.0 200 OK\r\n\r\n".to_owned(), None),
        ("HTTP/1.1 99 No\r\n\r\n".to_owned(), None),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nevil".to_owned(), None),
        (evil.replacen("HTTP/1.1", "HTTP/9", 1), None),
    ] {
        let (server, host, mut program) = public().await;
        let got = said(&server, &host, &mut program, &shape).await;
        assert_eq!(got.as_deref(), seen, "{shape:?}");
    }
}

/// Ends of lines without CR are taken as ends, as RFC 9112 §2.2 allows, and written anew.
#[tokio::test]
async fn bare_ends_of_lines_are_written_anew() {
    let (server, host, mut program) = public().await;
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client
            .say("HTTP/1.1 200 OK\nx-a: b\ncontent-length: 4\n\nbody")
            .await;
        client
    };
    let mut io = server
        .raw(&format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        ))
        .await;
    let _client: Client = answering.await;
    let mut raw = String::new();
    io.read_to_string(&mut raw).await.unwrap();
    assert!(raw.starts_with("HTTP/1.1 200 OK\r\nx-a: b\r\n"), "{raw:?}");
    assert!(raw.ends_with("\r\n\r\nbody"), "{raw:?}");
}

/// Bytes that nobody asked for end the connection on which they come.
#[tokio::test]
async fn what_comes_unasked_is_an_answer_to_nothing() {
    let (server, host, mut program) = public().await;
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client.say(GOOD).await;
        client
    };
    let (answer, mut client) = tokio::join!(get(&server, &host), answering);
    assert_eq!(answer.1.as_deref(), Some(&b"good"[..]));
    client
        .say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        .await;
    client.ends().await;
    let answering = async {
        let mut client = program.accept().await;
        client.head().await;
        client.say(GOOD).await;
        client
    };
    let (answer, _client) = tokio::join!(get(&server, &host), answering);
    assert_eq!(answer.1.as_deref(), Some(&b"good"[..]));
}

/// A head of 100 MB, or without an end, costs this server little and its visitor an answer.
#[tokio::test]
async fn a_head_without_an_end_is_given_up() {
    let (server, host, mut program) = public().await;
    for line in ["x: ".to_owned() + &"a".repeat(60_000), "x: a".to_owned()] {
        let answering = async {
            let mut client = program.accept().await;
            client.head().await;
            client.say("HTTP/1.1 200 OK\r\n").await;
            let lines = format!("{line}\r\n").repeat(1 + 60_000 / line.len());
            let mut taken = 0;
            while taken < 100 << 20 && client.try_say(&lines).await {
                taken += lines.len();
            }
            taken
        };
        let ((status, _), taken) = tokio::join!(get(&server, &host), answering);
        assert_eq!(status, 502);
        // What the buffers of two kernels and the window of a connection take.
        assert!(taken < 32 << 20, "{taken} bytes were taken");
    }
}

/// Whatever a client does with lengths and lines, the program gets one request, with one length.
#[tokio::test]
async fn shapes_of_requests_that_are_read_in_two_ways_are_not_passed_on() {
    let (server, host, mut program) = public().await;
    let inner = format!("GET /evil HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = inner.len();
    for request in [
        format!(
            "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\nContent-Length: {length}\r\n\r\n{inner}"
        ),
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5, {length}\r\n\r\n{inner}"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nX: a\r\n b: c\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: identity\r\n\r\n{inner}"),
        format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n"),
    ] {
        let mut io = server.raw(&request).await;
        assert_eq!(read_head(&mut io).await.status, 400, "{request}");
    }
    // The one length that counts is passed on, as chunks; what was hidden behind the other is body.
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
         {length:x}\r\n{inner}\r\n0\r\n\r\n"
    );
    let mut io = server.raw(&request).await;
    let mut client = program.accept().await;
    let head = client.head().await;
    assert!(!head.contains("content-length"), "{head}");
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    client
        .expect(&format!("{length:X}\r\n{inner}\r\n0\r\n\r\n"))
        .await;
    client.say(GOOD).await;
    assert_eq!(read_head(&mut io).await.status, 200);
    // And nothing else came.
    client.ends().await;
}
