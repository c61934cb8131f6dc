//! What released hosts and agents said to each other is understood for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sprite_agent_api::calls::CallReply;
use sprite_agent_api::fs::{FsCall, FsSpec};
use sprite_agent_api::idle::IdleReply;
use sprite_agent_api::link::{
    self, Acceptor, BoxedTransport, Connect, Epoch, Limits, LinkError, Stream, StreamId,
};
use sprite_agent_api::message::{
    AgentInfo, AttachSpec, EnvironmentSpec, ExecSpec, Failure, FailureKind, Input, Kept, KillEvent,
    KillSpec, Reply, Request, SessionInfo, SessionStarted, TtySize,
};
use sprite_agent_api::policy::{EnvironmentLimits, PolicyReply, PolicySpec};
use sprite_agent_api::ports::{Port, PortEvent, PortsReply};
use sprite_agent_api::services::{ServiceSet, ServicesCall, ServicesSpec};
use sprite_agent_api::tcp::{ConnectInput, ConnectReply, ConnectSpec};
use sprite_agent_api::{Frame, FrameKind, PROTOCOL};
use sprite_types::{Confinement, SessionId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

const FROZEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/frozen/v1");
const STREAM: StreamId = StreamId(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
const EPOCH: Epoch = Epoch(0x1716_1514_1312_1110);
const SESSION: SessionId = SessionId(7);
const SIZE: TtySize = TtySize { rows: 24, cols: 80 };

fn frozen(name: &str) -> String {
    std::fs::read_to_string(Path::new(FROZEN).join(name)).expect("it is in the repository")
}

/// The names of all variants, and the name of a value. A variant that is added does not compile without a name, and
/// its name is not found without a line.
macro_rules! variants {
    ($type:ty, $name_of:ident, $names:ident: $($pattern:pat => $name:literal,)*) => {
        const $names: &[&str] = &[$($name),*];

        fn $name_of(value: &$type) -> &'static str {
            match value {
                $($pattern => $name,)*
            }
        }
    };
}

variants! { Request, request_name, REQUESTS:
    Request::Start(_) => "start",
    Request::Exec(_) => "exec",
    Request::Attach(_) => "attach",
    Request::Sessions => "sessions",
    Request::Kill(_) => "kill",
    Request::Sync => "sync",
    Request::Shutdown => "shutdown",
    Request::Ping => "ping",
    Request::Clock { .. } => "clock",
    Request::Connect(_) => "connect",
    Request::Ports => "ports",
    Request::Fs(_) => "fs",
    Request::Policy(_) => "policy",
    Request::Calls => "calls",
    Request::Idle => "idle",
    Request::Take { .. } => "take",
    Request::Services(_) => "services",
}

variants! { IdleReply, idle_name, IDLES:
    IdleReply::Idle => "idle",
    IdleReply::InUse { .. } => "in_use",
    IdleReply::Failed(_) => "failed",
}

variants! { ConnectReply, connect_name, CONNECTS:
    ConnectReply::Connected { .. } => "connected",
    ConnectReply::Refused { .. } => "refused",
    ConnectReply::Broken { .. } => "broken",
    ConnectReply::Failed(_) => "failed",
}

variants! { ConnectInput, connect_input_name, CONNECT_INPUTS:
    ConnectInput::Close => "close",
}

variants! { PortsReply, ports_name, PORTS:
    PortsReply::List { .. } => "list",
    PortsReply::Port(_) => "port",
    PortsReply::Failed(_) => "failed",
}

variants! { PolicyReply, policy_reply_name, POLICY_REPLIES:
    PolicyReply::Applied => "applied",
    PolicyReply::Failed(_) => "failed",
}

variants! { CallReply, call_reply_name, CALL_REPLIES:
    CallReply::Call { .. } => "call",
    CallReply::Taken => "taken",
    CallReply::Failed(_) => "failed",
}

variants! { Input, input_name, INPUTS:
    Input::StdinEof => "stdin eof",
    Input::Resize(_) => "resize",
    Input::Signal { .. } => "signal",
    Input::Detach => "detach",
}

variants! { Reply, reply_name, REPLIES:
    Reply::Ready(_) => "ready",
    Reply::Started(_) => "started",
    Reply::Exited { .. } => "exited",
    Reply::Sessions { .. } => "sessions",
    Reply::Kill(KillEvent::Signal { .. }) => "kill: signal",
    Reply::Kill(KillEvent::Timeout) => "kill: timeout",
    Reply::Kill(KillEvent::Killed) => "kill: killed",
    Reply::Kill(KillEvent::Exited) => "kill: exited",
    Reply::Kill(KillEvent::Complete { .. }) => "kill: complete",
    Reply::Synced => "synced",
    Reply::Port(PortEvent::Opened(_)) => "port: opened",
    Reply::Port(PortEvent::Closed(_)) => "port: closed",
    Reply::Failed(Failure { kind: FailureKind::Invalid, .. }) => "failed: invalid",
    Reply::Failed(Failure { kind: FailureKind::NoSession, .. }) => "failed: no session",
    Reply::Failed(Failure { kind: FailureKind::SessionEnded, .. }) => "failed: session ended",
    Reply::Failed(Failure { kind: FailureKind::NotReady, .. }) => "failed: not ready",
    Reply::Failed(Failure { kind: FailureKind::Limit, .. }) => "failed: limit",
    Reply::Failed(Failure { kind: FailureKind::Dir, .. }) => "failed: dir",
    Reply::Failed(Failure { kind: FailureKind::System, .. }) => "failed: system",
    Reply::Failed(Failure { kind: FailureKind::Unknown, .. }) => "failed: unknown",
}

/// Every line reads as its value, today's words for the value hold all that the line holds, and each variant has a
/// line that is written today just so.
fn check<T>(file: &str, expected: &[T], names: &[&str], name_of: fn(&T) -> &'static str)
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    let text = frozen(file);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), expected.len(), "{file}: a line for each value");
    let mut written_so = BTreeSet::new();
    for (line, value) in lines.iter().zip(expected) {
        let read: T = serde_json::from_str(line).expect(line);
        assert_eq!(&read, value, "{file}");
        let then: Value = serde_json::from_str(line).expect("a line is JSON");
        let now = serde_json::to_value(value).expect("messages are JSON");
        assert!(
            holds(&now, &then),
            "{file}: {line} is said otherwise today: {now}"
        );
        if now == then {
            written_so.insert(name_of(value));
        }
    }
    let all: BTreeSet<&str> = names.iter().copied().collect();
    let missing: Vec<_> = all.difference(&written_so).collect();
    assert!(
        missing.is_empty(),
        "{file} has no line with all fields of {missing:?}: see frozen/README.md"
    );
}

