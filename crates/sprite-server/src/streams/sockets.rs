//! Which messages go over which WebSocket, and over answers in frames.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sprite_api::control::{ClientEnvelope, PREFIX, Reading, ServerEnvelope, Writing};
use sprite_api::exec::{self, ClientText, ServerText, StreamId};
use sprite_api::fs;
use sprite_api::ports::PortMessage;
use sprite_api::proxy::{ProxyAnswer, ProxyHello, ProxyText};
use utoipa::ToSchema;

use super::messages::{Message, Mode, Part};

/// Operations whose answer is frames, one a chunk.
pub(super) const CHUNKED: &[&str] = &["exec_http"];

/// What both sides say on a stream.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) client: Vec<Message>,
    pub(super) server: Vec<Message>,
    /// The schemas of the types that messages are of, and of those that they name.
    pub(super) schemas: BTreeMap<String, Value>,
}

/// What goes over the WebSocket, or the answer in frames, of an operation.
pub(super) fn exchange(operation: &str) -> Exchange {
    let mut exchange = Exchange::default();
    match operation {
        "exec" | "attach" => exchange.session(),
        "control" => {
            exchange.session();
            exchange.control();
        }
        "proxy" => exchange.proxy(),
        "watch_ports" => {
            exchange.server = exchange.texts::<PortMessage>();
        }
        "fs_watch" => {
            exchange.client = exchange.texts::<fs::WatchRequest>();
            exchange.server = exchange.texts::<fs::WatchMessage>();
        }
        "exec_http" => exchange.server = output("chunk"),
        unknown => unreachable!("the stream of {unknown} is not described"),
    }
    exchange
}

/// What a Close of the server means on the WebSocket of an operation.
pub(super) fn close_codes(operation: &str) -> Value {
    let mut codes = json!({
        exec::CLOSE_OK.to_string(): "It ended as it should.",
        exec::CLOSE_GOING_AWAY.to_string(): "The server stops, or the sprite falls asleep.",
        exec::CLOSE_PROTOCOL.to_string(): "The client broke the protocol.",
        exec::CLOSE_NOT_TEXT.to_string(): "A text message of the client was not UTF-8.",
        exec::CLOSE_TOO_BIG.to_string(): "A message of the client was too big.",
        exec::CLOSE_LOST.to_string(): "The machine ended in the middle, or there is no connection.",
    });
    if ["exec", "attach"].contains(&operation) {
        let failed = format!("{}-{}", exec::close_code(1), exec::close_code(u8::MAX));
        codes[failed] = "A session with a terminal ended: 4000 and its exit status.".into();
    }
    codes
}

/// Output of a session without a terminal; `within` is what its names begin with.
fn output(within: &str) -> Vec<Message> {
    let of = |name: &str, summary, stream: StreamId, rest| {
        let layout = vec![Part::stream(stream.byte()), rest];
        Message::bytes(&format!("{within}.{name}"), summary, layout)
    };
    let last = "The exit status; nothing of the session comes behind it";
    vec![
        of("stdout", "Bytes of stdout", StreamId::Stdout, Part::data()),
        of("stderr", "Bytes of stderr", StreamId::Stderr, Part::data()),
        of("exit", last, StreamId::Exit, Part::byte("status")),
    ]
}

/// Bytes as they are.
fn raw(name: &str, summary: &'static str) -> Message {
    Message::bytes(name, summary, vec![Part::data()])
}

impl Exchange {
    /// The messages of a type: each variant is one.
    fn texts<T: ToSchema>(&mut self) -> Vec<Message> {
        let mut named = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut named);
        for (name, schema) in named {
            let schema = serde_json::to_value(schema).expect("schemas have string keys");
            self.schemas.insert(name, schema);
        }
        let name = T::name();
        Message::texts(&name, &self.schemas[name.as_ref()])
    }

    /// Some of the messages of a type.
    fn some<T: ToSchema>(&mut self, tags: &[&str]) -> Vec<Message> {
        let mut all = self.texts::<T>();
        all.retain(|message| {
            tags.iter()
                .any(|tag| message.name.ends_with(&format!(".{tag}")))
        });
        all
    }

    fn session(&mut self) {
        self.client = self.texts::<ClientText>();
        let stdin = vec![Part::stream(StreamId::Stdin.byte()), Part::data()];
        let eof = vec![Part::stream(StreamId::StdinEof.byte())];
        self.client.extend([
            Message::bytes("binary.stdin", "Bytes for stdin", stdin).of(Mode::Pipes),
            Message::bytes("binary.stdin_eof", "No more stdin", eof).of(Mode::Pipes),
            raw("binary.typed", "Bytes for the terminal").of(Mode::Terminal),
        ]);
        self.server = self.texts::<ServerText>();
        let ports = self.some::<PortMessage>(&["port_opened", "port_closed"]);
        self.server.extend(ports);
        self.server.extend(
            output("binary")
                .into_iter()
                .map(|message| message.of(Mode::Pipes)),
        );
        self.server
            .push(raw("binary.shown", "Bytes that the terminal shows").of(Mode::Terminal));
    }

    fn control(&mut self) {
        // What ends without an exit is told by an envelope there, and nobody is asked to open anything.
        let unsaid = ["ServerText.error", "ServerText.open_url"];
        self.server
            .retain(|message| !unsaid.contains(&message.name.as_str()));
        let either = |message: Message| message.behind(&[PREFIX, ""]);
        let envelopes = self.texts::<ClientEnvelope>();
        self.client.extend(envelopes.into_iter().map(either));
        let eof = self.some::<ProxyText>(&["eof"]);
        self.client.extend(eof);
        self.client.push(
            raw(
                "control.sent",
                "Bytes for a port, or of a file that is written",
            )
            .of(Mode::Bytes),
        );
        let envelopes = self.texts::<ServerEnvelope>();
        self.server.extend(envelopes.into_iter().map(either));
        let results = [
            self.texts::<ProxyAnswer>(),
            self.texts::<Reading>(),
            self.texts::<Writing>(),
            self.texts::<fs::Written>(),
            self.texts::<fs::Listing>(),
            self.texts::<fs::Deleted>(),
            self.texts::<fs::Moved>(),
            self.texts::<fs::Copied>(),
            self.texts::<fs::ModesChanged>(),
            self.texts::<fs::OwnersChanged>(),
        ];
        self.server.extend(results.into_iter().flatten());
        self.server.push(
            raw(
                "control.received",
                "Bytes of a port, or of a file that is read",
            )
            .of(Mode::Bytes),
        );
    }

    fn proxy(&mut self) {
        self.client = self.texts::<ProxyHello>();
        let eof = self.some::<ProxyText>(&["eof"]);
        self.client.extend(eof.clone());
        self.client.push(raw("port.sent", "Bytes for the port"));
        self.server = self.texts::<ProxyAnswer>();
        self.server.extend(eof);
        self.server.push(raw("port.received", "Bytes of the port"));
    }
}
