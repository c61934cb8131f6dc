//! A WebSocket client that writes down what it sees.

use std::collections::BTreeSet;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::described::{Channel, STREAMS};
use super::http::{self, Head};
use super::{SOON, Server};

/// What a server said, in order. Neighbouring output of one stream is laid together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Info(Value),
    Stdout(String),
    Stderr(String),
    Terminal(String),
    TextExit(i64),
    Exit(u8),
    Control(Value),
    Text(Value),
    Close(u16),
    Gone,
}

/// A client's end.
pub(crate) struct Ws {
    io: WebSocketStream<TcpStream>,
    pub(crate) head: Head,
    tty: bool,
    name: &'static str,
    channel: &'static Channel,
    /// What the server said, as `channel message` of the description of streams.
    pub(crate) told: BTreeSet<String>,
}

impl Server {
    /// Upgrades, or comes back with the answer's head.
    pub(crate) async fn try_ws(&self, path: &str) -> Result<Ws, Head> {
        self.ws_with(path, &[]).await
    }

    pub(crate) async fn ws(&self, path: &str) -> Ws {
        self.try_ws(path).await.expect("an upgrade")
    }

    pub(crate) async fn ws_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Ws, Head> {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        let mut io = BufReader::new(tcp);
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Bearer {}\r\n",
            self.addr, self.test.token
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let head = http::read_head(&mut io).await;
        if head.status != 101 {
            return Err(head);
        }
        assert_eq!(
            head.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let read = io.buffer().to_vec();
        let io =
            WebSocketStream::from_partially_read(io.into_inner(), read, Role::Client, None).await;
        let (name, channel) = STREAMS
            .at(path, "websocket")
            .unwrap_or_else(|| panic!("the WebSocket at {path} is not described"));
        Ok(Ws {
            io,
            head,
            tty: path.contains("tty=true"),
            name,
            channel,
            told: BTreeSet::new(),
        })
    }
}

impl Ws {
    /// The same socket, whose binary messages are a terminal's.
    pub(crate) fn terminal(mut self) -> Self {
        self.tty = true;
        self
    }

    /// The same socket, whose binary messages are those of three streams.
    pub(crate) fn pipes(mut self) -> Self {
        self.tty = false;
        self
    }

    pub(crate) async fn send_text(&mut self, text: Value) {
        self.io.send(Message::text(text.to_string())).await.unwrap();
    }

    pub(crate) async fn send_binary(&mut self, bytes: impl Into<Vec<u8>>) {
        self.io.send(Message::binary(bytes.into())).await.unwrap();
    }

    pub(crate) async fn stdin(&mut self, text: &str) {
        self.send_binary([&[0], text.as_bytes()].concat()).await;
    }

    pub(crate) async fn eof(&mut self) {
        self.send_binary([4]).await;
    }

    pub(crate) async fn start(&mut self, args: Value) {
        let envelope = json!({"type": "op.start", "op": "exec", "args": args});
        self.io
            .send(Message::text(format!("control:{envelope}")))
            .await
            .unwrap();
    }

    pub(crate) async fn message(&mut self, message: Message) {
        self.io.send(message).await.unwrap();
    }

    /// The next message as it is.
    pub(crate) async fn raw(&mut self) -> Option<Result<Message, Error>> {
        let message = timeout(SOON, self.io.next())
            .await
            .expect("a message in time");
        if let Some(Ok(message)) = &message {
            self.compare(message);
        }
        message
    }

    /// Whatever a server says is described.
    fn compare(&mut self, message: &Message) {
        let told = match message {
            Message::Text(text) => self.channel.text(text),
            Message::Binary(bytes) => {
                let modes: &[&str] = match (self.name, self.tty) {
                    // There it depends on the operation.
                    ("control", _) => &["pipes", "terminal", "bytes"],
                    (_, true) => &["terminal"],
                    (_, false) => &["pipes"],
                };
                self.channel.bytes(bytes, modes)
            }
            _ => return,
        };
        assert!(
            !told.is_empty(),
            "{} says what openapi/streams.json does not tell: {message:?}",
            self.name
        );
        let told = told
            .iter()
            .map(|message| format!("{} {message}", self.name));
        self.told.extend(told);
    }

