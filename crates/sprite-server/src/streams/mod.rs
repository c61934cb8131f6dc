//! The description of what goes over this API's streams, made from the code.
//!
//! OpenAPI ends where an answer begins to be a stream. What comes then is told in AsyncAPI 3.0: one channel for each
//! WebSocket, each NDJSON answer and each answer in frames. Addresses, parameters and words are those of the OpenAPI
//! document, schemas those of the types that are read and written; an NDJSON answer that OpenAPI tells of is a channel
//! by that alone. Only what goes over a WebSocket, and how bytes are laid out, is said here, in `sockets`.
//!
//! What AsyncAPI has no words for stands in extensions:
//!
//! | key | where | means |
//! |---|---|---|
//! | `x-framing` | channel | what a message is: a message of a `websocket`, a `line`, or a `chunk` of HTTP/1.1 |
//! | `x-subprotocol` | channel | always null: none is agreed on, nor any extension of WebSockets |
//! | `x-close-codes` | channel | what a Close of the server means |
//! | `x-prefix` | text message | what stands before the JSON: one of these |
//! | `x-layout` | binary message | its parts in order: of so many bytes, or all that is left; with a value, or any |
//! | `x-mode` | message | only of sessions with a terminal (`terminal`) or without one (`pipes`), or of other operations (`bytes`) |

mod messages;
mod sockets;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use self::messages::Message;
use self::sockets::Exchange;
use crate::openapi;

/// The description, as it is kept in `openapi/streams.json`.
///
/// # Panics
/// Never: it is built from constants.
#[must_use]
pub fn document() -> String {
    let outside = Contract::new("server", openapi::outside());
    let inside = Contract::new("inside", openapi::inside());
    let mut parts = Parts::default();
    for contract in [&outside, &inside] {
        for route in contract.routes() {
            parts.add(contract, &route);
        }
    }
    let schemas = parts.schemas(&[&outside, &inside]);
    let document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "sprited: streams",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What goes over the WebSockets and the streamed answers of the API. The keys that begin with \
                `x-` are told in the book, on the page about streams.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "server": {
                "host": "{host}",
                "protocol": "ws",
                "description": "The API of a server; `wss` and `https` behind TLS",
                "variables": {"host": {"default": "localhost:7774", "description": "Name and port of the server"}},
                "security": [{"$ref": "#/components/securitySchemes/token"}],
            },
            "inside": {
                "host": "localhost",
                "protocol": "http",
                "description": "Inside a sprite: the Unix socket `/.sprite/api.sock`, without a token",
            },
        },
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {
            "messages": parts.messages,
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    });
    let mut text = serde_json::to_string_pretty(&document).expect("the document has string keys");
    text.push('\n');
    text
}

/// One of the two APIs, as OpenAPI tells it.
struct Contract {
    /// Name of its server in the document.
    server: &'static str,
    openapi: Value,
}

/// A route that is a stream.
struct Route<'a> {
    method: &'a str,
    path: &'a str,
    operation: &'a Value,
    id: &'a str,
    kind: Kind,
}

/// How a route streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Messages of a WebSocket.
    Socket,
    /// Lines of JSON.
    Lines,
    /// Chunks of a chunked body.
    Chunks,
}

impl Contract {
    fn new(server: &'static str, openapi: utoipa::openapi::OpenApi) -> Self {
        let openapi = serde_json::to_value(openapi).expect("the document has string keys");
        Self { server, openapi }
    }

    fn routes(&self) -> Vec<Route<'_>> {
        let paths = self.openapi["paths"].as_object().into_iter().flatten();
        let operations = paths.flat_map(|(path, item)| {
            let methods = item.as_object().into_iter().flatten();
            methods.map(move |(method, operation)| (path, method, operation))
        });
        let mut routes = Vec::new();
        for (path, method, operation) in operations {
            let id = operation["operationId"].as_str().unwrap_or_default();
            for kind in kinds(operation, id) {
                routes.push(Route {
                    method,
                    path,
                    operation,
                    id,
                    kind,
                });
            }
        }
        routes
    }
}

fn kinds(operation: &Value, id: &str) -> Vec<Kind> {
    let responses = &operation["responses"];
    let mut kinds = Vec::new();
    if responses["101"].is_object() {
        kinds.push(Kind::Socket);
    }
    if responses["200"]["content"][sprite_api::NDJSON].is_object() {
        kinds.push(Kind::Lines);
    }
    if sockets::CHUNKED.contains(&id) {
        kinds.push(Kind::Chunks);
    }
    kinds
}

/// The parts of the document that grow with each route.
#[derive(Default)]
struct Parts {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    /// Schemas that are known, whether the document needs them or not.
    known: BTreeMap<String, Value>,
}