/// Whether `now` has every field of `then`, with the same value.
fn holds(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then
            .iter()
            .all(|(name, then)| now.get(name).is_some_and(|now| holds(now, then))),
        (Value::Array(now), Value::Array(then)) => {
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| holds(now, then))
        }
        (now, then) => now == then,
    }
}

#[test]
fn requests_of_released_hosts_are_understood() {
    let environment = EnvironmentSpec {
        hostname: "dawn".to_owned(),
        env: vec![("LANG".to_owned(), "C.UTF-8".to_owned())],
        nameservers: vec!["10.0.0.1".to_owned()],
    };
    let bare = EnvironmentSpec {
        env: Vec::new(),
        nameservers: Vec::new(),
        ..environment.clone()
    };
    let exec = ExecSpec {
        path: "bash".to_owned(),
        argv: vec!["bash".to_owned(), "-l".to_owned()],
        env: vec![("A".to_owned(), "1".to_owned())],
        dir: Some("/srv".to_owned()),
        tty: Some(SIZE),
        stdin: true,
        max_run_after_disconnect_ms: Some(10_000),
        ports: false,
    };
    let telling = ExecSpec {
        ports: true,
        ..exec.clone()
    };
    let plain = ExecSpec {
        path: "true".to_owned(),
        argv: vec!["true".to_owned()],
        env: Vec::new(),
        dir: None,
        tty: None,
        stdin: false,
        max_run_after_disconnect_ms: None,
        ports: false,
    };
    let attach = |stdout_offset, stderr_offset, ports| {
        Request::Attach(AttachSpec {
            session: SESSION,
            stdout_offset,
            stderr_offset,
            ports,
            screen: false,
            size: None,
        })
    };
    let joining = |screen, size| {
        Request::Attach(AttachSpec {
            session: SESSION,
            stdout_offset: 1024,
            stderr_offset: 16,
            ports: screen,
            screen,
            size,
        })
    };
    let expected = [
        Request::Start(environment),
        Request::Start(bare),
        Request::Exec(exec),
        Request::Exec(plain),
        attach(1024, 16, false),
        attach(0, 0, false),
        Request::Sessions,
        Request::Kill(KillSpec {
            session: SESSION,
            signal: 15,
            timeout_ms: 5000,
        }),
        Request::Sync,
        Request::Shutdown,
        Request::Ping,
        Request::Clock {
            unix_nanos: 1_700_000_000_123_456_789,
        },
        Request::Connect(ConnectSpec {
            host: "localhost".to_owned(),
            port: 8080,
        }),
        Request::Ports,
        Request::Exec(telling),
        attach(1024, 16, true),
        // What can be asked of files is in `frozen_fs.rs`.
        Request::Fs(FsSpec {
            call: FsCall::Watch,
            working_dir: Some("/srv".to_owned()),
            as_root: true,
        }),
        Request::Policy(PolicySpec {
            network: "{\"rules\":[]}".to_owned(),
            confinement: Confinement::NoCapabilities,
            limits: Some(EnvironmentLimits {
                memory_mib: 512,
                pids: 1024,
            }),
        }),
        Request::Policy(PolicySpec::default()),
        joining(true, Some(SIZE)),
        joining(false, None),
        Request::Calls,
        Request::Idle,
        Request::Take { call: 9 },
        // What can be asked of services is in `frozen_services.rs`.
        Request::Services(ServicesSpec {
            set: Some(ServiceSet {
                revision: 3,
                services: Vec::new(),
            }),
            call: ServicesCall::Apply,
        }),
    ];
    check("requests.jsonl", &expected, REQUESTS, request_name);
}

