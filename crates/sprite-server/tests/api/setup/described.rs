//! What goes over a stream, held against the description of streams: everything that a test's client reads must be
//! told there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The description.
pub(crate) static STREAMS: LazyLock<Streams> = LazyLock::new(Streams::read);

/// Every channel by its name.
pub(crate) struct Streams {
    channels: BTreeMap<String, Channel>,
}

/// A channel, and what each side can say on it.
pub(crate) struct Channel {
    framing: String,
    address: Vec<String>,
    pub(crate) client: Vec<Described>,
    pub(crate) server: Vec<Described>,
}

/// A message as it is described.
pub(crate) struct Described {
    pub(crate) name: String,
    mode: Option<String>,
    body: Body,
}

enum Body {
    Json {
        prefixes: Vec<String>,
        schema: Box<Validator>,
    },
    Bytes(Vec<Part>),
}

struct Part {
    bytes: Option<usize>,
    value: Option<u8>,
}

impl Streams {
    fn read() -> Self {
        let document: Value = serde_json::from_str(&sprite_server::document_of_streams()).unwrap();
        let channels = document["channels"].as_object().unwrap();
        let channels = channels.iter().map(|(name, channel)| {
            let address = channel["address"].as_str().unwrap();
            let channel = Channel {
                framing: channel["x-framing"].as_str().unwrap().to_owned(),
                address: address.split('/').map(str::to_owned).collect(),
                client: messages(&document, &format!("{name}.receive")),
                server: messages(&document, &format!("{name}.send")),
            };
            (name.clone(), channel)
        });
        Self {
            channels: channels.collect(),
        }
    }

    /// The channel of this framing at a path, if there is one.
    pub(crate) fn at(&self, path: &str, framing: &str) -> Option<(&str, &Channel)> {
        let path: Vec<&str> = path
            .split('?')
            .next()
            .unwrap_or_default()
            .split('/')
            .collect();
        let fits = |channel: &Channel| {
            let mut pairs = channel.address.iter().zip(&path);
            channel.framing == framing
                && channel.address.len() == path.len()
                && pairs.all(|(part, given)| part.starts_with('{') || part == given)
        };
        let mut all = self.channels.iter();
        all.find(|(_, channel)| fits(channel))
            .map(|(name, channel)| (name.as_str(), channel))
    }

    /// Every message that a server can say over WebSockets, as `channel message`.
    pub(crate) fn of_sockets(&self) -> BTreeSet<String> {
        let sockets = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.framing == "websocket");
        let told = sockets.flat_map(|(name, channel)| {
            channel
                .server
                .iter()
                .map(move |message| format!("{name} {}", message.name))
        });
        told.collect()
    }
}

fn messages(document: &Value, operation: &str) -> Vec<Described> {
    let references = document["operations"][operation]["messages"].as_array();
    let messages = references.into_iter().flatten().map(|reference| {
        let within = follow(document, reference);
        let message = follow(document, within);
        let name = within["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let texts = |value: &Value| {
            let texts = value.as_array().into_iter().flatten();
            texts
                .map(|text| text.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let body = match message["x-layout"].as_array() {
            Some(layout) => Body::Bytes(layout.iter().map(part).collect()),
            None => {
                // With every field told: one more that nobody described is a difference too.
                let schema = json!({
                    "components": {"schemas": document["components"]["schemas"]},
                    "allOf": [message["payload"]],
                    "unevaluatedProperties": false,
                });
                let prefixes = texts(&message["x-prefix"]);
                let none = prefixes.is_empty().then(String::new);
                Body::Json {
                    prefixes: prefixes.into_iter().chain(none).collect(),
                    schema: Box::new(jsonschema::validator_for(&schema).unwrap()),
                }
            }
        };
        Described {
            name: name.to_owned(),
            mode: message["x-mode"].as_str().map(str::to_owned),
            body,
        }
    });
    messages.collect()
}

fn part(part: &Value) -> Part {
    let number = |key: &str| part[key].as_u64().map(|n| usize::try_from(n).unwrap());
    Part {
        bytes: number("bytes"),
        value: number("value").map(|value| u8::try_from(value).unwrap()),
    }
}

fn follow<'a>(document: &'a Value, reference: &Value) -> &'a Value {
    let path = reference["$ref"]
        .as_str()
        .unwrap()
        .strip_prefix('#')
        .unwrap();
    document
        .pointer(path)
        .unwrap_or_else(|| panic!("{path} leads nowhere"))
}

impl Channel {
    /// The messages of the server that a text may be.
    pub(crate) fn text(&self, text: &str) -> Vec<&str> {
        fitting(&self.server, |message| message.is_text(text))
    }

    /// The messages of the server that bytes may be, of these modes.
    pub(crate) fn bytes(&self, bytes: &[u8], modes: &[&str]) -> Vec<&str> {
        fitting(&self.server, |message| {
            let mode = message.mode.as_deref();
            mode.is_none_or(|mode| modes.contains(&mode)) && message.is_bytes(bytes)
        })
    }

    /// The messages of the client that a text may be.
    pub(crate) fn said(&self, text: &str) -> Vec<&str> {
        fitting(&self.client, |message| message.is_text(text))
    }
}

fn fitting(messages: &[Described], fits: impl Fn(&Described) -> bool) -> Vec<&str> {
    let fitting = messages.iter().filter(|message| fits(message));
    fitting.map(|message| message.name.as_str()).collect()
}

impl Described {
    fn is_text(&self, text: &str) -> bool {
        let Body::Json { prefixes, schema } = &self.body else {
            return false;
        };
        let jsons = prefixes
            .iter()
            .filter_map(|prefix| text.strip_prefix(prefix));
        let mut values = jsons.filter_map(|json| serde_json::from_str::<Value>(json).ok());
        values.any(|value| schema.is_valid(&value))
    }

    fn is_bytes(&self, mut bytes: &[u8]) -> bool {
        let Body::Bytes(parts) = &self.body else {
            return false;
        };
        for part in parts {
            let Some((front, rest)) = bytes.split_at_checked(part.bytes.unwrap_or(bytes.len()))
            else {
                return false;
            };
            if part.value.is_some_and(|value| front != [value]) {
                return false;
            }
            bytes = rest;
        }
        bytes.is_empty()
    }
}
