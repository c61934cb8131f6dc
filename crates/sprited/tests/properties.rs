//! The ten properties that an orchestrator of agents tests a platform for (behaviour reference §12), each tried on a
//! real server and a real machine, and the lessons of other servers that concern commands and sessions (§11).
//!
//! | property | here | and |
//! |---|---|---|
//! | exit truth | `every_command_has_one_true_end` | `sprite-server::api::exec::a_lost_machine_is_never_an_exit` |
//! | replay cursor | `a_session_is_read_from_a_cursor` | `sprited::journal::readings_laid_together_are_one` |
//! | detached sessions | `a_session_is_left_found_and_joined` | `sprited::sessions::sessions_outlive_their_clients_and_end_with_the_true_exit` |
//! | absence is definitive | `only_what_is_not_there_is_not_found` | `sprite-server::api::sprites::what_is_not_there_is_404` |
//! | stdin is total | `input_ends_once_and_not_by_itself` | `sprited::sessions::stdin_is_total_and_binary_output_is_whole` |
//! | create by name | `two_creates_of_one_name_make_one_sprite` | `sprite-server::api::sprites::a_name_is_taken_once` |
//! | park, not expire | `what_sleeps_is_not_destroyed` | `sprited::recovery` |
//! | honest listing | `a_list_ends_explicitly_or_fails` | `sprite-server::api::sprites::lists_come_in_pages_that_end_explicitly` |
//! | egress can be denied | `a_rule_for_the_network_is_enforced_or_refused` | |
//! | URL or nothing | not yet: a URL is told, and nothing serves it | |
//!
//! | lesson (§11) | test |
//! |---|---|
//! | 1 exit as `exit_code` and `code`, then one byte | `sprite-api::exec::tests::texts_are_as_documented`, `sprite-server::api::exec::output_then_text_exit_then_binary_exit_and_nothing_more` |
//! | 2 409 on create, 404 on delete | `two_creates_of_one_name_make_one_sprite`, `only_what_is_not_there_is_not_found` |
//! | 3 attach from byte 0 or an offset, `is_owner`, 404 at once | `sprited::journal::*`, `sprite-server::api::sessions::attaching_tells_what_is_kept`, `sprite-server::api::sessions::detached_sessions_are_rejoined` |
//! | 5 a kill in the query or in the body | `sprite-server::api::sessions::kills_tell_what_they_do` |
//! | 6 resize and signal as binary messages over control | `sprite-server::api::control::*`, `conformance/js/control.mjs` |
//! | 7 the close code of a terminal | `sprite-server::api::exec::terminals_end_with_a_text_exit_and_a_close_code` |
//! | 8 slow readers get back-pressure | `sprited::sessions::a_reader_that_stops_holds_the_command_and_loses_nothing`, `sprited::journal::a_client_that_does_not_read_is_not_waited_for_by_the_others` |
//! | 9 the Go SDK's probe of `/control` | `sprite-server::api::control::the_go_sdk_is_turned_away` |
//! | 10 the exit text in both modes | `sprite-server::api::exec::terminals_end_with_a_text_exit_and_a_close_code` |
//! | 13 `~/.local/bin` on PATH, the sprite's variables | `programs_find_what_a_sprite_brings` |
//! | 14 chunks of at most 16 KiB over HTTP | `sprite-server::api::exec_http::every_chunk_is_a_frame` |
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::join_all;
use harness::{Server, eventually, ready, text};
use sprite_client::{Client, Error, ExecError, PostBody, Sprite, Status, Stdio};
use tokio::io::AsyncWriteExt;

fn kill(pid: u64) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn status_of(error: &Error) -> Option<u16> {
    error.refusal().map(|refusal| refusal.status)
}

/// §12, exit truth: on both paths, and a machine that is killed is no exit.
#[tokio::test]
async fn every_command_has_one_true_end() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("truth").await;
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let command = sprite.command("sh").args(["-c", script]);
        assert_eq!(command.status().await.unwrap().code(), code, "{script}");
        let mut post = command.post(PostBody::Empty).await.unwrap();
        let mut ends = Vec::new();
        while let Ok(sprite_client::PostFrame::Exit(status)) = post.next().await {
            ends.push(status.code());
        }
        assert_eq!(ends, [code], "{script} over HTTP");
    }
    let long = sprite.command("sh").args(["-c", "echo begun; sleep 1000"]);
    let mut streamed = long.spawn().await.unwrap();
    let mut posted = long.post(PostBody::Empty).await.unwrap();
    streamed.stdout.as_mut().unwrap().chunk().await.unwrap();
    posted.next().await.unwrap();
    kill(server.agent_pid());
    let streamed = streamed.wait().await;
    assert!(
        matches!(streamed, Err(ExecError::Lost { .. })),
        "{streamed:?}"
    );
    let posted = posted.next().await;
    assert!(posted.is_err(), "{posted:?}");
    server.finish();
}