#[test]
fn policy_replies_of_released_agents_are_understood() {
    let expected = [
        PolicyReply::Applied,
        PolicyReply::Failed(Failure {
            kind: FailureKind::System,
            message: "read the book".to_owned(),
        }),
    ];
    let file = "policy_replies.jsonl";
    check(file, &expected, POLICY_REPLIES, policy_reply_name);
}

#[test]
fn answers_of_released_agents_about_idleness_are_understood() {
    let expected = [
        IdleReply::Idle,
        IdleReply::InUse {
            what: "session 1 runs something".to_owned(),
        },
        IdleReply::Failed(Failure {
            kind: FailureKind::Invalid,
            message: "read the request".to_owned(),
        }),
    ];
    check("idle.jsonl", &expected, IDLES, idle_name);
}

#[test]
fn inputs_of_released_hosts_are_understood() {
    let expected = [
        Input::StdinEof,
        Input::Resize(TtySize {
            rows: 50,
            cols: 132,
        }),
        Input::Signal { signal: 2 },
        Input::Detach,
    ];
    check("inputs.jsonl", &expected, INPUTS, input_name);
}

#[test]
fn replies_of_released_agents_are_understood() {
    let session = SessionInfo {
        session: SESSION,
        command: "/bin/bash -l".to_owned(),
        workdir: "/srv".to_owned(),
        created_unix_ms: 1_700_000_000_123,
        last_activity_unix_ms: 1_700_000_001_123,
        output_bytes: 1040,
        bytes_per_second: 12,
        attached: 1,
        tty: true,
        stdout: Kept::default(),
        stderr: Kept::default(),
    };
    let kept = Kept {
        from: 1000,
        total: 1040,
    };
    let with_kept = SessionInfo {
        stdout: kept,
        stderr: kept,
        ..session.clone()
    };
    let started = SessionStarted {
        session: SESSION,
        command: "/bin/bash -l".to_owned(),
        created_unix: 1_700_000_000,
        tty: true,
        size: SIZE,
        stdout_start: 1024,
        stderr_start: 16,
        screen_bytes: 0,
        stdout: Kept::default(),
        stderr: Kept::default(),
    };
    let drawn = SessionStarted {
        screen_bytes: 99,
        stdout: kept,
        stderr: kept,
        ..started.clone()
    };
    let mut expected = vec![
        Reply::Ready(AgentInfo {
            protocol: 1,
            environment: true,
        }),
        Reply::Started(started),
        Reply::Exited { code: 137 },
        Reply::Sessions {
            sessions: vec![session],
        },
        Reply::Sessions {
            sessions: Vec::new(),
        },
        Reply::Kill(KillEvent::Signal {
            signal: 15,
            pid: 4242,
        }),
        Reply::Kill(KillEvent::Timeout),
        Reply::Kill(KillEvent::Killed),
        Reply::Kill(KillEvent::Exited),
        Reply::Kill(KillEvent::Complete {
            exit_code: Some(137),
        }),
        Reply::Kill(KillEvent::Complete { exit_code: None }),
        Reply::Synced,
    ];
    let kinds = [
        FailureKind::Invalid,
        FailureKind::NoSession,
        FailureKind::SessionEnded,
        FailureKind::NotReady,
        FailureKind::Limit,
        FailureKind::Dir,
        FailureKind::System,
        FailureKind::Unknown,
    ];
    expected.extend(kinds.map(|kind| {
        Reply::Failed(Failure {
            kind,
            message: "read the book".to_owned(),
        })
    }));
    expected.push(Reply::Port(PortEvent::Opened(PORT)));
    expected.push(Reply::Port(PortEvent::Closed(PORT)));
    expected.extend([
        Reply::Started(drawn),
        Reply::Sessions {
            sessions: vec![with_kept],
        },
    ]);
    check("replies.jsonl", &expected, REPLIES, reply_name);
}

