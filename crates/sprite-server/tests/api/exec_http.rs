//! Behaviour reference §1.4.6, §11.14: exec over plain HTTP.

use crate::setup::Server;

const EXEC: &str = "/v1/sprites/s/exec";

/// Each chunk is one frame; the last is the exit.
#[tokio::test]
async fn every_chunk_is_a_frame() {
    let server = Server::with_sprite().await;
    let answer = server
        .post(&format!("{EXEC}?cmd=echo&cmd=hello&path=echo"), "")
        .await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        answer.head.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(answer.chunks, [b"\x01hello\n".to_vec(), vec![3, 0]]);
    assert!(answer.complete);
    let failed = server.post(&format!("{EXEC}?cmd=exit&cmd=42"), "").await;
    assert_eq!(failed.chunks, [vec![3, 42]]);
    let stderr = server
        .post(&format!("{EXEC}?cmd=echo-err&cmd=oops"), "")
        .await;
    assert_eq!(stderr.chunks[0], b"\x02oops\n");
}

/// §11.14: at most 16 KiB a chunk, and not a byte lost.
#[tokio::test]
async fn chunks_are_small_and_complete() {
    let server = Server::with_sprite().await;
    let bytes = 3_000_000;
    let answer = server
        .post(&format!("{EXEC}?cmd=yes&cmd={bytes}"), "")
        .await;
    assert!(
        answer
            .chunks
            .iter()
            .all(|chunk| (2..=16 << 10).contains(&chunk.len()))
    );
    let output: usize = answer
        .chunks
        .iter()
        .filter(|chunk| chunk[0] == 1)
        .map(|chunk| chunk.len() - 1)
        .sum();
    assert_eq!(output, bytes);
    assert_eq!(answer.chunks.last(), Some(&vec![3, 0]));
}

/// The body is stdin, whatever its type; without `stdin=true` there is none.
#[tokio::test]
async fn the_body_is_stdin() {
    let server = Server::with_sprite().await;
    for kind in [
        "application/octet-stream",
        "text/plain",
        "application/x-www-form-urlencoded",
    ] {
        let request = server.request("POST", &format!("{EXEC}?cmd=cat&stdin=true"));
        let answer = request
            .header("Content-Type", kind)
            .body("print(2+2)\n")
            .send()
            .await;
        assert_eq!(
            answer.chunks,
            [b"\x01print(2+2)\n".to_vec(), vec![3, 0]],
            "{kind}"
        );
    }
    let big = vec![b'x'; 5_000_000];
    let answer = server
        .request("POST", &format!("{EXEC}?cmd=cat&stdin=true"))
        .body(big)
        .send()
        .await;
    let output: usize = answer
        .chunks
        .iter()
        .filter(|chunk| chunk[0] == 1)
        .map(|chunk| chunk.len() - 1)
        .sum();
    assert_eq!(output, 5_000_000);
    let none = server.post(&format!("{EXEC}?cmd=cat"), "ignored").await;
    assert_eq!(none.chunks, [vec![3, 0]]);
}

/// §1.3: the body of the hosted service's home page names the command, where nothing else does.
#[tokio::test]
async fn a_json_body_may_name_the_command() {
    let server = Server::with_sprite().await;
    let list = server
        .post(EXEC, r#"{"command":["echo","hi there"]}"#)
        .await;
    assert_eq!(list.chunks[0], b"\x01hi there\n");
    let stdin = server
        .post(
            &format!("{EXEC}?cmd=cat&stdin=true"),
            r#"{"command":"echo no"}"#,
        )
        .await;
    assert_eq!(stdin.chunks[0], b"\x01{\"command\":\"echo no\"}");
    for body in [
        "",
        "{}",
        "echo hi",
        r#"{"command":[]}"#,
        r#"{"command":["a\u0000"]}"#,
    ] {
        assert_eq!(server.post(EXEC, body).await.status(), 400, "{body}");
    }
}

#[tokio::test]
async fn what_needs_a_socket_is_refused() {
    let server = Server::with_sprite().await;
    for query in ["cmd=bash&tty=true", "id=1", "cmd=a&env=x"] {
        let answer = server.post(&format!("{EXEC}?{query}"), "").await;
        assert_eq!(answer.status(), 400, "{query}");
        answer.error();
    }
    assert_eq!(
        server
            .post("/v1/sprites/none/exec?cmd=true", "")
            .await
            .status(),
        404
    );
}

/// §12 (exit truth): an answer that is broken off has neither exit nor end.
#[tokio::test]
async fn a_lost_machine_breaks_the_answer_off() {
    let server = Server::with_sprite().await;
    let coming = server
        .request("POST", &format!("{EXEC}?cmd=sleep&cmd=1000"))
        .begin()
        .await;
    assert_eq!(coming.head.status, 200);
    server
        .test
        .driver
        .machines()
        .remove(0)
        .end("killed by the test");
    let answer = coming.whole().await;
    assert!(!answer.complete);
    assert!(answer.chunks.iter().all(|chunk| chunk[0] != 3));
}
