//! Messages, as the description of streams tells them.

use serde_json::{Value, json};

/// A message that one side can say.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) name: String,
    payload: Payload,
    /// What it is said in; absent: in all of them.
    mode: Option<Mode>,
}

/// What binary messages are just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Streams of a session without a terminal.
    Pipes,
    /// A session's terminal.
    Terminal,
    /// A port or a file, over the control socket.
    Bytes,
}

#[derive(Debug, Clone)]
enum Payload {
    Json {
        schema: Value,
        /// What may stand before the JSON.
        prefixes: &'static [&'static str],
    },
    Bytes {
        summary: &'static str,
        layout: Vec<Part>,
    },
}

/// A part of a binary message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    name: &'static str,
    /// How many bytes; absent: all that is left.
    bytes: Option<u8>,
    /// The only value of its one byte.
    value: Option<u8>,
}

impl Part {
    /// One byte that tells which stream the rest is of.
    pub(super) fn stream(value: u8) -> Self {
        Self {
            name: "stream",
            bytes: Some(1),
            value: Some(value),
        }
    }

    /// One byte of any value.
    pub(super) fn byte(name: &'static str) -> Self {
        Self {
            name,
            bytes: Some(1),
            value: None,
        }
    }

    /// All that is left.
    pub(super) fn data() -> Self {
        Self {
            name: "data",
            bytes: None,
            value: None,
        }
    }
}

impl Message {
    /// The messages that a schema is of: each of its variants, or itself.
    pub(super) fn texts(name: &str, schema: &Value) -> Vec<Self> {
        let text = |name: String, schema: &Value| Self {
            name,
            payload: Payload::Json {
                schema: schema.clone(),
                prefixes: &[],
            },
            mode: None,
        };
        match schema["oneOf"].as_array() {
            Some(variants) => variants
                .iter()
                .map(|variant| {
                    let tag = tag(variant).expect("variants are told apart by their tags");
                    text(format!("{name}.{tag}"), variant)
                })
                .collect(),
            None => vec![text(name.to_owned(), schema)],
        }
    }

    /// A binary message.
    pub(super) fn bytes(name: &str, summary: &'static str, layout: Vec<Part>) -> Self {
        Self {
            name: name.to_owned(),
            payload: Payload::Bytes { summary, layout },
            mode: None,
        }
    }

    /// Only in this.
    pub(super) fn of(self, mode: Mode) -> Self {
        let mode = Some(mode);
        Self { mode, ..self }
    }

    /// With one of these before the JSON.
    pub(super) fn behind(mut self, before: &'static [&'static str]) -> Self {
        if let Payload::Json { prefixes, .. } = &mut self.payload {
            *prefixes = before;
        }
        self
    }

    /// The message in the document.
    pub(super) fn told(&self) -> Value {
        let mut told = match &self.payload {
            Payload::Json { schema, prefixes } => {
                let mut told = json!({"contentType": "application/json", "payload": schema});
                if let Some(summary) = schema["description"].as_str() {
                    told["summary"] = summary.lines().next().into();
                }
                if !prefixes.is_empty() {
                    told["x-prefix"] = json!(prefixes);
                }
                told
            }
            Payload::Bytes { summary, layout } => {
                let layout: Vec<Value> = layout.iter().map(Part::told).collect();
                json!({
                    "contentType": "application/octet-stream",
                    "summary": summary,
                    "payload": {"type": "string", "format": "binary"},
                    "x-layout": layout,
                })
            }
        };
        if let Some(mode) = self.mode {
            let name = match mode {
                Mode::Pipes => "pipes",
                Mode::Terminal => "terminal",
                Mode::Bytes => "bytes",
            };
            told["x-mode"] = name.into();
        }
        told
    }
}

impl Part {
    fn told(&self) -> Value {
        let mut told = json!({"name": self.name});
        if let Some(bytes) = self.bytes {
            told["bytes"] = bytes.into();
        }
        if let Some(value) = self.value {
            told["value"] = value.into();
        }
        told
    }
}

/// The text by which a variant is told apart from others: the only value of its field `type` or `status`.
fn tag(variant: &Value) -> Option<&str> {
    let parts = variant["allOf"].as_array();
    let mut all = parts.into_iter().flatten().chain([variant]);
    all.find_map(|part| {
        ["type", "status"].iter().find_map(|field| {
            let values = part["properties"][*field]["enum"].as_array()?;
            values.first()?.as_str()
        })
    })
}