/// §12, replay cursor.
#[tokio::test]
async fn a_session_is_read_from_a_cursor() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("cursor").await;
    let script = "printf abcdef; printf 123456 >&2; sleep 1000";
    let command = sprite.command("sh").args(["-c", script]).detachable();
    let mut child = command.spawn().await.unwrap();
    let id = child.id().unwrap();
    for (stream, whole) in [
        (child.stdout.take(), "abcdef"),
        (child.stderr.take(), "123456"),
    ] {
        assert_eq!(read(stream.unwrap(), 6).await, whole);
    }
    for at in [0, 1, 3, 6] {
        let attach = sprite.attach(id).stdout_offset(at).stderr_offset(6 - at);
        let mut again = attach.spawn().await.unwrap();
        let info = again.session().unwrap().clone();
        assert_eq!((info.stdout_offset, info.stderr_offset), (at, 6 - at));
        assert_eq!((info.kept.stdout_total, info.kept.stderr_total), (6, 6));
        let from = usize::try_from(at).unwrap();
        let (stdout, stderr) = (again.stdout.take().unwrap(), again.stderr.take().unwrap());
        assert_eq!(read(stdout, 6 - from).await, "abcdef"[from..]);
        assert_eq!(read(stderr, from).await, "123456"[6 - from..]);
    }
    server.finish();
}

async fn read(mut output: sprite_client::ChildOutput, bytes: usize) -> String {
    let mut read = vec![0; bytes];
    tokio::io::AsyncReadExt::read_exact(&mut output, &mut read)
        .await
        .unwrap();
    String::from_utf8(read).unwrap()
}

/// §12, detached sessions.
#[tokio::test]
async fn a_session_is_left_found_and_joined() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("left").await;
    text(&sprite, "mkfifo /tmp/gate").await;
    let script = "echo before; read x < /tmp/gate; echo after; exit 11";
    let child = sprite
        .command("sh")
        .args(["-c", script])
        .detachable()
        .spawn()
        .await
        .unwrap();
    let id = child.id().unwrap();
    // As a client that is killed: the connection breaks.
    drop(child);
    let listed = sprite.sessions().await.unwrap();
    assert!(listed.iter().any(|session| session.id == id));
    let joined = sprite.attach(id).spawn().await.unwrap();
    text(&sprite, "echo go > /tmp/gate").await;
    let ended_under_us = joined.wait_with_output().await.unwrap();
    let ended_before = sprite
        .attach(id)
        .spawn()
        .await
        .unwrap()
        .wait_with_output()
        .await
        .unwrap();
    for output in [ended_under_us, ended_before] {
        assert_eq!(output.stdout, b"before\nafter\n");
        assert_eq!(output.status.code(), 11);
    }
    server.finish();
}

/// §12, absence is definitive: no outage, no wrong token looks like it.
#[tokio::test]
async fn only_what_is_not_there_is_not_found() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let sprite = server.sprite("there").await;
    let client = server.client();
    assert!(
        client
            .sprite("not-there")
            .info()
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        client
            .sprite("not-there")
            .destroy()
            .await
            .unwrap_err()
            .is_not_found()
    );
    match sprite.attach("999999".parse().unwrap()).spawn().await {
        Err(ExecError::Start(error)) => assert!(error.is_not_found(), "{error}"),
        other => panic!("{other:?}"),
    }
    let stranger = Client::new(&server.url(), "test/1/2/no-such-token").unwrap();
    let refused = stranger.sprite("there").info().await.unwrap_err();
    assert_eq!(status_of(&refused), Some(401), "{refused}");
    server.kill();
    let outage = sprite.info().await.unwrap_err();
    assert!(
        !outage.is_not_found() && status_of(&outage).is_none(),
        "{outage}"
    );
    server.restart();
    assert_eq!(sprite.info().await.unwrap().name, "there");
    server.finish();
}

/// §12, stdin is total: its end comes when it is closed and at no other time, and after the exit it is told.
#[tokio::test]
async fn input_ends_once_and_not_by_itself() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("input").await;
    let script = "echo ready; cat; echo end";
    let command = sprite
        .command("sh")
        .args(["-c", script])
        .stdin(Stdio::Piped);
    let mut child = command.spawn().await.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut said = String::new();
    for piece in ["one\n", "two\n"] {
        stdin.write_all(piece.as_bytes()).await.unwrap();
        while !said.contains(piece) {
            said.push_str(&String::from_utf8_lossy(
                &stdout.chunk().await.unwrap().unwrap(),
            ));
        }
        assert!(!said.contains("end"), "the input was not closed: {said:?}");
    }
    stdin.shutdown().await.unwrap();
    while let Some(chunk) = stdout.chunk().await.unwrap() {
        said.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert_eq!(said, "ready\none\ntwo\nend\n");
    assert!(child.wait().await.unwrap().success());
    let mut short = sprite
        .command("true")
        .stdin(Stdio::Piped)
        .spawn()
        .await
        .unwrap();
    let mut stdin = short.stdin.take().unwrap();
    assert!(short.wait().await.unwrap().success());
    let error = eventually(Duration::from_secs(10), async || {
        match stdin.write_all(b"too late").await {
            Err(error) => Ok(error),
            Ok(()) => Err("it was taken".to_owned()),
        }
    })
    .await;
    assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
    server.finish();
}

