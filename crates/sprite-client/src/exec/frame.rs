//! The messages of an exec stream, as the server sends and reads them.
//!
//! Without a terminal a binary message is one stream id and its bytes; with one it is the terminal's bytes. Text
//! messages are JSON in both modes. Source: behaviour reference §1.4.3.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::Value;
use sprite_types::WebUrl;
use tokio_tungstenite::tungstenite::Message;

use super::browser::read_url;
use super::{ExitStatus, SessionInfo, TtySize};
use crate::ports::{PortChange, read_change};
use crate::sessions::Signal;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const EXIT: u8 = 3;
const STDIN_EOF: u8 = 4;

/// What a message of the server means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The binary exit frame: nothing follows.
    Exit(ExitStatus),
    /// The text exit: all output has come, the binary frame may follow.
    ExitTold(ExitStatus),
    Session(SessionInfo),
    Error(String),
    /// A port of the sprite was opened or closed.
    Port(PortChange),
    /// A program in the sprite wants a URL opened.
    Url(WebUrl),
    /// Keep-alives and kinds of messages that this client does not know.
    Nothing,
}

/// The keys of all kinds of text messages that matter here. Codes are read late: other kinds have texts there.
#[derive(Deserialize)]
struct Text {
    r#type: String,
    #[serde(default)]
    exit_code: Option<Value>,
    #[serde(default)]
    code: Option<Value>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

/// Reads one text message. What is not understood says nothing: it never ends a stream.
pub(super) fn read_text(text: &str) -> Event {
    let Ok(message) = serde_json::from_str::<Text>(text) else {
        return Event::Nothing;
    };
    match message.r#type.as_str() {
        "session_info" => serde_json::from_str(text).map_or(Event::Nothing, Event::Session),
        "exit" => {
            let code = message
                .exit_code
                .or(message.code)
                .and_then(|code| code.as_i64());
            code.and_then(|code| i32::try_from(code).ok())
                .map_or(Event::Nothing, |code| {
                    Event::ExitTold(ExitStatus::from_code(code))
                })
        }
        "error" => {
            let told = message.message.or(message.error);
            Event::Error(told.unwrap_or_else(|| "the server reported an error".to_owned()))
        }
        "port_opened" | "port_closed" => read_change(text).map_or(Event::Nothing, Event::Port),
        "open_url" => read_url(text).map_or(Event::Nothing, Event::Url),
        // Keep-alives, and kinds to come.
        _ => Event::Nothing,
    }
}

/// Reads one binary message of a session without a terminal.
pub(super) fn read_binary(mut message: Bytes) -> Event {
    if message.is_empty() {
        return Event::Nothing;
    }
    let stream = message.split_to(1)[0];
    match stream {
        STDOUT => Event::Stdout(message),
        STDERR => Event::Stderr(message),
        EXIT => match message.first() {
            Some(code) => Event::Exit(ExitStatus::from_code(i32::from(*code))),
            // An exit that does not say how is no exit.
            None => Event::Nothing,
        },
        // Streams to come.
        _ => Event::Nothing,
    }
}

/// The message that closes standard input of a session without a terminal.
pub(super) fn stdin_eof() -> Message {
    Message::Binary(Bytes::from_static(&[STDIN_EOF]))
}

/// The bytes of a message that carries `data` to standard input.
pub(super) fn stdin_data(data: &[u8], tty: bool) -> Bytes {
    if tty {
        return Bytes::copy_from_slice(data);
    }
    let mut message = BytesMut::with_capacity(data.len() + 1);
    message.put_u8(STDIN);
    message.put_slice(data);
    message.freeze()
}

/// The message that tells the terminal's new size.
pub(super) fn resize(size: TtySize) -> Message {
    let TtySize { rows, cols } = size;
    Message::text(format!(
        r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#
    ))
}

/// The message that sends a signal to the session's processes.
pub(super) fn signal(signal: &Signal) -> Message {
    // A signal's name has only letters, digits, `+` and `-`.
    Message::text(format!(r#"{{"type":"signal","signal":"{signal}"}}"#))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_read_under_either_key_and_under_both() {
        let exit = Event::ExitTold(ExitStatus::from_code(42));
        for text in [
            r#"{"type":"exit","exit_code":42}"#,
            r#"{"type":"exit","code":42}"#,
            r#"{"type":"exit","exit_code":42,"code":42}"#,
        ] {
            assert_eq!(read_text(text), exit, "{text}");
        }
    }

    #[test]
    fn an_exit_without_a_code_is_no_exit() {
        for text in [
            r#"{"type":"exit"}"#,
            r#"{"type":"exit","exit_code":"0"}"#,
            r#"{"type":"exit","code":1e20}"#,
        ] {
            assert_eq!(read_text(text), Event::Nothing, "{text}");
        }
        assert_eq!(read_binary(Bytes::from_static(&[3])), Event::Nothing);
    }

    #[test]
    fn session_ids_are_texts_or_numbers() {
        for text in [
            r#"{"type":"session_info","session_id":"20","command":"bash","tty":true,"cols":0}"#,
            r#"{"type":"session_info","session_id":20,"command":"bash","tty":true}"#,
        ] {
            let Event::Session(info) = read_text(text) else {
                panic!("{text}")
            };
            assert_eq!((info.id.0, info.tty), (20, true));
        }
    }

    #[test]
    fn nothing_that_a_server_sends_can_break_the_reader() {
        for text in [
            "",
            "{",
            "null",
            "[]",
            r#"{"type":7}"#,
            r#"{"type":"keepalive"}"#,
            r#"{"type":"session_info"}"#,
        ] {
            assert_eq!(read_text(text), Event::Nothing, "{text}");
        }
        for bytes in [&[][..], &[0, 1], &[4], &[9, 9], &[255]] {
            assert_eq!(
                read_binary(Bytes::copy_from_slice(bytes)),
                Event::Nothing,
                "{bytes:?}"
            );
        }
    }
}
