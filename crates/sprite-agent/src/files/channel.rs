//! The process's end of an operation: frames over a blocking socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use sprite_agent_api::fs::{FsError, FsReply};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA, MAX_FRAME};

/// How often something is said while there is nothing to tell.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Bytes before a frame's payload.
pub(super) const HEAD: usize = 5;

/// Why an operation ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The kernel refused, which is told.
    Refused(FsError),
    /// Nobody is left to be told: what is half done is undone.
    Gone,
}

/// Names the step and the path of a result.
pub(super) trait Tried<T> {
    fn tried(self, step: &str, path: &str) -> Result<T, Stop>;
}

impl<T, E: Into<io::Error>> Tried<T> for Result<T, E> {
    fn tried(self, step: &str, path: &str) -> Result<T, Stop> {
        self.map_err(|error| refused(error.into().raw_os_error().unwrap_or(libc::EIO), step, path))
    }
}

/// A refusal with this error number.
pub(super) fn refused(errno: i32, step: &str, path: &str) -> Stop {
    Stop::Refused(FsError {
        errno,
        step: step.to_owned(),
        path: path.to_owned(),
    })
}

/// One operation's socket.
pub(super) struct Channel {
    socket: UnixStream,
    said: Instant,
    /// Head and payload of bytes that are sent.
    out: Vec<u8>,
}

impl Channel {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            said: Instant::now(),
            out: Vec::new(),
        }
    }

    pub(super) fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The next frame: its kind, with its payload in `payload`. An empty frame of bytes is the end of what comes.
    pub(super) fn receive(&mut self, payload: &mut Vec<u8>) -> Result<FrameKind, Stop> {
        let mut head = [0; HEAD];
        self.socket.read_exact(&mut head).map_err(|_| Stop::Gone)?;
        let [a, b, c, d, kind] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        // `run` is believed, and still: no length takes memory unchecked.
        let length = length.checked_sub(1).filter(|length| *length < MAX_FRAME);
        let length = length.ok_or(Stop::Gone)?;
        let kind = [FrameKind::Control, FrameKind::Stdin]
            .into_iter()
            .find(|known| Frame::data(*known, bytes::Bytes::new()).head()[4] == kind)
            .ok_or(Stop::Gone)?;
        payload.resize(length, 0);
        self.socket.read_exact(payload).map_err(|_| Stop::Gone)?;
        Ok(kind)
    }

    /// The message of the next frame.
    pub(super) fn message<T: DeserializeOwned>(&mut self) -> Result<T, Stop> {
        let mut payload = Vec::new();
        match self.receive(&mut payload)? {
            FrameKind::Control => serde_json::from_slice(&payload).map_err(|_| Stop::Gone),
            FrameKind::Stdin | FrameKind::Stdout | FrameKind::Stderr => Err(Stop::Gone),
        }
    }

    /// Says something; waits while the other end does not listen.
    pub(super) fn say(&mut self, reply: &FsReply) -> Result<(), Stop> {
        let frame = Frame::control(reply);
        self.send(&frame.head(), &frame.payload)
    }

    /// Says that it still works, now and then.
    pub(super) fn alive(&mut self, count: u64) -> Result<(), Stop> {
        if self.said.elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        self.say(&FsReply::Working { count })
    }

    /// Sends bytes that `fill` puts into a buffer of [`MAX_DATA`]; says how many, 0 at their end.
    pub(super) fn send_bytes(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Stop>,
    ) -> Result<usize, Stop> {
        let mut out = std::mem::take(&mut self.out);
        out.resize(HEAD + MAX_DATA, 0);
        let filled = fill(&mut out[HEAD..]);
        let sent = match filled {
            Ok(0) => Ok(0),
            Ok(length) => {
                let length = length.min(MAX_DATA);
                let counted = u32::try_from(length + 1).expect("at most MAX_DATA");
                out[..4].copy_from_slice(&counted.to_le_bytes());
                out[4] = Frame::data(FrameKind::Stdout, bytes::Bytes::new()).head()[4];
                self.send(&out[..HEAD + length], &[]).map(|()| length)
            }
            Err(stop) => Err(stop),
        };
        self.out = out;
        sent
    }

    /// Says that all was said.
    pub(super) fn end(&mut self) {
        let end = Frame::data(FrameKind::Stdout, bytes::Bytes::new());
        // Who is gone needs no goodbye.
        let _ = self.send(&end.head(), &[]);
    }

    fn send(&mut self, head: &[u8], payload: &[u8]) -> Result<(), Stop> {
        self.said = Instant::now();
        let sent = self.socket.write_all(head);
        sent.and_then(|()| self.socket.write_all(payload))
            .map_err(|_| Stop::Gone)
    }
}
