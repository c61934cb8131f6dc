//! Behaviour reference §1.4.2, §1.4.5, §11, §12: sessions that outlive their clients.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use sprite_testkit::eventually;

use crate::setup::socket::Event;
use crate::setup::{SOON, Server};

const EXEC: &str = "/v1/sprites/s/exec";

async fn sessions(server: &Server) -> Vec<Value> {
    let list = server.get(EXEC).await.json();
    let sessions = list["sessions"].as_array().unwrap().clone();
    assert_eq!(list["count"], sessions.len());
    sessions
}

async fn until_no_session(server: &Server) {
    eventually(SOON, async || match sessions(server).await {
        none if none.is_empty() => ControlFlow::Break(()),
        some => ControlFlow::Continue(some),
    })
    .await;
}

/// §1.4.5, §8: a wrapper with `count`, ids as texts; exited sessions are not listed.
#[tokio::test]
async fn running_sessions_are_listed() {
    let server = Server::with_sprite().await;
    let mut ws = server
        .ws(&format!("{EXEC}?cmd=cat&stdin=true&dir=/tmp"))
        .await;
    let id = ws.session().await;
    let list = sessions(&server).await;
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["id"], json!(id));
    assert_eq!(
        (&list[0]["tty"], &list[0]["is_active"]),
        (&json!(false), &json!(true))
    );
    for key in ["created", "last_activity"] {
        assert!(list[0][key].as_str().unwrap().ends_with('Z'), "{key}");
    }
    assert!(list[0]["bytes_per_second"].is_number() && list[0]["command"].is_string());
    ws.eof().await;
    ws.until_exit().await;
    until_no_session(&server).await;
    let head = server.request("HEAD", EXEC).send().await;
    assert_eq!((head.status(), head.body().len()), (200, 0));
}

/// §1.4.2, §12 (detached sessions): the client vanishes, the session lives, and is rejoined by either path.
#[tokio::test]
async fn detached_sessions_are_rejoined() {
    let server = Server::with_sprite().await;
    let mut ws = server
        .ws(&format!(
            "{EXEC}?cmd=cat&stdin=true&max_run_after_disconnect=0s"
        ))
        .await;
    let id = ws.session().await;
    ws.stdin("before\n").await;
    assert_eq!(ws.next().await, Event::Stdout("before\n".to_owned()));
    ws.vanish();
    for path in [format!("{EXEC}/{id}"), format!("{EXEC}?id={id}")] {
        let mut again = server.ws(&path).await;
        assert_eq!(again.session().await, id);
        assert_eq!(again.next().await, Event::Stdout("before\n".to_owned()));
        again.vanish();
    }
    let mut last = server.ws(&format!("{EXEC}/{id}?stdout_offset=3")).await;
    let Event::Info(info) = last.next().await else {
        panic!("session_info is first")
    };
    assert_eq!(info["stdout_offset"], 3);
    assert_eq!(last.next().await, Event::Stdout("ore\n".to_owned()));
    last.eof().await;
    assert_eq!(last.until_exit().await.last(), Some(&Event::Exit(0)));
    // Issue: attach within ten minutes of the end replays and ends with the true exit.
    let mut ended = server.ws(&format!("{EXEC}/{id}")).await;
    let seen = ended.until_exit().await;
    assert_eq!(
        &seen[1..],
        [
            Event::Stdout("before\n".to_owned()),
            Event::TextExit(0),
            Event::Exit(0)
        ]
    );
}

/// §1.4.2: `session_info` tells on attach that it is a terminal, before any of its bytes.
#[tokio::test]
async fn attaching_to_a_terminal_says_that_it_is_one() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=cat&tty=true")).await;
    let id = ws.session().await;
    ws.send_binary("typed\n").await;
    assert!(matches!(ws.next().await, Event::Terminal(_)));
    ws.vanish();
    let mut again = server.ws(&format!("{EXEC}/{id}")).await.terminal();
    let Event::Info(info) = again.next().await else {
        panic!("session_info is first")
    };
    assert_eq!(
        (&info["tty"], &info["is_owner"]),
        (&json!(true), &json!(true))
    );
    assert!(matches!(again.next().await, Event::Terminal(text) if text.contains("typed")));
}

/// §1.4.1: without a terminal a command runs on for ten seconds, or as asked.
#[tokio::test]
async fn a_command_ends_some_time_after_its_client() {
    let server = Server::with_sprite().await;
    let path = format!("{EXEC}?cmd=sleep&cmd=1000&max_run_after_disconnect=50ms");
    let mut ws = server.ws(&path).await;
    ws.session().await;
    ws.vanish();
    until_no_session(&server).await;
}

