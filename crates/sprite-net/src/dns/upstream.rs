//! Asking the host's resolvers.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::message::{Answer, Failure, Query};
use super::resolvers::Resolvers;

/// Sockets towards resolvers at once, over all machines: below the 1,024 files that a process may have open
/// where nobody raised it. Waiting is fair, and a machine has few questions in flight, so one that floods
/// delays the others by its own few questions only.
pub(super) const MOST_SOCKETS: usize = 512;
/// Largest answer by UDP; a larger one is answered with "ask by TCP". Source: RFC 6891 §6.2.5.
pub(super) const LARGEST_DATAGRAM: usize = 4096;
/// The C library of a machine asks again after 5 s; an answer that comes later is for nobody.
const WITHIN: Duration = Duration::from_millis(4500);
/// How long one resolver has for a datagram before the next one is asked: a lost one is asked for again.
const EACH: Duration = Duration::from_millis(1200);

/// The way to the resolvers, shared by all machines' name servers.
#[derive(Debug)]
pub(crate) struct Upstream {
    resolvers: Resolvers,
    sockets: Semaphore,
}

impl Upstream {
    pub(crate) fn new(resolvers: Resolvers) -> Self {
        Self {
            resolvers,
            sockets: Semaphore::new(MOST_SOCKETS),
        }
    }

    pub(crate) fn resolvers(&self) -> &Resolvers {
        &self.resolvers
    }

    /// Asks by UDP; what comes back is the answer for the machine in any case.
    ///
    /// # Cancel safety
    /// Dropping it only closes sockets.
    pub(super) async fn by_udp(&self, query: Query<'_>) -> Vec<u8> {
        self.ask(query, 2, |resolver| async move {
            // Too short a time is answered by asking the next, so it is as an error here.
            timeout(EACH, one_datagram(resolver, query)).await?
        })
        .await
    }

    /// Asks by TCP, which has its own retries: each resolver once.
    ///
    /// # Cancel safety
    /// Dropping it only closes sockets.
    pub(super) async fn by_tcp(&self, query: Query<'_>) -> Vec<u8> {
        self.ask(query, 1, |resolver| one_connection(resolver, query))
            .await
    }

    /// Asks each resolver in turn, `rounds` times, until one has an answer or the time is up. "I cannot" is
    /// kept and given only when no other resolver does better.
    async fn ask<'a, F>(
        &self,
        query: Query<'a>,
        rounds: usize,
        one: impl Fn(SocketAddr) -> F,
    ) -> Vec<u8>
    where
        F: Future<Output = io::Result<Vec<u8>>>,
    {
        let deadline = Instant::now() + WITHIN;
        let mut second_best = None;
        let asking = async {
            let _socket = self.sockets.acquire().await.ok()?;
            let resolvers = self
                .resolvers
                .now()
                .inspect_err(|error| tracing::warn!(%error, "no resolver to ask"))
                .ok()?;
            for resolver in std::iter::repeat_n(&resolvers, rounds).flat_map(|r| r.iter()) {
                match one(*resolver).await {
                    Ok(answer) if query.judge(&answer) == Answer::Final => return Some(answer),
                    Ok(answer) => second_best = Some(answer),
                    Err(error) => tracing::debug!(%resolver, %error, "resolver did not answer"),
                }
            }
            None
        };
        let answer = timeout_at(deadline, asking).await.ok().flatten();
        answer
            .or(second_best)
            .unwrap_or_else(|| query.fail(Failure::Server))
    }
}

/// A socket of its own for each question: its port, chosen by the kernel, is what a forger cannot guess.
async fn one_datagram(resolver: SocketAddr, query: Query<'_>) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match resolver {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(resolver).await?;
    socket.send(query.bytes()).await?;
    // One more byte than allowed, so that a larger datagram is seen as such.
    let mut buffer = vec![0; LARGEST_DATAGRAM + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match query.judge(&buffer[..length]) {
            Answer::Foreign => {}
            Answer::Final | Answer::TryAnother if length > LARGEST_DATAGRAM => {
                return Ok(query.truncated());
            }
            Answer::Final | Answer::TryAnother => {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
    }
}

async fn one_connection(resolver: SocketAddr, query: Query<'_>) -> io::Result<Vec<u8>> {
    let mut stream = timeout(EACH, TcpStream::connect(resolver)).await??;
    write_frame(&mut stream, query.bytes()).await?;
    let answer = read_frame(&mut stream).await?;
    match query.judge(&answer) {
        Answer::Foreign => Err(io::Error::new(io::ErrorKind::InvalidData, "not the answer")),
        Answer::Final | Answer::TryAnother => Ok(answer),
    }
}

/// Writes a message behind its length. Source: RFC 1035 §4.2.2.
pub(super) async fn write_frame(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "DNS message over 65,535 bytes"))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).await
}

/// Reads a message behind its length, at most 65,535 bytes.
///
/// # Cancel safety
/// None: what was read of a frame is lost.
pub(super) async fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
