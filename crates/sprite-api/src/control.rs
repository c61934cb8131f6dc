//! The control socket's envelopes: operations one after the other over one WebSocket.
//! Source: behaviour reference §1.5, §11.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::query::Query;

/// What a text message begins with if it is an envelope.
pub const PREFIX: &str = "control:";

/// How envelopes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// Behind [`PREFIX`].
    Prefixed,
    /// As they are.
    Bare,
}

/// An envelope from the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEnvelope {
    /// Start an operation.
    Start {
        /// Its name: `exec`, …
        op: String,
        /// What it is asked with, as a query.
        args: Query,
    },
    /// The client is done with the operation; nothing is answered.
    Release,
    /// Something else.
    Unknown {
        /// What it called itself, cut to 80 characters.
        kind: String,
    },
}

/// What an envelope calls itself.
#[derive(Deserialize)]
struct Kind {
    #[serde(default, rename = "type")]
    kind: String,
}

/// An envelope that is known.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type")]
enum RawEnvelope {
    /// Start an operation.
    #[serde(rename = "op.start")]
    OpStart {
        /// `exec`, `proxy`, or `fs.` and what is done to files.
        #[serde(default)]
        op: String,
        /// What the same operation has in its query elsewhere: an object of texts and lists of texts, or a query.
        #[serde(default)]
        args: RawArgs,
    },
    /// The same in the other dialect.
    #[serde(rename = "start")]
    Start {
        /// As `op`.
        #[serde(default)]
        operation: String,
        /// As `args`.
        #[serde(default)]
        params: RawArgs,
    },
    /// The client is done with the operation.
    #[serde(rename = "release")]
    Release {},
}

/// Arguments as the SDKs write them: an object of texts and lists of texts, or a query string.
#[derive(Default, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = OperationArguments)]
enum RawArgs {
    Query(String),
    Map(BTreeMap<String, RawArg>),
    #[default]
    None,
}

/// One argument.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = OperationArgument)]
enum RawArg {
    Text(String),
    Switch(bool),
    Number(f64),
    List(Vec<String>),
    Null,
}

impl PartialSchema for ClientEnvelope {
    fn schema() -> RefOr<Schema> {
        RawEnvelope::schema()
    }
}

impl ToSchema for ClientEnvelope {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        RawEnvelope::schemas(schemas);
    }
}

impl ClientEnvelope {
    /// Reads the JSON of an envelope (without [`PREFIX`]). `None` if it is not JSON of that shape.
    #[must_use]
    pub fn parse(json: &str) -> Option<Self> {
        // serde would read a list into the struct as well.
        let object = json.trim_start().starts_with('{');
        let Kind { kind } = object.then(|| serde_json::from_str(json).ok())??;
        if !["op.start", "start", "release"].contains(&kind.as_str()) {
            let kind = kind.chars().take(80).collect();
            return Some(Self::Unknown { kind });
        }
        let (op, args) = match serde_json::from_str(json).ok()? {
            RawEnvelope::OpStart { op, args } => (op, args),
            RawEnvelope::Start { operation, params } => (operation, params),
            RawEnvelope::Release {} => return Some(Self::Release),
        };
        let args = args.into_query()?;
        Some(Self::Start { op, args })
    }
}

impl RawArgs {
    fn into_query(self) -> Option<Query> {
        let map = match self {
            Self::Query(text) => return Query::parse(&text).ok(),
            Self::None => return Some(Query::default()),
            Self::Map(map) => map,
        };
        let mut pairs = Vec::new();
        for (key, value) in map {
            match value {
                RawArg::Text(text) => pairs.push((key, text)),
                RawArg::Switch(on) => pairs.push((key, on.to_string())),
                RawArg::Number(number) => pairs.push((key, number.to_string())),
                RawArg::List(texts) => {
                    pairs.extend(texts.into_iter().map(|text| (key.clone(), text)))
                }
                RawArg::Null => {}
            }
        }
        Some(Query::from_pairs(pairs))
    }
}