const PORT: Port = Port {
    port: 3000,
    address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    pid: 1847,
};

fn failure() -> Failure {
    Failure {
        kind: FailureKind::Limit,
        message: "read the book".to_owned(),
    }
}

#[test]
fn connections_of_released_agents_are_understood() {
    let message = || "connect to 127.0.0.1:8080: Connection refused".to_owned();
    let expected = [
        ConnectReply::Connected {
            address: ([127, 0, 0, 1], 8080).into(),
        },
        ConnectReply::Refused { message: message() },
        ConnectReply::Broken { message: message() },
        ConnectReply::Failed(failure()),
    ];
    check("connect.jsonl", &expected, CONNECTS, connect_name);
    let expected = [ConnectInput::Close];
    let name = "connect-inputs.jsonl";
    check(name, &expected, CONNECT_INPUTS, connect_input_name);
}

#[test]
fn ports_of_released_agents_are_understood() {
    let expected = [
        PortsReply::List { ports: vec![PORT] },
        PortsReply::Port(PortEvent::Opened(PORT)),
        PortsReply::Port(PortEvent::Closed(PORT)),
        PortsReply::Failed(failure()),
    ];
    check("ports.jsonl", &expected, PORTS, ports_name);
}

#[test]
fn calls_from_inside_are_told_as_they_were() {
    let expected = [
        CallReply::Call { call: 9 },
        CallReply::Taken,
        CallReply::Failed(Failure {
            kind: FailureKind::NoSession,
            message: "read the book".to_owned(),
        }),
    ];
    check("calls.jsonl", &expected, CALL_REPLIES, call_reply_name);
}

#[test]
fn the_protocol_of_today_is_among_the_frozen_ones() {
    let directory = format!("{}/tests/frozen/v{PROTOCOL}", env!("CARGO_MANIFEST_DIR"));
    assert!(
        Path::new(&directory).is_dir(),
        "a new protocol is frozen: see frozen/README.md"
    );
}

/// Greetings and records by their names.
struct Records(BTreeMap<String, Vec<u8>>);

impl Records {
    fn read() -> Self {
        let text = frozen("records.txt");
        let lines = text.lines().map(|line| {
            let (name, digits) = line.split_once(' ').expect("a name and bytes");
            let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
            let bytes = (0..digits.len()).step_by(2).map(byte).collect();
            (name.to_owned(), bytes)
        });
        Self(lines.collect())
    }