    /// The next message as it is, for a test that stops the clock.
    pub(crate) async fn raw_unlimited(&mut self) -> Message {
        let message = self.io.next().await;
        let message = message.expect("a message").expect("an open socket");
        self.compare(&message);
        message
    }

    /// What the server says next.
    pub(crate) async fn next(&mut self) -> Event {
        match self.raw().await {
            Some(Ok(message)) => self.read(message),
            Some(Err(_)) | None => Event::Gone,
        }
    }

    fn read(&self, message: Message) -> Event {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match message {
            Message::Binary(bytes) if self.tty => Event::Terminal(text(&bytes)),
            Message::Binary(bytes) => match bytes[0] {
                1 => Event::Stdout(text(&bytes[1..])),
                2 => Event::Stderr(text(&bytes[1..])),
                3 => Event::Exit(bytes[1]),
                other => panic!("stream {other}"),
            },
            Message::Text(text) => match text.strip_prefix("control:") {
                Some(json) => Event::Control(serde_json::from_str(json).unwrap()),
                None => read_text(serde_json::from_str(&text).unwrap()),
            },
            Message::Close(frame) => Event::Close(frame.map_or(1005, |frame| frame.code.into())),
            other => Event::Text(json!(format!("{other:?}"))),
        }
    }

    /// What the server says until it closes, or until `last`.
    pub(crate) async fn until(&mut self, last: impl Fn(&Event) -> bool) -> Vec<Event> {
        let mut seen: Vec<Event> = Vec::new();
        loop {
            let event = self.next().await;
            match (seen.last_mut(), &event) {
                (Some(Event::Stdout(known)), Event::Stdout(more))
                | (Some(Event::Stderr(known)), Event::Stderr(more))
                | (Some(Event::Terminal(known)), Event::Terminal(more)) => known.push_str(more),
                _ => seen.push(event.clone()),
            }
            if last(&event) || matches!(event, Event::Close(_) | Event::Gone) {
                return seen;
            }
        }
    }

    /// What the server says until the exit of a session without a terminal.
    pub(crate) async fn until_exit(&mut self) -> Vec<Event> {
        self.until(|event| matches!(event, Event::Exit(_))).await
    }

    /// Reads the first message, which must be the session's, and gives its id.
    pub(crate) async fn session(&mut self) -> String {
        match self.next().await {
            Event::Info(info) => info["session_id"].as_str().expect("a text").to_owned(),
            other => panic!("not session_info: {other:?}"),
        }
    }

    /// Closes as clients do, and waits for the server's end of the handshake and of the connection.
    pub(crate) async fn close(mut self) -> Vec<Event> {
        let frame = CloseFrame {
            code: CloseCode::Normal,
            reason: "".into(),
        };
        self.message(Message::Close(Some(frame))).await;
        let mut seen = self.until(|_| false).await;
        if seen.last() != Some(&Event::Gone) {
            seen.push(self.next().await);
        }
        seen
    }

    /// Goes away without a word.
    pub(crate) fn vanish(self) {
        let tcp = self.io.into_inner();
        tcp.set_zero_linger().unwrap();
        drop(tcp);
    }

    /// Goes as a computer goes that loses its power: whatever comes for it is dropped unseen. Gives back what must
    /// live on, for the kernel would say goodbye at its end.
    pub(crate) fn fall_silent(self) -> TcpStream {
        let tcp = self.io.into_inner();
        http::fall_silent(&tcp);
        tcp
    }

    /// Bytes as they are, below any frame.
    pub(crate) async fn raw_bytes(&mut self, bytes: &[u8]) {
        self.io.get_mut().write_all(bytes).await.unwrap();
    }

    pub(crate) fn into_tcp(self) -> TcpStream {
        self.io.into_inner()
    }
}

fn read_text(text: Value) -> Event {
    match text["type"].as_str() {
        Some("session_info") => Event::Info(text),
        Some("exit") => {
            assert_eq!(text["exit_code"], text["code"], "both keys tell the same");
            Event::TextExit(text["exit_code"].as_i64().unwrap())
        }
        _ => Event::Text(text),
    }
}
