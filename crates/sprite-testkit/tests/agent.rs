//! The fake agent behaves as the real one where tests of others rely on it.

use std::time::Duration;

use bytes::Bytes;
use sprite_agent_api::link::Stream;
use sprite_agent_api::message::{
    AttachSpec, ExecSpec, FailureKind, Input, KillEvent, KillSpec, Reply, Request, TtySize,
};
use sprite_agent_api::{Frame, FrameKind};
use sprite_host::Awake;
use sprite_testkit::TestHost;
use sprite_types::SessionId;

fn spec(argv: &[&str]) -> ExecSpec {
    let argv: Vec<String> = argv.iter().map(|&argument| argument.to_owned()).collect();
    ExecSpec {
        path: argv[0].clone(),
        argv,
        env: Vec::new(),
        dir: None,
        tty: None,
        stdin: false,
        max_run_after_disconnect_ms: None,
        ports: false,
    }
}

async fn awake() -> (TestHost, Awake) {
    let test = TestHost::new().await;
    let sprite = test.create("one").await;
    let awake = test.host.awake(sprite.id).await.expect("awake");
    (test, awake)
}

async fn started(stream: &mut Stream) -> SessionId {
    match stream
        .receiver
        .recv()
        .await
        .expect("reply")
        .expect("reply")
        .message()
    {
        Ok(Reply::Started(started)) => started.session,
        other => panic!("{other:?}"),
    }
}

/// What came until the exit: status, stdout, stderr.
async fn finish(stream: &mut Stream) -> (u8, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let frame = stream
            .receiver
            .recv()
            .await
            .expect("goes on")
            .expect("goes on");
        match frame.kind {
            FrameKind::Stdout => stdout.extend_from_slice(&frame.payload),
            FrameKind::Stderr => stderr.extend_from_slice(&frame.payload),
            FrameKind::Control => match frame.message().expect("a reply") {
                Reply::Exited { code } => return (code, stdout, stderr),
                other => panic!("{other:?}"),
            },
            FrameKind::Stdin => panic!("stdin from an agent"),
        }
    }
}

async fn one_reply(awake: &Awake, request: &Request) -> Reply {
    let mut stream = awake.open(request);
    stream
        .receiver
        .recv()
        .await
        .expect("reply")
        .expect("reply")
        .message()
        .expect("a reply")
}

fn input(input: &Input) -> Frame {
    Frame::control(input)
}

#[tokio::test]
async fn programs_do_what_they_say() {
    let (_test, awake) = awake().await;
    for (argv, code, stdout, stderr) in [
        (&["true"][..], 0, "", ""),
        (&["/bin/false"], 1, "", ""),
        (&["echo", "a", "b"], 0, "a b\n", ""),
        (&["pwd"], 0, "/home/sprite\n", ""),
        (&["sh", "-c", "exit 42"], 42, "", ""),
        (
            &[
                "bash",
                "-lc",
                "echo 'a  b' \"$HOME\"; echo c >&2 && false && echo no",
            ],
            1,
            "a  b $HOME\n",
            "c\n",
        ),
        (&["sh", "-c", "echo $USER"], 0, "sprite\n", ""),
        (&["no-such"], 127, "", "no-such: command not found\n"),
        (&["yes", "5"], 0, "y\ny\ny", ""),
    ] {
        let mut stream = awake.open(&Request::Exec(spec(argv)));
        started(&mut stream).await;
        let (got, out, err) = finish(&mut stream).await;
        let out = String::from_utf8_lossy(&out).replace(
            "/home/sprite\n",
            if argv[0] == "pwd" {
                "/home/sprite\n"
            } else {
                "$HOME\n"
            },
        );
        assert_eq!(
            (got, out.as_str(), String::from_utf8_lossy(&err).as_ref()),
            (code, stdout, stderr),
            "{argv:?}"
        );
    }
}

#[tokio::test]
async fn a_terminal_has_a_size_one_stream_and_a_shell() {
    let (_test, awake) = awake().await;
    let tty = Some(TtySize { rows: 24, cols: 80 });
    let mut stream = awake.open(&Request::Exec(ExecSpec {
        tty,
        stdin: true,
        ..spec(&["bash"])
    }));
    started(&mut stream).await;
    stream
        .sender
        .send(input(&Input::Resize(TtySize {
            rows: 50,
            cols: 132,
        })))
        .await
        .expect("send");
    let script = Bytes::from_static(b"stty size\necho err >&2\nexit 7\n");
    stream
        .sender
        .send(Frame::data(FrameKind::Stdin, script))
        .await
        .expect("send");
    let (code, stdout, stderr) = finish(&mut stream).await;
    assert_eq!(
        (code, String::from_utf8_lossy(&stdout).as_ref()),
        (7, "$ 50 132\n$ err\n$ ")
    );
    assert!(stderr.is_empty());
}