/// An envelope from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", content = "args")]
pub enum ServerEnvelope {
    /// The operation ended.
    #[serde(rename = "op.complete")]
    Complete {
        /// Exit status of an exec.
        #[serde(rename = "exitCode")]
        exit_code: u8,
    },
    /// The operation could not be done, or not to its end.
    #[serde(rename = "op.error")]
    Error {
        /// For people.
        error: String,
    },
}

impl ServerEnvelope {
    /// The envelope as a text message.
    #[must_use]
    pub fn to_text(&self, envelope: Envelope) -> String {
        let json =
            serde_json::to_string(self).expect("envelopes have string keys and no failing impls");
        match envelope {
            Envelope::Prefixed => format!("{PREFIX}{json}"),
            Envelope::Bare => json,
        }
    }
}

/// What is said before the bytes of a file that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    /// The file, absolute, links at its end resolved.
    pub path: String,
    /// Bytes that it has; null of files of the kernel, which tell none.
    pub size: Option<u64>,
    /// The first byte that follows.
    pub offset: u64,
    /// Bytes that follow; null with `size`.
    pub length: Option<u64>,
    /// Four octal digits.
    pub mode: String,
}

/// What is said before the bytes of a file that is written can come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Writing {
    /// The file, absolute, links at its end resolved.
    pub path: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.5: what JavaScript and Python send.
    #[test]
    fn arguments_become_a_query() {
        let start = ClientEnvelope::parse(
            r#"{"type":"op.start","op":"exec","args":{"cmd":["ls","-la"],"env":["K=V"],"tty":"true","rows":24,
                "stdin":true,"dir":null}}"#,
        );
        let Some(ClientEnvelope::Start { op, args }) = start else {
            panic!("an op.start");
        };
        assert_eq!(op, "exec");
        assert_eq!(args.all("cmd").collect::<Vec<_>>(), ["ls", "-la"]);
        assert_eq!(args.switch("tty"), Some(Ok(true)));
        assert_eq!(args.get("rows"), Some("24"));
        assert_eq!(args.get("dir"), None);
    }

    /// Behaviour reference §1.5: the Go dialect sends arguments as a query string.
    #[test]
    fn arguments_may_be_a_query_already() {
        let start =
            ClientEnvelope::parse(r#"{"type":"op.start","op":"fs.read","args":"path=%2Fa"}"#);
        let Some(ClientEnvelope::Start { args, .. }) = start else {
            panic!("an op.start");
        };
        assert_eq!(args.get("path"), Some("/a"));
    }

    /// Behaviour reference §1.5: how the Go dialect starts a proxy.
    #[test]
    fn a_start_without_a_prefix_is_one() {
        let start = ClientEnvelope::parse(
            r#"{"type":"start","operation":"proxy","params":{"host":"localhost","port":80,"keep_alive":true}}"#,
        );
        let Some(ClientEnvelope::Start { op, args }) = start else {
            panic!("a start");
        };
        assert_eq!((op.as_str(), args.get("port")), ("proxy", Some("80")));
    }

    #[test]
    fn strangers_are_told_apart_from_garbage() {
        assert_eq!(
            ClientEnvelope::parse(r#"{"type":"release"}"#),
            Some(ClientEnvelope::Release)
        );
        assert_eq!(
            ClientEnvelope::parse(r#"{"type":"dial"}"#),
            Some(ClientEnvelope::Unknown {
                kind: "dial".to_owned()
            })
        );
        for garbage in [
            "",
            "[]",
            "{",
            r#"{"type":5}"#,
            r#"{"type":"op.start","args":[1]}"#,
        ] {
            assert_eq!(ClientEnvelope::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn answers_are_as_documented() {
        assert_eq!(
            ServerEnvelope::Complete { exit_code: 0 }.to_text(Envelope::Prefixed),
            r#"control:{"type":"op.complete","args":{"exitCode":0}}"#
        );
        assert_eq!(
            ServerEnvelope::Error {
                error: "no".to_owned()
            }
            .to_text(Envelope::Prefixed),
            r#"control:{"type":"op.error","args":{"error":"no"}}"#
        );
    }
}
