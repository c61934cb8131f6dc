//! The exec stream: binary frames and the text messages beside them. Source: behaviour reference §1.4.3, §11.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sprite_types::WebUrl;
use utoipa::ToSchema;

/// First byte of a binary message of a session without a terminal, and of a chunk of an HTTP exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamId {
    /// Client to server: bytes for stdin.
    Stdin = 0,
    /// Server to client: bytes of stdout.
    Stdout = 1,
    /// Server to client: bytes of stderr.
    Stderr = 2,
    /// Server to client, the last one: one byte, the exit status.
    Exit = 3,
    /// Client to server: no more stdin; no payload.
    StdinEof = 4,
}

impl StreamId {
    /// The stream that this byte names.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Stdin),
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            3 => Some(Self::Exit),
            4 => Some(Self::StdinEof),
            _ => None,
        }
    }

    /// The byte that names it.
    #[must_use]
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Splits a binary message into its stream and its payload. `None` if it is empty or of no known stream.
    #[must_use]
    pub fn split(mut message: Bytes) -> Option<(Self, Bytes)> {
        let stream = Self::from_byte(*message.first()?)?;
        Some((stream, message.split_off(1)))
    }
}

/// Close code of a terminal's session that ended with status 0. Source: behaviour reference §1.4.4 rule 2.
pub const CLOSE_OK: u16 = 1000;
/// The server stops, or the sprite falls asleep.
pub const CLOSE_GOING_AWAY: u16 = 1001;
/// The client broke the protocol.
pub const CLOSE_PROTOCOL: u16 = 1002;
/// A text message that is not text.
pub const CLOSE_NOT_TEXT: u16 = 1007;
/// A message that is too big.
pub const CLOSE_TOO_BIG: u16 = 1009;
/// The machine ended in the middle.
pub const CLOSE_LOST: u16 = 1011;

/// Close code of a terminal's session that ended with `status`: 1000 for 0, else 4000 + status.
///
/// The JavaScript SDK takes 1000 for success and everything else for failure.
/// Source: behaviour reference §1.4.4 rule 2, §11.7.
#[must_use]
pub fn close_code(status: u8) -> u16 {
    if status == 0 {
        CLOSE_OK
    } else {
        4000 + u16::from(status)
    }
}

/// A text message from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerText {
    /// The first message, on start and on attach.
    SessionInfo(SessionInfo),
    /// The session ended; before the binary exit where there is one.
    Exit {
        /// Exit status.
        exit_code: u8,
        /// The same, as the Elixir SDK reads it. Source: behaviour reference §11.1.
        code: u8,
    },
    /// Nothing happened for a while, and the connection is alive.
    Keepalive,
    /// A program in the sprite wants a URL opened in the browser of whoever is attached; only to clients that said
    /// `browser=true`.
    OpenUrl(OpenUrl),
    /// The stream ends without an exit.
    Error {
        /// For people.
        message: String,
        /// The same, as other clients read it.
        error: String,
    },
}

impl ServerText {
    /// The message about an exit.
    #[must_use]
    pub fn exit(code: u8) -> Self {
        Self::Exit {
            exit_code: code,
            code,
        }
    }

    /// The message about an end without an exit.
    #[must_use]
    pub fn error(message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Error {
            error: message.clone(),
            message,
        }
    }

    /// The message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages have string keys and no failing impls")
    }
}

/// Which session a stream is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionInfo {
    /// Its id, a decimal number as a text.
    pub session_id: String,
    /// The command as it was resolved.
    pub command: String,
    /// Start, Unix seconds.
    pub created: i64,
    /// Width of the terminal; 0 without one.
    pub cols: u16,
    /// Height of the terminal; 0 without one.
    pub rows: u16,
    /// Whether the client may do everything with it: always.
    pub is_owner: bool,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Offset in stdout (or in what the terminal showed) of the first byte that follows.
    /// Source: behaviour reference §11.3, §12 (replay cursor).
    #[serde(default)]
    pub stdout_offset: u64,
    /// Offset in stderr of the first byte that follows.
    #[serde(default)]
    pub stderr_offset: u64,
    /// The first bytes, so many, draw what the terminal shows; those that `stdout_offset` counts follow.
    #[serde(default)]
    pub screen_bytes: u64,
    /// What is kept of its output.
    #[serde(flatten)]
    pub kept: Kept,
}