    fn bytes(&self, names: &[&str]) -> Vec<u8> {
        let each = names.iter().map(|name| &self.0[*name][..]);
        each.collect::<Vec<_>>().concat()
    }
}

/// Hands out one end of each transport, and the other ends to the test.
struct Transports(mpsc::UnboundedSender<DuplexStream>);

#[async_trait]
impl Connect for Transports {
    async fn connect(&self) -> std::io::Result<BoxedTransport> {
        let (host, agent) = tokio::io::duplex(1 << 16);
        self.0.send(agent).expect("the test goes on");
        Ok(Box::new(host))
    }
}

fn open() -> (Stream, mpsc::UnboundedReceiver<DuplexStream>) {
    let (sender, transports) = mpsc::unbounded_channel();
    (
        link::open(Arc::new(Transports(sender)), EPOCH, STREAM),
        transports,
    )
}

async fn expect(transport: &mut DuplexStream, bytes: &[u8]) {
    let mut came = vec![0; bytes.len()];
    let read = transport.read_exact(&mut came);
    // Far beyond anything that is waited for: only so that a test that fails ends.
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    read.expect("it comes").expect("so many bytes come");
    assert_eq!(came, bytes);
}

fn data(kind: FrameKind, bytes: &'static [u8]) -> Frame {
    Frame::data(kind, Bytes::from_static(bytes))
}

async fn speak_as_host(stream: &Stream) {
    for frame in [
        Frame::control(&Request::Ping),
        data(FrameKind::Stdin, b"in\n"),
    ] {
        stream.sender.send(frame).await.expect("it is queued");
    }
    stream.sender.finish();
}

async fn hear_as_host(stream: &mut Stream) {
    for frame in [
        Frame::control(&Reply::Synced),
        data(FrameKind::Stdout, b"out\0\xff"),
        data(FrameKind::Stderr, b"err"),
    ] {
        assert_eq!(stream.receiver.recv().await, Ok(Some(frame)));
    }
    assert_eq!(stream.receiver.recv().await, Ok(None));
}

const OF_THE_HOST: &[&str] = &["hello.open", "frame.request", "frame.stdin", "fin"];
const OF_THE_AGENT: &[&str] = &["frame.reply", "frame.stdout", "frame.stderr", "fin"];

#[tokio::test]
async fn a_host_speaks_with_a_released_agent() {
    let records = Records::read();
    let (mut stream, mut transports) = open();
    speak_as_host(&stream).await;
    let mut agent = transports.recv().await.expect("the host connects");
    expect(&mut agent, &records.bytes(OF_THE_HOST)).await;
    let said = [
        records.bytes(&["welcome.ok"]),
        records.bytes(OF_THE_AGENT),
        records.bytes(&["ack.of-the-agent"]),
    ];
    agent.write_all(&said.concat()).await.expect("it is heard");
    hear_as_host(&mut stream).await;
    expect(&mut agent, &records.bytes(&["ack.of-the-host"])).await;
}

#[tokio::test]
async fn a_host_goes_on_with_a_released_agent_over_another_transport() {
    let records = Records::read();
    let (mut stream, mut transports) = open();
    speak_as_host(&stream).await;
    let mut agent = transports.recv().await.expect("the host connects");
    expect(&mut agent, &records.bytes(OF_THE_HOST)).await;
    let said = records.bytes(&["welcome.ok", "frame.reply"]);
    agent.write_all(&said).await.expect("it is heard");
    drop(agent);
    let mut agent = transports.recv().await.expect("the host connects again");
    expect(&mut agent, &records.bytes(&["hello.resume"])).await;
    let said = records.bytes(&["welcome.resumed"]);
    agent.write_all(&said).await.expect("it is heard");
    // The agent had the request only.
    expect(&mut agent, &records.bytes(&["frame.stdin", "fin"])).await;
    let said = ["frame.stdout", "frame.stderr", "fin", "ack.of-the-agent"];
    let said = records.bytes(&said);
    agent.write_all(&said).await.expect("it is heard");
    hear_as_host(&mut stream).await;
    expect(&mut agent, &records.bytes(&["ack.of-the-host"])).await;
}

