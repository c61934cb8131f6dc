//! Inputs to begin with: what well-behaved ends say.

use sprite_types::SessionId;

use crate::codec::{self, Frame, FrameKind, Record};
use crate::message::{
    AgentInfo, Failure, FailureKind, Input, Kept, KillEvent, Reply, Request, SessionStarted,
    TtySize,
};
use crate::policy::PolicySpec;

/// A seed and the entry that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// A name of [`super::ENTRIES`].
    pub entry: &'static str,
    /// A name among those of the entry.
    pub name: &'static str,
    /// What the entry is given.
    pub bytes: Vec<u8>,
}

/// All of them.
#[must_use]
pub fn seeds() -> Vec<Seed> {
    let size = TtySize { rows: 24, cols: 80 };
    let ready = Reply::Ready(AgentInfo {
        protocol: 1,
        environment: true,
    });
    let started = Reply::Started(SessionStarted {
        session: SessionId(7),
        command: "/bin/sh -l".to_owned(),
        created_unix: 1_700_000_000,
        tty: true,
        size,
        stdout_start: 0,
        stderr_start: 0,
        screen_bytes: 0,
        stdout: Kept::default(),
        stderr: Kept::default(),
    });
    let killed = Reply::Kill(KillEvent::Complete {
        exit_code: Some(137),
    });
    let failed = Reply::Failed(Failure {
        kind: FailureKind::NoSession,
        message: "no such session".to_owned(),
    });
    let frames = [
        (
            "a session",
            vec![
                control(&started),
                data(FrameKind::Stdout, b"$ "),
                data(FrameKind::Stderr, b"oh"),
                Record::Ack(17),
                control(&Reply::Exited { code: 0 }),
                Record::Fin,
            ],
        ),
        (
            "short answers",
            vec![
                control(&ready),
                control(&killed),
                control(&failed),
                Record::Abort,
            ],
        ),
        (
            "the host's",
            vec![
                control(&Request::Clock { unix_nanos: 1 }),
                control(&Request::Policy(PolicySpec::default())),
                control(&Input::Resize(size)),
                data(FrameKind::Stdin, b"ls\n"),
            ],
        ),
    ];
    let frames = frames.into_iter().map(|(name, records)| Seed {
        entry: "frames",
        name,
        bytes: wire(&records),
    });
    // A step is one byte, then what it needs: see the transports of the link.
    let link: [(_, &[u8]); 4] = [
        (
            "heard whole",
            &[2, 1, 9, 15, 8, 3, 0, 0, b'a', b'b', b'c', 4, 20, 0, 2],
        ),
        (
            "connected again",
            &[
                0, 0, 9, 15, 8, 1, 0, 0, b'a', 0, 0, 0, 15, 9, 1, 0, 0, b'b', 2,
            ],
        ),
        ("given up", &[1, 0, 9, 15, 8, 1, 0, 0, b'a', 3]),
        ("refused", &[1, 1, 9, 2, 8, 1, 0, 0, b'a']),
    ];
    let link = link.into_iter().map(|(name, bytes)| Seed {
        entry: "link",
        name,
        bytes: bytes.to_vec(),
    });
    frames.chain(link).collect()
}

fn control<T: serde::Serialize>(message: &T) -> Record {
    Record::Frame(Frame::control(message))
}

fn data(kind: FrameKind, bytes: &'static [u8]) -> Record {
    Record::Frame(Frame::data(kind, bytes.into()))
}

/// The records behind a byte that says how they are cut.
fn wire(records: &[Record]) -> Vec<u8> {
    let mut bytes = vec![3];
    for record in records {
        let (header, payload) = codec::encode(record);
        bytes.extend(header);
        bytes.extend(payload);
    }
    bytes
}