/// What a program in a sprite wants opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenUrl {
    /// The URL: `http` or `https`, printable ASCII, at most 8,192 characters.
    #[schema(value_type = String)]
    pub url: WebUrl,
    /// The port on the browser's computer to which the page leads back, and which is to be one of the sprite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_port: Option<u16>,
}

impl From<WebUrl> for OpenUrl {
    fn from(url: WebUrl) -> Self {
        let callback_port = url.callback_port();
        Self { url, callback_port }
    }
}

/// What is kept of a session's output, in bytes of each stream. Source: behaviour reference §11.3.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Kept {
    /// Offset of the first byte of stdout (or of what the terminal was sent) that can still be read.
    pub stdout_kept_from: u64,
    /// Bytes of stdout so far.
    pub stdout_total: u64,
    /// Offset of the first byte of stderr that can still be read.
    pub stderr_kept_from: u64,
    /// Bytes of stderr so far.
    pub stderr_total: u64,
}

/// A text message from the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientText {
    /// The client's terminal has another size.
    Resize {
        /// Width in characters.
        cols: u16,
        /// Height in lines.
        rows: u16,
    },
    /// A signal for the session's process group.
    Signal {
        /// Name with or without `SIG`, or a number.
        signal: SignalText,
    },
    /// No more stdin; for clients that cannot send the binary one.
    StdinEof,
}

/// A signal as clients write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SignalText {
    /// `9`.
    Number(i64),
    /// `TERM`, `SIGTERM`, `"9"`.
    Name(String),
}

impl SignalText {
    /// The signal, if it is one.
    #[must_use]
    pub fn signal(&self) -> Option<crate::unit::Signal> {
        match self {
            Self::Number(number) => crate::unit::Signal::from_number(*number),
            Self::Name(name) => name.parse().ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.4.3: the table of streams.
    #[test]
    fn streams_are_named_by_one_byte() {
        for byte in 0..=4 {
            assert_eq!(StreamId::from_byte(byte).map(StreamId::byte), Some(byte));
        }
        assert_eq!(StreamId::from_byte(5), None);
        let message = Bytes::from_static(&[1, b'h', b'i']);
        assert_eq!(
            StreamId::split(message),
            Some((StreamId::Stdout, Bytes::from_static(b"hi")))
        );
        assert_eq!(StreamId::split(Bytes::new()), None);
    }

    /// Behaviour reference §1.4.3, §11.1: the texts as they are on the wire.
    #[test]
    fn texts_are_as_documented() {
        assert_eq!(
            ServerText::exit(42).to_json(),
            r#"{"type":"exit","exit_code":42,"code":42}"#
        );
        assert_eq!(ServerText::Keepalive.to_json(), r#"{"type":"keepalive"}"#);
        let url: WebUrl = "https://a/?redirect_uri=http://localhost:7/"
            .parse()
            .expect("a URL");
        assert_eq!(
            ServerText::OpenUrl(url.into()).to_json(),
            r#"{"type":"open_url","url":"https://a/?redirect_uri=http://localhost:7/","callback_port":7}"#
        );
        let info = ServerText::SessionInfo(SessionInfo {
            session_id: "20".to_owned(),
            command: "/bin/bash".to_owned(),
            created: 1_767_609_000,
            cols: 0,
            rows: 0,
            is_owner: true,
            tty: true,
            stdout_offset: 0,
            stderr_offset: 0,
            screen_bytes: 0,
            kept: Kept::default(),
        });
        assert!(
            info.to_json()
                .starts_with(r#"{"type":"session_info","session_id":"20","#)
        );
    }

    #[test]
    fn signals_come_as_names_and_numbers() {
        for (text, number) in [
            (r#"{"type":"signal","signal":"TERM"}"#, Some(15)),
            (r#"{"type":"signal","signal":"SIGKILL"}"#, Some(9)),
            (r#"{"type":"signal","signal":2}"#, Some(2)),
            (r#"{"type":"signal","signal":"nope"}"#, None),
        ] {
            let Ok(ClientText::Signal { signal }) = serde_json::from_str(text) else {
                panic!("{text} is a signal");
            };
            assert_eq!(
                signal.signal().map(crate::unit::Signal::number),
                number,
                "{text}"
            );
        }
    }

    /// Behaviour reference §1.4.4 rule 2.
    #[test]
    fn only_success_closes_with_1000() {
        assert_eq!(close_code(0), 1000);
        assert_eq!(close_code(1), 4001);
        assert_eq!(close_code(255), 4255);
    }
}