#[tokio::test]
async fn a_host_understands_why_a_released_agent_refuses() {
    let records = Records::read();
    for (welcome, reason) in [
        ("welcome.unknown-stream", "does not know the stream"),
        ("welcome.other-protocol", "speaks protocol 1"),
        ("welcome.too-many", "too many streams"),
    ] {
        let (mut stream, mut transports) = open();
        let mut agent = transports.recv().await.expect("the host connects");
        let said = records.bytes(&[welcome]);
        agent.write_all(&said).await.expect("it is heard");
        match stream.receiver.recv().await {
            Err(LinkError::Gone(text)) => assert!(text.contains(reason), "{text}"),
            other => panic!("{welcome}: {other:?}"),
        }
    }
    let (mut stream, mut transports) = open();
    let mut agent = transports.recv().await.expect("the host connects");
    let said = records.bytes(&["welcome.ok", "abort"]);
    agent.write_all(&said).await.expect("it is heard");
    assert_eq!(stream.receiver.recv().await, Err(LinkError::Aborted));
}

/// Today's agent, which a test greets over this transport.
fn agent(limits: Limits) -> (DuplexStream, mpsc::UnboundedReceiver<Stream>) {
    let (sender, streams) = mpsc::unbounded_channel();
    let acceptor = Acceptor::new(limits, move |stream| {
        sender.send(stream).expect("the test goes on");
    });
    let (host, agent) = tokio::io::duplex(1 << 16);
    tokio::spawn(async move { acceptor.serve(Box::new(agent)).await });
    (host, streams)
}

#[tokio::test]
async fn an_agent_speaks_with_a_released_host() {
    let records = Records::read();
    let (mut host, mut streams) = agent(Limits::default());
    let said = records.bytes(OF_THE_HOST);
    host.write_all(&said).await.expect("it is heard");
    let mut stream = streams.recv().await.expect("a stream is opened");
    for frame in [
        Frame::control(&Request::Ping),
        data(FrameKind::Stdin, b"in\n"),
    ] {
        assert_eq!(stream.receiver.recv().await, Ok(Some(frame)));
    }
    assert_eq!(stream.receiver.recv().await, Ok(None));
    expect(
        &mut host,
        &records.bytes(&["welcome.ok", "ack.of-the-agent"]),
    )
    .await;
    for frame in [
        Frame::control(&Reply::Synced),
        data(FrameKind::Stdout, b"out\0\xff"),
        data(FrameKind::Stderr, b"err"),
    ] {
        stream.sender.send(frame).await.expect("it is queued");
    }
    stream.sender.finish();
    expect(&mut host, &records.bytes(OF_THE_AGENT)).await;
    let said = records.bytes(&["ack.of-the-host"]);
    host.write_all(&said).await.expect("it is heard");
    stream.sender.drained().await.expect("all has arrived");
}

#[tokio::test]
async fn an_agent_refuses_a_released_host_in_words_that_it_knows() {
    let records = Records::read();
    let none = Limits {
        streams: 0,
        ..Limits::default()
    };
    for (hello, limits, welcome) in [
        ("hello.resume", Limits::default(), "welcome.unknown-stream"),
        (
            "hello.of-protocol-2",
            Limits::default(),
            "welcome.other-protocol",
        ),
        ("hello.open", none, "welcome.too-many"),
    ] {
        let (mut host, _streams) = agent(limits);
        let said = records.bytes(&[hello]);
        host.write_all(&said).await.expect("it is heard");
        expect(&mut host, &records.bytes(&[welcome])).await;
    }
    let (mut host, mut streams) = agent(Limits::default());
    let said = records.bytes(&["hello.open"]);
    host.write_all(&said).await.expect("it is heard");
    let stream = streams.recv().await.expect("a stream is opened");
    expect(&mut host, &records.bytes(&["welcome.ok"])).await;
    stream.sender.abort();
    expect(&mut host, &records.bytes(&["abort"])).await;
}