/// §12, create by name.
#[tokio::test]
async fn two_creates_of_one_name_make_one_sprite() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let client = server.client();
    let made = join_all((0..2).map(|_| client.create("twice").send())).await;
    let (ok, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
    assert_eq!((ok.len(), refused.len()), (1, 1));
    let refused = refused.into_iter().next().unwrap().unwrap_err();
    let refusal = refused.refusal().unwrap();
    assert_eq!((refusal.status, refusal.code.as_str()), (409, "name_taken"));
    assert_eq!(client.sprites().all().await.unwrap().len(), 1);
    assert_eq!(text(&client.sprite("twice"), "echo works").await, "works");
    server.finish();
}

async fn until_asleep(sprite: &Sprite) {
    eventually(Duration::from_secs(60), async || {
        match sprite.info().await.unwrap().status {
            Status::Running => Err("it runs".to_owned()),
            Status::Warm | Status::Cold | Status::Other(_) => Ok(()),
        }
    })
    .await;
}

/// §12, park, not expire: sleep ends a machine, never a sprite, and nothing else is done by time.
#[tokio::test]
async fn what_sleeps_is_not_destroyed() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&["--idle-timeout", "1s"]);
    let sprite = server.sprite("parked").await;
    text(&sprite, "echo kept > file; sync").await;
    until_asleep(&sprite).await;
    server.stop();
    server.restart();
    assert_eq!(text(&sprite, "cat file").await, "kept");
    until_asleep(&sprite).await;
    assert_eq!(text(&sprite, "cat file").await, "kept");
    server.finish();
}

/// §12, honest listing.
#[tokio::test]
async fn a_list_ends_explicitly_or_fails() {
    if !ready() {
        return;
    }
    let mut server = Server::start(&[]);
    let client = server.client();
    for name in ["a", "b", "c"] {
        client.create(name).send().await.unwrap();
    }
    let mut pages = client.sprites().page_size(2).pages();
    assert_eq!(pages.next().await.unwrap().unwrap().sprites.len(), 2);
    assert_eq!(pages.next().await.unwrap().unwrap().sprites.len(), 1);
    assert!(pages.next().await.unwrap().is_none());
    let mut cut = client.sprites().page_size(2).pages();
    assert_eq!(cut.next().await.unwrap().unwrap().sprites.len(), 2);
    let mut watched = client.sprites().watch().await.unwrap();
    server.kill();
    assert!(
        cut.next().await.is_err(),
        "a list that was cut off looks whole"
    );
    let told = async { while watched.next().await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), told)
        .await
        .unwrap();
    server.restart();
    server.finish();
}

/// §12, egress can be denied: what is accepted is enforced, and what is not enforced is refused.
#[tokio::test]
async fn a_rule_for_the_network_is_enforced_or_refused() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let sprite = server.sprite("closed").await;
    let rules = r#"{"rules":[{"domain":"*","action":"deny"}]}"#;
    let path = format!("/v1/sprites/{}/policy/network", sprite.name());
    let call = server
        .client()
        .raw("POST", path)
        .header("content-type", "application/json");
    let answer = call.body(rules).send().await.unwrap();
    match answer.status() {
        501 => {}
        204 => {
            let reached = "timeout 5 bash -c 'echo > /dev/tcp/1.1.1.1/443' 2>/dev/null && echo out || echo closed";
            assert_eq!(text(&sprite, reached).await, "closed");
            let named =
                "timeout 5 getent hosts deb.debian.org > /dev/null && echo out || echo closed";
            assert_eq!(text(&sprite, named).await, "closed");
        }
        other => panic!("neither accepted nor refused: {other}"),
    }
    server.finish();
}

/// §11.13: what a sprite's user installs is found, and its variables are there.
#[tokio::test]
async fn programs_find_what_a_sprite_brings() {
    if !ready() {
        return;
    }
    let server = Server::start(&[]);
    let client = server.client();
    client
        .create("brings")
        .env("OWN", "value")
        .send()
        .await
        .unwrap();
    let sprite = client.sprite("brings");
    text(&sprite, "mkdir -p ~/.local/bin; printf '#!/bin/sh\\necho own $OWN' > ~/.local/bin/own; chmod +x ~/.local/bin/own").await;
    let output = sprite.command("own").output().await.unwrap();
    assert_eq!(output.stdout, b"own value\n");
    server.finish();
}
