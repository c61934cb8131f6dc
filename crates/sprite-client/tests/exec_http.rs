//! Commands over one HTTP request.

mod fake;

use fake::Fake;
use sprite_client::{Client, ExecError, PostBody, PostFrame};

/// Behaviour reference §1.4.6: one chunk is one frame, wherever the network cuts.
#[tokio::test]
async fn http_exec_keeps_frames_apart_however_they_arrive() {
    let fake = Fake::start(|seen, mut conn| async move {
        assert_eq!(seen.query("stdin"), ["true"]);
        conn.stream.set_nodelay(true).expect("a TCP stream");
        conn.chunked().await;
        let mut answer = Vec::new();
        for frame in [&[1][..], &seen.body]
            .concat()
            .chunks(16 << 10)
            .collect::<Vec<_>>()
        {
            // Every piece begins with the byte of a stream id, as any byte of output may.
            let frame = [&[1], frame].concat();
            answer.extend_from_slice(format!("{:x}\r\n", frame.len()).as_bytes());
            answer.extend_from_slice(&frame);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"2\r\n\x02e\r\n2\r\n\x03\x09\r\n0\r\n\r\n");
        for piece in answer.chunks(1_237) {
            conn.raw(piece).await;
        }
        None
    })
    .await;
    let sprite = Client::new(&fake.url(), "t")
        .expect("a usable address")
        .sprite("a");
    let input: Vec<u8> = (0..100_000_u32).map(|n| (n % 4) as u8).collect();
    let reader: Box<dyn tokio::io::AsyncRead + Send + Unpin> =
        Box::new(std::io::Cursor::new(input.clone()));
    let mut exec = sprite
        .command("cat")
        .post(PostBody::Reader(reader))
        .await
        .expect("begun");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let status = loop {
        match exec.next().await.expect("whole") {
            PostFrame::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            PostFrame::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            PostFrame::Exit(status) => break status,
        }
    };
    assert!(stdout[1..] == input[..], "{} bytes came back", stdout.len());
    assert_eq!((stderr.as_slice(), status.code()), (&b"e"[..], 9));
    assert!(matches!(exec.next().await, Err(ExecError::Ended)));
}

#[tokio::test]
async fn http_exec_without_an_exit_is_lost_and_refusals_are_read() {
    let fake = Fake::start(|seen, mut conn| async move {
        match seen.path() {
            "/v1/sprites/gone/exec" => conn.reply(404, r#"{"error":"not_found"}"#).await,
            "/v1/sprites/joined/exec" => conn.reply(200, "\u{1}x\u{3}\u{0}").await,
            "/v1/sprites/ended/exec" => {
                conn.chunked().await;
                conn.chunk(b"\x01part").await;
                conn.raw(b"0\r\n\r\n").await;
                None
            }
            _ => {
                conn.chunked().await;
                conn.raw(b"5\r\n\x01pa").await;
                None
            }
        }
    })
    .await;
    let client = Client::new(&fake.url(), "t").expect("a usable address");
    let post = |name: &str| {
        let command = client.sprite(name).command("x");
        async move { command.post(PostBody::Bytes("in".into())).await }
    };
    let gone = post("gone").await.expect_err("refused");
    assert!(
        matches!(&gone, ExecError::Start(start) if start.is_not_found()),
        "{gone:?}"
    );
    post("joined")
        .await
        .expect_err("the frames cannot be told apart");
    let mut ended = post("ended").await.expect("begun");
    assert_eq!(
        ended.next().await.expect("a frame"),
        PostFrame::Stdout("part".into())
    );
    assert!(matches!(ended.next().await, Err(ExecError::Lost { .. })));
    let mut cut = post("cut").await.expect("begun");
    assert!(matches!(cut.next().await, Err(ExecError::Lost { .. })));
}
