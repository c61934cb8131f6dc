//! A server of the tests' own: it speaks HTTP/1.1 by hand, so that a test can also misbehave as it likes.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The values of one query parameter.
    pub fn query(&self, key: &str) -> Vec<String> {
        let query = self.target.split_once('?').map_or("", |(_, query)| query);
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| unescape(value))
            .collect()
    }

    pub fn is_websocket(&self) -> bool {
        self.header("upgrade")
            .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }
}

fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex: String = rest.by_ref().take(2).map(char::from).collect();
            bytes.push(u8::from_str_radix(&hex, 16).expect("two hexadecimal digits"));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// The connection a request came on; handlers give it back to keep it open.
pub struct Conn {
    pub stream: TcpStream,
    pub leftover: Vec<u8>,
}

pub type Then = Pin<Box<dyn Future<Output = Option<Conn>> + Send>>;
type Handler = Arc<dyn Fn(Seen, Conn) -> Then + Send + Sync>;

impl Conn {
    pub async fn raw(&mut self, bytes: &[u8]) {
        // A client that went away is the business of the test.
        let _ = self.stream.write_all(bytes).await;
    }

    pub async fn reply(mut self, status: u16, body: &str) -> Option<Self> {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(head.as_bytes()).await;
        Some(self)
    }

    /// Begins an answer in chunks.
    pub async fn chunked(&mut self) {
        self.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
    }

    pub async fn chunk(&mut self, data: &[u8]) {
        let mut whole = format!("{:x}\r\n", data.len()).into_bytes();
        whole.extend_from_slice(data);
        whole.extend_from_slice(b"\r\n");
        self.raw(&whole).await;
    }

    pub async fn websocket(mut self, seen: &Seen) -> WebSocketStream<TcpStream> {
        let key = seen
            .header("sec-websocket-key")
            .expect("a WebSocket request");
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nX-Sprite-Capabilities: signal\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        self.raw(head.as_bytes()).await;
        let Self { stream, leftover } = self;
        WebSocketStream::from_partially_read(stream, leftover, Role::Server, None).await
    }

    /// Reads one request; `None` when the client has closed.
    async fn request(&mut self) -> Option<Seen> {
        loop {
            let mut room = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut room);
            if let Ok(httparse::Status::Complete(len)) = request.parse(&self.leftover) {
                let headers: Vec<(String, String)> = request
                    .headers
                    .iter()
                    .map(|header| {
                        (
                            header.name.to_owned(),
                            String::from_utf8_lossy(header.value).into_owned(),
                        )
                    })
                    .collect();
                let mut seen = Seen {
                    method: request.method.unwrap_or_default().to_owned(),
                    target: request.path.unwrap_or_default().to_owned(),
                    headers,
                    body: Vec::new(),
                };
                self.leftover.drain(..len);
                seen.body = self.body(&seen).await?;
                return Some(seen);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Option<()> {
        let read = self.stream.read_buf(&mut self.leftover).await.ok()?;
        (read > 0).then_some(())
    }

    async fn body(&mut self, seen: &Seen) -> Option<Vec<u8>> {
        if seen.header("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                match httparse::parse_chunk_size(&self.leftover).expect("a chunk") {
                    httparse::Status::Complete((line, size)) => {
                        let size = usize::try_from(size).expect("a small chunk");
                        while self.leftover.len() < line + size + 2 {
                            self.more().await?;
                        }
                        body.extend_from_slice(&self.leftover[line..line + size]);
                        self.leftover.drain(..line + size + 2);
                        if size == 0 {
                            return Some(body);
                        }
                    }
                    httparse::Status::Partial => self.more().await?,
                }
            }
        }
        let length = seen
            .header("content-length")
            .map_or(0, |text| text.parse().expect("a length"));
        while self.leftover.len() < length {
            self.more().await?;
        }
        Some(self.leftover.drain(..length).collect())
    }
}

/// The server. It ends with the test's runtime.
pub struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub async fn start<F, T>(handler: F) -> Self
    where
        F: Fn(Seen, Conn) -> T + Send + Sync + 'static,
        T: Future<Output = Option<Conn>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let handler: Handler = Arc::new(move |request, conn| Box::pin(handler(request, conn)));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&handler), Arc::clone(&log)));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .expect("no handler panics while it holds this")
            .clone()
    }
}

async fn serve(stream: TcpStream, handler: Handler, log: Arc<Mutex<Vec<Seen>>>) {
    let mut conn = Conn {
        stream,
        leftover: Vec::new(),
    };
    while let Some(seen) = conn.request().await {
        log.lock()
            .expect("no handler panics while it holds this")
            .push(seen.clone());
        match handler(seen, conn).await {
            Some(back) => conn = back,
            None => return,
        }
    }
}
