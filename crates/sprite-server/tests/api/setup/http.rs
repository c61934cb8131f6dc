//! A client that shows what is on the wire: every chunk of an answer, and whether it ended as it should.

use serde_json::Value;
use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::described::{Channel, STREAMS};
use super::{SOON, Server};

/// A request that is being put together.
pub(crate) struct Request<'a> {
    server: &'a Server,
    line: String,
    token: Option<String>,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    /// The body as it was framed: chunks, or one piece.
    pub(crate) chunks: Vec<Vec<u8>>,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

/// An answer whose body is still coming.
pub(crate) struct Coming {
    pub(crate) head: Head,
    io: BufReader<TcpStream>,
    /// Where this is a stream, what it may say.
    channel: Option<&'static Channel>,
}

/// Whether [`fall_silent`] works here; says why if not. Newer kernels leave filters on TCP to administrators.
pub(crate) fn can_fall_silent() -> bool {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    match SockRef::from(&listener).attach_filter(&[drop_all()]) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: only root may filter packets here; run cargo xtask test --all");
            false
        }
        tried => {
            tried.unwrap();
            true
        }
    }
}

/// Source: linux/filter.h: return (BPF_RET | BPF_K) how much of the packet is kept, here nothing.
fn drop_all() -> SockFilter {
    SockFilter::new(0x06, 0, 0, 0)
}

/// From now on the kernel drops whatever comes for this socket before its TCP sees it, acknowledgements included.
pub(crate) fn fall_silent(tcp: &TcpStream) {
    SockRef::from(tcp).attach_filter(&[drop_all()]).unwrap();
}

impl Server {
    /// A request with the server's token. A connection of its own.
    pub(crate) fn request<'a>(&'a self, method: &str, path: &str) -> Request<'a> {
        Request {
            server: self,
            line: format!("{method} {path} HTTP/1.1\r\n"),
            token: Some(self.test.token.clone()),
            headers: vec![format!("Host: {}\r\nConnection: close\r\n", self.addr)],
            body: Vec::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path).body(body).send().await
    }
}

impl Request<'_> {
    pub(crate) fn token(mut self, token: Option<&str>) -> Self {
        self.token = token.map(str::to_owned);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        self.begin().await.whole().await
    }

    /// Sends the request, and reads the head of the answer.
    pub(crate) async fn begin(self) -> Coming {
        let tcp = TcpStream::connect(self.server.addr).await.unwrap();
        let mut io = BufReader::new(tcp);
        let token = self
            .token
            .map(|token| format!("Authorization: Bearer {token}\r\n"));
        let length = format!("Content-Length: {}\r\n\r\n", self.body.len());
        let head = [
            self.line.clone(),
            self.headers.concat(),
            token.unwrap_or_default(),
            length,
        ]
        .concat();
        io.write_all(&[head.as_bytes(), &self.body].concat())
            .await
            .unwrap();
        let head = read_head(&mut io).await;
        let channel = described(&self.line, &head);
        Coming { head, io, channel }
    }
}

/// The channel that describes an answer, if it is a stream.
fn described(line: &str, head: &Head) -> Option<&'static Channel> {
    let path = line.split(' ').nth(1).unwrap_or_default();
    let kind = head.header("content-type").unwrap_or_default();
    let line = kind == sprite_api::NDJSON;
    let channel = STREAMS.at(path, if line { "line" } else { "chunk" });
    assert!(
        !line || channel.is_some(),
        "the lines of {path} are not described"
    );
    channel
        .filter(|_| head.status == 200 && kind != "application/json")
        .map(|(_, channel)| channel)
}

/// Reads an answer's head.
pub(crate) async fn read_head(io: &mut BufReader<TcpStream>) -> Head {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        let n = timeout(SOON, io.read_line(&mut line))
            .await
            .expect("an answer in time")
            .unwrap();
        assert!(n > 0, "connection ended in the head: {lines:?}");
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let status = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines[1..]
        .iter()
        .map(|line| line.split_once(':').unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Head { status, headers }
}

impl Head {
    /// The values of every header of that name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Coming {
    pub(crate) fn new(head: Head, io: BufReader<TcpStream>) -> Self {
        Self {
            head,
            io,
            channel: None,
        }
    }

    /// Sends more, behind the request.
    pub(crate) async fn write(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads exactly this.
    pub(crate) async fn expect(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        timeout(SOON, self.io.read_exact(&mut read))
            .await
            .expect("an answer in time")
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&read), text);
    }

    /// Goes as a computer goes that loses its power. Gives back what must live on, for the kernel would say goodbye
    /// at its end.
    pub(crate) fn fall_silent(self) -> TcpStream {
        let tcp = self.io.into_inner();
        fall_silent(&tcp);
        tcp
    }

    /// The next chunk; `None` at the end, `Err` if the connection broke off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Vec<u8>>, std::io::Error> {
        let chunk = async {
            let mut line = String::new();
            if self.io.read_line(&mut line).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            self.io.read_exact(&mut chunk).await?;
            chunk.truncate(size);
            Ok((size > 0).then_some(chunk))
        };
        let chunk = timeout(SOON, chunk).await.expect("a chunk in time");
        if let (Some(channel), Ok(Some(chunk))) = (self.channel, &chunk) {
            let text = std::str::from_utf8(chunk).map_or(Vec::new(), |text| channel.text(text));
            assert!(
                !text.is_empty() || !channel.bytes(chunk, &[]).is_empty(),
                "openapi/streams.json does not tell {:?}",
                String::from_utf8_lossy(chunk)
            );
        }
        chunk
    }

    /// The next line of NDJSON; every chunk is one.
    pub(crate) async fn line(&mut self) -> Value {
        let chunk = self.chunk().await.unwrap().expect("another line");
        assert_eq!(chunk.last(), Some(&b'\n'));
        serde_json::from_slice(&chunk).unwrap()
    }

    pub(crate) async fn whole(mut self) -> Answer {
        let mut chunks = Vec::new();
        if self.head.header("transfer-encoding") == Some("chunked") {
            let complete = loop {
                match self.chunk().await {
                    Ok(Some(chunk)) => chunks.push(chunk),
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            return Answer {
                head: self.head,
                chunks,
                complete,
            };
        }
        let length: usize = self
            .head
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        let mut body = Vec::new();
        let complete = timeout(SOON, self.io.read_to_end(&mut body))
            .await
            .expect("a body in time")
            .is_ok();
        // An answer to HEAD has a length and no body.
        let complete = complete && (body.len() == length || body.is_empty());
        Answer {
            head: self.head,
            chunks: vec![body],
            complete,
        }
    }
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        self.chunks.concat()
    }

    pub(crate) fn json(&self) -> Value {
        let body = self.body();
        serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&body)))
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        let body = String::from_utf8(self.body()).unwrap();
        body.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The code of an error, which must be of the shape that all errors have.
    pub(crate) fn error(&self) -> String {
        assert_eq!(
            self.head.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let json = self.json();
        assert!(json["message"].is_string(), "{json}");
        json["error"].as_str().unwrap().to_owned()
    }
}
