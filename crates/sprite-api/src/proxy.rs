//! A TCP connection to a port of a sprite, over a WebSocket or as an operation of the control socket.
//! Source: behaviour reference §1.6.
//!
//! The client says where to, the server answers, then binary messages are bytes, both ways. WebSockets have no half of
//! an end: a Close ends both directions. A client that sets [`ProxyHello::half_close`], and is answered the same, can
//! end its own direction by [`EOF`], and is told the end of the other one so.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Nothing more comes from whoever says it; a text message. Only between ends that agreed on it.
pub const EOF: &str = r#"{"type":"eof"}"#;

/// In the answer to an upgrade whose query says where to: the address that was connected to, with its port. Bytes follow
/// at once.
pub const TARGET_HEADER: &str = "sprite-proxy-target";

/// Largest message that a server takes from a client of a proxy, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;

/// Where to connect to; the client's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProxyHello {
    /// `localhost`, or an address of the sprite; absent: `localhost`.
    #[serde(default)]
    pub host: String,
    /// 1 to 65,535.
    pub port: u16,
    /// Whether the client knows [`EOF`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub half_close: bool,
}

/// How it went; the server's first message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ProxyAnswer {
    /// The connection is there.
    Connected {
        /// The address that was connected to, with its port.
        target: String,
        /// Whether the server knows [`EOF`] and the client asked for it.
        #[serde(default, skip_serializing_if = "is_false")]
        half_close: bool,
    },
    /// There is no connection; a Close follows.
    Error {
        /// What kind of error, as in the body of any error; `connection_refused` if nobody listens.
        error: String,
        /// For people.
        message: String,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl ProxyAnswer {
    /// The message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("answers have string keys and no failing impls")
    }
}

/// A text message of a client behind its hello.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProxyText {
    /// As [`EOF`].
    Eof,
    /// Over the control socket: the client is done with the operation.
    Release,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.6.
    #[test]
    fn messages_are_as_documented() {
        let hello: ProxyHello =
            serde_json::from_str(r#"{"host":"localhost","port":8080,"keep_alive":true}"#)
                .expect("what SDKs send");
        assert_eq!(
            (hello.host.as_str(), hello.port, hello.half_close),
            ("localhost", 8080, false)
        );
        let connected = ProxyAnswer::Connected {
            target: "10.0.0.1:8080".to_owned(),
            half_close: false,
        };
        assert_eq!(
            connected.to_json(),
            r#"{"status":"connected","target":"10.0.0.1:8080"}"#
        );
        assert_eq!(
            serde_json::from_str::<ProxyText>(EOF).ok(),
            Some(ProxyText::Eof)
        );
    }
}