#[tokio::test]
async fn sessions_outlive_their_clients_and_can_be_attached_and_killed() {
    let (_test, awake) = awake().await;
    let script = spec(&["sh", "-c", "echo hello; sleep 1000"]);
    let mut stream = awake.open(&Request::Exec(script));
    let session = started(&mut stream).await;
    let first = stream
        .receiver
        .recv()
        .await
        .expect("output")
        .expect("output");
    assert_eq!(first.payload.as_ref(), b"hello\n");
    drop(stream);
    let Reply::Sessions { sessions } = one_reply(&awake, &Request::Sessions).await else {
        panic!("a listing");
    };
    assert_eq!(
        sessions.iter().map(|info| info.session).collect::<Vec<_>>(),
        [session]
    );

    let attach = AttachSpec {
        session,
        stdout_offset: 0,
        stderr_offset: 0,
        ports: false,
        screen: false,
        size: None,
    };
    let mut again = awake.open(&Request::Attach(attach.clone()));
    assert_eq!(started(&mut again).await, session);
    let kill = KillSpec {
        session,
        signal: 15,
        timeout_ms: 10_000,
    };
    let mut kill = awake.open(&Request::Kill(kill));
    let mut events = Vec::new();
    while let Some(frame) = kill.receiver.recv().await.expect("events") {
        match frame.message().expect("a reply") {
            Reply::Kill(event) => events.push(event),
            other => panic!("{other:?}"),
        }
    }
    let signal = KillEvent::Signal {
        signal: 15,
        pid: session.0,
    };
    assert_eq!(
        events,
        [
            signal,
            KillEvent::Exited,
            KillEvent::Complete {
                exit_code: Some(143)
            }
        ]
    );
    assert_eq!(
        finish(&mut again).await,
        (143, b"hello\n".to_vec(), Vec::new())
    );

    // It is remembered, and not listed.
    let Reply::Sessions { sessions } = one_reply(&awake, &Request::Sessions).await else {
        panic!("a listing");
    };
    assert!(sessions.is_empty());
    let mut late = awake.open(&Request::Attach(attach));
    started(&mut late).await;
    assert_eq!(finish(&mut late).await.0, 143);
    let kill = |session| {
        Request::Kill(KillSpec {
            session,
            signal: 15,
            timeout_ms: 0,
        })
    };
    for (session, expected) in [
        (session, FailureKind::SessionEnded),
        (SessionId(999_999), FailureKind::NoSession),
    ] {
        let Reply::Failed(failure) = one_reply(&awake, &kill(session)).await else {
            panic!("a failure");
        };
        assert_eq!(failure.kind, expected);
    }
}

#[tokio::test]
async fn a_session_without_clients_ends_when_its_time_is_over() {
    let (test, awake) = awake().await;
    let limit = Some(10);
    let spec = ExecSpec {
        max_run_after_disconnect_ms: limit,
        ports: false,
        ..spec(&["sleep", "1000"])
    };
    let mut stream = awake.open(&Request::Exec(spec));
    started(&mut stream).await;
    let machine = test.driver.machines().pop().expect("runs");
    assert_eq!(machine.live_sessions(), 1);
    stream
        .sender
        .send(input(&Input::Detach))
        .await
        .expect("send");
    sprite_testkit::eventually(Duration::from_secs(20), async || {
        match machine.live_sessions() {
            0 => std::ops::ControlFlow::Break(()),
            live => std::ops::ControlFlow::Continue(live),
        }
    })
    .await;
}

#[tokio::test]
async fn a_program_waits_for_a_reader_that_does_not_read() {
    let (_test, awake) = awake().await;
    let mut stream = awake.open(&Request::Exec(spec(&["yes", "67108864"])));
    let session = started(&mut stream).await;
    // Long after nothing moves any more it has written what fits into windows and buffers, not 64 MiB.
    let mut before = 0;
    let written = sprite_testkit::eventually(Duration::from_secs(20), async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Reply::Sessions { sessions } = one_reply(&awake, &Request::Sessions).await else {
            panic!("a listing");
        };
        let now = sessions
            .iter()
            .find(|info| info.session == session)
            .map_or(0, |info| info.output_bytes);
        let still = now == before && now > 0;
        before = now;
        if still {
            std::ops::ControlFlow::Break(now)
        } else {
            std::ops::ControlFlow::Continue(now)
        }
    })
    .await;
    assert!(written < 8 << 20, "{written}");
    let (code, stdout, _) = finish(&mut stream).await;
    assert_eq!((code, stdout.len()), (0, 64 << 20));
}
