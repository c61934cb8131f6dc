//! Calls over plain HTTP: what is sent, and how answers are understood.

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fake::Fake;
use sprite_client::{Client, Error, Killed, SessionId, Signal, Status};

const TOKEN: &str = "org/orgid/tokid/secret";

fn client(fake: &Fake) -> Client {
    Client::new(&fake.url(), TOKEN).expect("a usable address")
}

#[tokio::test]
async fn a_sprite_is_made_read_changed_and_destroyed() {
    let fake = Fake::start(|seen, conn| async move {
        match seen.method.as_str() {
            "POST" => {
                conn.reply(201, r#"{"name":"a","id":"sprite-1","status":"cold"}"#)
                    .await
            }
            "DELETE" => conn.reply(204, "").await,
            _ => {
                conn.reply(200, r#"{"name":"a","status":"running","labels":["x"]}"#)
                    .await
            }
        }
    })
    .await;
    let client = client(&fake);
    let made = client
        .create("a")
        .label("x")
        .env("K", "V")
        .cpus(2)
        .send()
        .await
        .expect("made");
    assert_eq!((made.name.as_str(), made.status), ("a", Status::Cold));
    let sprite = client.sprite("a");
    assert_eq!(sprite.info().await.expect("there").status, Status::Running);
    sprite
        .update()
        .labels(Vec::<String>::new())
        .send()
        .await
        .expect("changed");
    sprite.destroy().await.expect("destroyed");

    let seen = fake.seen();
    let lines: Vec<_> = seen
        .iter()
        .map(|seen| (seen.method.as_str(), seen.target.as_str()))
        .collect();
    let path = "/v1/sprites/a";
    assert_eq!(
        lines,
        [
            ("POST", "/v1/sprites"),
            ("GET", path),
            ("PUT", path),
            ("DELETE", path)
        ]
    );
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization") == Some("Bearer org/orgid/tokid/secret"))
    );
    let body =
        serde_json::json!({"name":"a","labels":["x"],"config":{"cpus":2},"environment":{"K":"V"}});
    assert_eq!(seen[0].json(), body);
    assert_eq!(seen[2].json(), serde_json::json!({"clear_labels": true}));
}

#[tokio::test]
async fn connections_are_used_again() {
    let fake = Fake::start(move |_, conn| {
        let peer = conn.stream.peer_addr().expect("connected").port();
        let answer = format!(r#"{{"name":"{peer}"}}"#);
        async move { conn.reply(200, &answer).await }
    })
    .await;
    let client = client(&fake);
    let first = client.sprite("a").info().await.expect("there").name;
    assert_eq!(client.sprite("a").info().await.expect("there").name, first);
}

#[tokio::test]
async fn refusals_are_told_apart_from_outages() {
    let fake = Fake::start(|seen, conn| async move {
        match seen.path() {
            "/v1/sprites/missing" => {
                conn.reply(
                    404,
                    r#"{"error":"not_found","message":"there is no sprite missing"}"#,
                )
                .await
            }
            "/v1/sprites/broken" => conn.reply(200, "{").await,
            // The connection is dropped without an answer.
            _ => None,
        }
    })
    .await;
    let client = client(&fake);
    let missing = client.sprite("missing").info().await.expect_err("refused");
    assert!(missing.is_not_found());
    assert_eq!(
        missing.to_string(),
        "there is no sprite missing (GET /v1/sprites/missing: 404 not_found)"
    );
    let broken = client.sprite("broken").info().await.expect_err("not JSON");
    assert!(matches!(broken, Error::Malformed { .. }), "{broken:?}");
    let dropped = client
        .sprite("dropped")
        .info()
        .await
        .expect_err("no answer");
    assert!(matches!(dropped, Error::Exchange { .. }), "{dropped:?}");
    drop(fake);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_connect_error() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("bound").port()
    };
    let client = Client::new(&format!("http://127.0.0.1:{port}"), TOKEN).expect("a usable address");
    let error = client.sprite("a").info().await.expect_err("nobody listens");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let other =
        Fake::start(|_, conn| async move { conn.reply(200, r#"{"name":"a"}"#).await }).await;
    let elsewhere = other.url();
    let fake = Fake::start(move |_, mut conn| {
        let head = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {elsewhere}/v1/sprites/a\r\nContent-Length: 0\r\n\r\n"
        );
        async move {
            conn.raw(head.as_bytes()).await;
            Some(conn)
        }
    })
    .await;
    let error = client(&fake)
        .sprite("a")
        .info()
        .await
        .expect_err("a redirect is no answer");
    assert_eq!(error.refusal().expect("a refusal").status, 307);
    assert!(other.seen().is_empty(), "the token went to another server");
}

/// Behaviour reference §1.2: a server may ask for patience while a sprite starts.
#[tokio::test]
async fn a_sprite_that_starts_is_waited_for() {
    let tries = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&tries);
    let fake = Fake::start(move |_, conn| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                conn.reply(
                    503,
                    r#"{"error":"sprite_starting","retry_after_seconds":0}"#,
                )
                .await
            } else {
                conn.reply(200, r#"{"sessions":[]}"#).await
            }
        }
    })
    .await;
    assert!(
        client(&fake)
            .sprite("a")
            .sessions()
            .await
            .expect("in the end")
            .is_empty()
    );
    assert_eq!(tries.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn another_503_is_told_at_once() {
    let fake =
        Fake::start(|_, conn| async move { conn.reply(503, r#"{"error":"draining"}"#).await })
            .await;
    let error = client(&fake).sprite("a").info().await.expect_err("refused");
    assert_eq!(error.refusal().expect("a refusal").code, "draining");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn a_list_is_read_to_its_last_page() {
    let fake = Fake::start(|seen, conn| async move {
        match seen.query("continuation_token").first().map(String::as_str) {
            None => {
                let page =
                    r#"{"sprites":[{"name":"a"}],"has_more":true,"next_continuation_token":"x=&"}"#;
                conn.reply(200, page).await
            }
            Some("x=&") => {
                conn.reply(200, r#"{"sprites":[{"name":"b"}],"has_more":false}"#)
                    .await
            }
            Some(_) => conn.reply(400, "").await,
        }
    })
    .await;
    let all = client(&fake)
        .sprites()
        .prefix("p")
        .page_size(1)
        .all()
        .await
        .expect("two pages");
    assert_eq!(
        all.iter()
            .map(|sprite| sprite.name.as_str())
            .collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert!(fake.seen().iter().all(|seen| seen.query("prefix") == ["p"]));
}

/// Behaviour reference §12, honest listing.
#[tokio::test]
async fn a_list_that_was_cut_off_is_an_error() {
    for second in [
        "",
        r#"{"sprites":[],"has_more":true,"next_continuation_token":"x"}"#,
    ] {
        let fake = Fake::start(move |seen, conn| async move {
            if seen.query("continuation_token").is_empty() {
                let page =
                    r#"{"sprites":[{"name":"a"}],"has_more":true,"next_continuation_token":"x"}"#;
                return conn.reply(200, page).await;
            }
            conn.reply(if second.is_empty() { 500 } else { 200 }, second)
                .await
        })
        .await;
        client(&fake)
            .sprites()
            .all()
            .await
            .expect_err("half a list");
    }
    let no_way_on = Fake::start(|_, conn| async move {
        conn.reply(
            200,
            r#"{"sprites":[],"has_more":true,"next_continuation_token":null}"#,
        )
        .await
    })
    .await;
    client(&no_way_on)
        .sprites()
        .all()
        .await
        .expect_err("no way on");
}

#[tokio::test]
async fn a_watch_gives_changes_and_its_end_is_an_error() {
    let fake = Fake::start(|seen, mut conn| async move {
        assert_eq!(seen.header("accept"), Some("application/x-ndjson"));
        conn.chunked().await;
        conn.chunk(b"{\"name\":\"a\",\"status\":\"warm\"}\n{\"type\":\"heart")
            .await;
        conn.chunk(b"beat\"}\n\n{\"name\":\"b\",\"status\":\"cold\"}\n")
            .await;
        conn.raw(b"0\r\n\r\n").await;
        Some(conn)
    })
    .await;
    let mut watch = client(&fake).sprites().watch().await.expect("begun");
    assert_eq!(watch.next().await.expect("a change").name, "a");
    assert_eq!(watch.next().await.expect("a change").status, Status::Cold);
    let end = watch.next().await.expect_err("a watch has no end");
    assert!(matches!(end, Error::Interrupted { .. }), "{end:?}");
}

/// Behaviour reference §1.4.5.
#[tokio::test]
async fn sessions_are_listed_and_killed() {
    let fake = Fake::start(|seen, mut conn| async move {
        match (seen.method.as_str(), seen.path()) {
            ("GET", _) => {
                let list =
                    r#"{"count":1,"sessions":[{"id":"20","command":"/bin/cat","tty":true}]}"#;
                conn.reply(200, list).await
            }
            ("POST", "/v1/sprites/a/exec/20/kill") => {
                conn.chunked().await;
                conn.chunk(
                    b"{\"type\":\"signal\",\"message\":\"m\",\"signal\":\"SIGTERM\",\"pid\":1}\n",
                )
                .await;
                conn.chunk(b"{\"type\":\"exited\"}\n{\"type\":\"complete\",\"exit_code\":143}\n")
                    .await;
                conn.raw(b"0\r\n\r\n").await;
                Some(conn)
            }
            ("POST", "/v1/sprites/a/exec/21/kill") => conn.reply(410, "").await,
            ("POST", "/v1/sprites/a/exec/22/kill") => {
                conn.chunked().await;
                conn.raw(b"0\r\n\r\n").await;
                Some(conn)
            }
            _ => conn.reply(404, "session not found").await,
        }
    })
    .await;
    let sprite = client(&fake).sprite("a");
    let sessions = sprite.sessions().await.expect("a list");
    assert_eq!((sessions[0].id, sessions[0].tty), (SessionId(20), true));

    let patience = std::time::Duration::from_secs(1);
    let kill = |id| {
        let sprite = sprite.clone();
        async move { sprite.kill(SessionId(id), &Signal::term(), patience).await }
    };
    match kill(20).await.expect("killed") {
        Killed::Ended(Some(status)) => {
            assert_eq!((status.code(), status.signal()), (143, Some(15)))
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fake.seen()[1].query("signal"), ["TERM"]);
    assert_eq!(fake.seen()[1].query("timeout"), ["1s"]);
    assert_eq!(kill(21).await.expect("gone before"), Killed::AlreadyEnded);
    kill(22).await.expect_err("the stream did not tell the end");
    assert!(kill(23).await.expect_err("unknown").is_not_found());
}

#[tokio::test]
async fn names_cannot_lead_to_other_paths() {
    let fake = Fake::start(|_, conn| async move { conn.reply(404, "").await }).await;
    let client = client(&fake);
    for name in ["", ".", ".."] {
        let error = client.sprite(name).destroy().await.expect_err("no name");
        assert!(matches!(error, Error::Unwritable { .. }), "{error:?}");
    }
    client
        .sprite("a/../b?c#d")
        .destroy()
        .await
        .expect_err("not found");
    let targets: Vec<_> = fake.seen().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/v1/sprites/a%2F..%2Fb%3Fc%23d"]);
}

#[tokio::test]
async fn a_raw_call_returns_whatever_comes() {
    let fake = Fake::start(|_, conn| async move { conn.reply(418, "short and stout").await }).await;
    let client = client(&fake);
    let call = client
        .raw("PATCH", "/v1/pot?x=1")
        .header("X-Tea", "green")
        .body("hot");
    let mut answer = call.send().await.expect("an answer");
    assert_eq!(answer.status(), 418);
    assert_eq!(
        answer.chunk().await.expect("a body").expect("text"),
        "short and stout"
    );
    let seen = &fake.seen()[0];
    assert_eq!(
        (seen.target.as_str(), seen.header("x-tea")),
        ("/v1/pot?x=1", Some("green"))
    );
    assert_eq!(seen.body, b"hot");

    for path in ["http://elsewhere/x", "@elsewhere/x", "v1"] {
        client
            .raw("GET", path)
            .send()
            .await
            .expect_err("not a path");
    }
    let forged = client.raw("GET", "/").header("Authorization", "x");
    forged
        .send()
        .await
        .expect_err("the token is set by the client");
}

#[test]
fn tokens_that_no_header_can_carry_are_refused() {
    for token in ["", " ", "a b", "a\nb", "tök"] {
        assert!(Client::new("http://h", token).is_err(), "{token:?}");
    }
    assert!(
        Client::new("http://h", "token\n").is_ok(),
        "the line break of a file is no part of a token"
    );
    let shown = format!("{:?}", Client::new("http://h", "secret").expect("usable"));
    assert!(!shown.contains("secret"), "{shown}");
}