impl Parts {
    fn add(&mut self, contract: &Contract, route: &Route<'_>) {
        let exchange = match route.kind {
            Kind::Socket | Kind::Chunks => sockets::exchange(route.id),
            Kind::Lines => {
                let schema = &route.operation["responses"]["200"]["content"][sprite_api::NDJSON];
                Exchange::lines(&contract.openapi, &schema["schema"])
            }
        };
        let name = match contract.server {
            "inside" => format!("inside.{}", route.id),
            _ => route.id.to_owned(),
        };
        let mut channel = channel(contract, route);
        let mut told = Map::new();
        let sides = [("receive", &exchange.client), ("send", &exchange.server)];
        for (action, side) in sides {
            let mut references = Vec::new();
            for message in side {
                told.insert(
                    message.name.clone(),
                    reference("components/messages", &message.name),
                );
                let within = format!("channels/{name}/messages");
                references.push(reference(&within, &message.name));
                let before = self.messages.insert(message.name.clone(), message.told());
                debug_assert!(
                    before.is_none_or(|before| before == message.told()),
                    "two messages are called {}",
                    message.name
                );
            }
            if references.is_empty() {
                continue;
            }
            let mut operation = json!({
                "action": action,
                "channel": reference("channels", &name),
                "messages": references,
            });
            if route.kind != Kind::Socket {
                let http = json!({"method": route.method.to_uppercase(), "query": query(route), "bindingVersion": "0.3.0"});
                operation["bindings"] = json!({ "http": http });
            }
            self.operations
                .insert(format!("{name}.{action}"), operation);
        }
        channel["messages"] = Value::Object(told);
        self.channels.insert(name, channel);
        self.known.extend(exchange.schemas);
    }

    /// The schemas that messages lead to.
    fn schemas(&self, contracts: &[&Contract]) -> Map<String, Value> {
        let find = |name: &str| {
            let own = self.known.get(name);
            let path = format!("/components/schemas/{name}");
            own.or_else(|| {
                contracts
                    .iter()
                    .find_map(|contract| contract.openapi.pointer(&path))
            })
        };
        let mut wanted = BTreeSet::new();
        for message in self.messages.values() {
            references(message, &mut wanted);
        }
        let mut schemas = Map::new();
        while let Some(name) = wanted.pop_first() {
            let schema = find(&name).expect("a schema that is named is described");
            let mut further = BTreeSet::new();
            references(schema, &mut further);
            schemas.insert(name, schema.clone());
            wanted.extend(
                further
                    .into_iter()
                    .filter(|name| !schemas.contains_key(name)),
            );
        }
        schemas
    }
}

fn channel(contract: &Contract, route: &Route<'_>) -> Value {
    let parameters: Map<String, Value> = in_place(route, "path")
        .map(|parameter| {
            let description = json!({"description": parameter["description"]});
            (name_of(parameter), description)
        })
        .collect();
    let words = |key: &str| route.operation[key].as_str().unwrap_or_default().trim();
    let mut channel = json!({
        "address": route.path,
        "title": words("summary"),
        "description": words("description"),
        "servers": [reference("servers", contract.server)],
        "x-framing": match route.kind {
            Kind::Socket => "websocket",
            Kind::Lines => "line",
            Kind::Chunks => "chunk",
        },
    });
    if !parameters.is_empty() {
        channel["parameters"] = Value::Object(parameters);
    }
    if route.kind == Kind::Socket {
        let ws = json!({"method": route.method.to_uppercase(), "query": query(route), "bindingVersion": "0.1.0"});
        channel["bindings"] = json!({ "ws": ws });
        channel["x-subprotocol"] = Value::Null;
        channel["x-close-codes"] = sockets::close_codes(route.id);
    }
    channel
}

fn in_place<'a>(route: &Route<'a>, place: &str) -> impl Iterator<Item = &'a Value> {
    let parameters = route.operation["parameters"].as_array();
    parameters
        .into_iter()
        .flatten()
        .filter(move |parameter| parameter["in"] == place)
}

fn name_of(parameter: &Value) -> String {
    parameter["name"].as_str().unwrap_or_default().to_owned()
}

/// The parameters of a query, as a schema.
fn query(route: &Route<'_>) -> Value {
    let properties: Map<String, Value> = in_place(route, "query")
        .map(|parameter| {
            let mut schema = parameter["schema"].clone();
            schema["description"] = parameter["description"].clone();
            (name_of(parameter), schema)
        })
        .collect();
    json!({"type": "object", "properties": properties})
}

fn reference(place: &str, name: &str) -> Value {
    json!({"$ref": format!("#/{place}/{name}")})
}

/// The names of schemas that `value` refers to.
fn references(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = value
                    .as_str()
                    .filter(|_| key == "$ref")
                    .and_then(|path| path.strip_prefix("#/components/schemas/"));
                names.extend(name.map(str::to_owned));
                references(value, names);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl Exchange {
    /// What goes over an answer of lines, by its schema in OpenAPI.
    fn lines(openapi: &Value, schema: &Value) -> Self {
        let path = schema["$ref"]
            .as_str()
            .and_then(|path| path.strip_prefix('#'));
        let name = path.and_then(|path| path.rsplit('/').next());
        let found = path.and_then(|path| openapi.pointer(path));
        Self {
            server: Message::texts(name.unwrap_or("line"), found.unwrap_or(schema)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kept_document_is_not_stale() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/streams.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == document(),
            "openapi/streams.json is stale: run `cargo run -p sprite-server --example openapi`"
        );
    }

    /// A WebSocket without messages would be described by saying nothing.
    #[test]
    fn every_stream_has_messages() {
        let document: Value = serde_json::from_str(&document()).expect("it is JSON");
        let channels = document["channels"]
            .as_object()
            .expect("there are channels");
        for (name, channel) in channels {
            let messages = channel["messages"].as_object().expect("an object");
            assert!(!messages.is_empty(), "{name} says nothing");
        }
        for framing in ["websocket", "line", "chunk"] {
            let some = channels
                .values()
                .any(|channel| channel["x-framing"] == framing);
            assert!(some, "no channel of framing {framing}");
        }
    }
}
