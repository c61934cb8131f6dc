//! Programs of a test that listen in a sprite.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::setup::{SOON, Server};

/// A program. Dropped, it listens no more.
pub(crate) struct Program {
    requests: Arc<AtomicUsize>,
    clients: Option<mpsc::Receiver<TcpStream>>,
    task: JoinHandle<()>,
}

impl Drop for Program {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection to a program that answers by hand.
pub(crate) struct Client {
    tcp: TcpStream,
}

impl Program {
    /// Answers every request with its head.
    pub(crate) async fn echo(server: &Server, port: u16) -> Self {
        Self::answering(server, port, |head| {
            format!(
                "HTTP/1.1 200 OK\r\nx-theirs: yes\r\ncontent-length: {}\r\nkeep-alive: timeout=9\r\n\r\n{head}",
                head.len()
            )
        })
        .await
    }

    /// Says this to everybody who has asked, and ends.
    pub(crate) async fn saying(server: &Server, port: u16, said: &'static str) -> Self {
        Self::answering(server, port, move |_| said.to_owned()).await
    }

    /// Answers every first request of a connection, and ends it.
    pub(crate) async fn answering(
        server: &Server,
        port: u16,
        answer: impl Fn(&str) -> String + Send + Sync + 'static,
    ) -> Self {
        let answer = Arc::new(answer);
        let mut program = Self::by_hand(server, port).await;
        let mut clients = program.clients.take().unwrap();
        let requests = program.requests.clone();
        let accepting = std::mem::replace(&mut program.task, tokio::spawn(async {}));
        program.task = tokio::spawn(async move {
            let _accepting = AbortOnDrop(accepting);
            while let Some(tcp) = clients.recv().await {
                let (answer, requests) = (answer.clone(), requests.clone());
                tokio::spawn(async move {
                    let mut client = Client { tcp };
                    let head = client.head().await;
                    requests.fetch_add(1, Ordering::Relaxed);
                    client.say(&answer(&head)).await;
                });
            }
        });
        program
    }

    /// Answers what the test says, connection by connection.
    pub(crate) async fn by_hand(server: &Server, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        server
            .test
            .driver
            .listen(port, listener.local_addr().unwrap());
        let (send, clients) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                if send.send(tcp).await.is_err() {
                    return;
                }
            }
        });
        Self {
            requests: Arc::default(),
            clients: Some(clients),
            task,
        }
    }

    /// How many requests were answered.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> Client {
        let clients = self.clients.as_mut().expect("it answers by hand");
        let tcp = timeout(SOON, clients.recv()).await.expect("in time");
        Client { tcp: tcp.unwrap() }
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// A request's head, with the empty line at its end.
    pub(crate) async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = timeout(SOON, self.tcp.read_u8()).await.expect("in time");
            match byte {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) async fn say(&mut self, text: &str) {
        // Whoever does not listen any more is none of the program's business.
        let _ = self.tcp.write_all(text.as_bytes()).await;
    }

    /// Says something; `false` if nobody listens any more.
    pub(crate) async fn try_say(&mut self, text: &str) -> bool {
        let said = timeout(SOON, self.tcp.write_all(text.as_bytes())).await;
        said.is_ok_and(|said| said.is_ok())
    }

    /// Says nothing more.
    pub(crate) async fn finish(&mut self) {
        // Whoever does not listen any more is none of the program's business.
        let _ = self.tcp.shutdown().await;
    }

    /// Reads exactly these bytes, each a character.
    pub(crate) async fn expect(&mut self, text: &str) {
        let expected: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap()).collect();
        let mut read = vec![0; expected.len()];
        timeout(SOON, self.tcp.read_exact(&mut read))
            .await
            .expect("in time")
            .unwrap();
        assert_eq!(read, expected);
    }

    /// Reads until the connection ends or breaks.
    pub(crate) async fn ends(&mut self) {
        let mut rest = Vec::new();
        let read = timeout(SOON, self.tcp.read_to_end(&mut rest)).await;
        // How it ended is the same here.
        let _ = read.expect("an end in time");
    }
}