/// §4.1: metadata never wakes; sessions end with their machine, so asking for them does not wake one either.
#[tokio::test]
async fn asking_about_a_sprite_at_rest_does_not_wake_it() {
    let server = Server::with_sprite().await;
    server
        .ws(&format!("{EXEC}?cmd=true"))
        .await
        .until_exit()
        .await;
    server
        .test
        .driver
        .machines()
        .remove(0)
        .end("ended by the test");
    let status = async || server.get("/v1/sprites/s").await.json()["status"].clone();
    eventually(SOON, async || match status().await {
        cold if cold == "cold" => ControlFlow::Break(()),
        other => ControlFlow::Continue(other),
    })
    .await;
    let started = server.test.driver.started();
    assert!(sessions(&server).await.is_empty());
    assert_eq!(server.request("HEAD", EXEC).send().await.status(), 200);
    let attach = server
        .try_ws(&format!("{EXEC}/1"))
        .await
        .err()
        .map(|head| head.status);
    assert_eq!(attach, Some(404));
    assert_eq!(
        server.post(&format!("{EXEC}/1/kill"), "").await.status(),
        404
    );
    assert_eq!(
        server.get("/v1/sprites/s/check").await.json()["status"],
        "hibernated"
    );
    server.get("/v1/sprites").await;
    assert_eq!(
        (status().await, server.test.driver.started()),
        ("cold".into(), started)
    );
    let mut ws = server.ws(&format!("{EXEC}?cmd=true")).await;
    assert_eq!(
        ws.until_exit().await.last(),
        Some(&Event::Exit(0)),
        "the request is held while it wakes"
    );
    assert_eq!(server.test.driver.started(), started + 1);
}

/// §1.4.5, §11.5: the lines of a kill; 410 within ten minutes of the end; 404 for what never was.
#[tokio::test]
async fn kills_tell_what_they_do() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=sleep&cmd=1000")).await;
    let id = ws.session().await;
    let answer = server
        .post(
            &format!("{EXEC}/{id}/kill"),
            r#"{"signal":"SIGTERM","timeout":5}"#,
        )
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.head.header("content-type"),
        Some("application/x-ndjson")
    );
    let lines = answer.lines();
    let kinds: Vec<&str> = lines
        .iter()
        .map(|line| line["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["signal", "exited", "complete"]);
    assert_eq!(lines[0]["signal"], "SIGTERM");
    assert!(lines[0]["pid"].is_u64() && lines[0]["message"].is_string());
    assert_eq!(lines[2]["exit_code"], 143);
    assert_eq!(ws.until_exit().await.last(), Some(&Event::Exit(143)));
    let again = server
        .post(&format!("{EXEC}/{id}/kill?signal=KILL"), "")
        .await;
    assert_eq!((again.status(), again.error().as_str()), (410, "gone"));
    for unknown in ["424242", "x", "-1"] {
        let answer = server.post(&format!("{EXEC}/{unknown}/kill"), "").await;
        assert_eq!(
            (answer.status(), answer.error().as_str()),
            (404, "not_found"),
            "{unknown}"
        );
    }
    let wrong = server
        .post(&format!("{EXEC}/{id}/kill?signal=NOPE"), "")
        .await;
    assert_eq!(wrong.status(), 400);
}

/// §11.3, §12 (replay cursor): what is kept is told with the first message and in the listing, each stream apart.
#[tokio::test]
async fn attaching_tells_what_is_kept() {
    let server = Server::with_sprite().await;
    let mut ws = server.ws(&format!("{EXEC}?cmd=cat&stdin=true")).await;
    let id = ws.session().await;
    ws.stdin("0123456789").await;
    assert_eq!(ws.next().await, Event::Stdout("0123456789".to_owned()));
    let entry = sessions(&server).await.remove(0);
    assert_eq!(
        (&entry["stdout_kept_from"], &entry["stdout_total"]),
        (&json!(0), &json!(10))
    );
    assert_eq!(entry["stderr_total"], 0);
    for (query, offset, rest) in [
        ("", 0, "0123456789"),
        ("?output_offset=4", 4, "456789"),
        ("?stdout_offset=9&stderr_offset=0", 9, "9"),
    ] {
        let mut again = server.ws(&format!("{EXEC}/{id}{query}")).await;
        let Event::Info(info) = again.next().await else {
            panic!("session_info is first")
        };
        assert_eq!(info["stdout_offset"], offset, "{query}");
        assert_eq!(
            (&info["stdout_kept_from"], &info["stdout_total"]),
            (&json!(0), &json!(10))
        );
        assert_eq!(again.next().await, Event::Stdout(rest.to_owned()));
        again.vanish();
    }
    let wrong = server.try_ws(&format!("{EXEC}/{id}?output_offset=x")).await;
    assert_eq!(wrong.err().map(|head| head.status), Some(400));
    ws.eof().await;
    ws.until_exit().await;
}

/// §1.4.2: who joins with a terminal of another size gives it to the session's.
#[tokio::test]
async fn a_terminal_gets_the_size_of_who_joins() {
    let server = Server::with_sprite().await;
    let path = format!("{EXEC}?cmd=cat&tty=true&rows=24&cols=80");
    let mut ws = server.ws(&path).await;
    let id = ws.session().await;
    ws.vanish();
    for (query, size) in [
        ("", (24, 80)),
        ("?rows=50&cols=132", (50, 132)),
        ("?rows=0&cols=0", (50, 132)),
    ] {
        let mut again = server.ws(&format!("{EXEC}/{id}{query}")).await.terminal();
        let Event::Info(info) = again.next().await else {
            panic!("session_info is first")
        };
        assert_eq!(
            (&info["rows"], &info["cols"]),
            (&json!(size.0), &json!(size.1)),
            "{query}"
        );
        again.vanish();
    }
}
