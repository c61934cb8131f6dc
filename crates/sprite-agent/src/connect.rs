//! Connections to ports of the environment.
//!
//! The agent stands in the machine's own network namespace, so it connects as any process inside would. It connects
//! to the machine itself and to nothing else: the proxy must not be a second way out, beside whatever the sprite's
//! policy says of the first.
//!
//! Both directions end apart. What breaks is told: to the port by a reset, to the host by its last message.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use sprite_agent_api::link::{LinkError, Receiver, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::tcp::{self, ConnectInput, ConnectReply, ConnectSpec, MOST_CONNECTIONS};
use sprite_agent_api::{Frame, FrameKind, MAX_DATA};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::operation::failure;

/// A listener whose queue is full lets connections wait. The host's clients wait ten seconds.
/// Source: behaviour reference §1.6.
const CONNECT_WITHIN: Duration = Duration::from_secs(8);

/// How long a program may go on talking to a client that has closed before its connection is reset.
const LINGER: Duration = Duration::from_secs(5);

/// Bytes asked of the kernel at once: little while little comes, so that an idle connection is small.
const READ_SMALL: usize = 4 << 10;

/// How many connections there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connections(Arc<AtomicUsize>);

/// One of them.
struct Counted(Connections);

impl Connections {
    fn enter(&self) -> Option<Counted> {
        let counted = Counted(self.clone());
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (before < MOST_CONNECTIONS).then_some(counted)
    }

    fn window(&self) -> usize {
        tcp::window(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Connects, and moves bytes until both directions have ended or the host is gone.
pub(crate) async fn perform(
    connections: &Connections,
    hostname: Option<&str>,
    spec: &ConnectSpec,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), Failure> {
    let Some(_counted) = connections.enter() else {
        let message =
            format!("{MOST_CONNECTIONS} connections are open already, no more are allowed");
        return Err(failure(FailureKind::Limit, message));
    };
    let addresses = addresses(spec, hostname)?;
    if spec.port == 0 {
        return Err(failure(FailureKind::Invalid, "port 0 is none"));
    }
    let (mut socket, address) = tokio::select! {
        connected = connect(&addresses, spec.port) => match connected {
            Ok(connected) => connected,
            Err(refused) => {
                // If the host is gone there is nobody to tell.
                let _ = say(sender, &refused).await;
                return Ok(());
            }
        },
        () = sender.until_failed() => return Ok(()),
    };
    // The kernel's delay is for programs that write badly; whoever wrote these bytes has waited already.
    let _ = socket.set_nodelay(true);
    if say(sender, &ConnectReply::Connected { address })
        .await
        .is_err()
    {
        return Ok(());
    }
    let end = relay(connections, &mut socket, sender, receiver).await;
    match end {
        End::Both => {}
        End::Broken(error) => {
            let message = error.to_string();
            let _ = say(sender, &ConnectReply::Broken { message }).await;
        }
        End::Closed => {
            // Whoever still talks reads an end and is listened to for a while, so that no reset takes from it what
            // it has not read yet.
            let mut nothing = tokio::io::sink();
            let rest = tokio::io::copy(&mut socket, &mut nothing);
            let _ = timeout(LINGER, rest).await;
        }
        End::Gone => {
            // A client that vanished is not one that has finished.
            let _ = socket.set_zero_linger();
        }
    }
    Ok(())
}

async fn say(sender: &Sender, reply: &ConnectReply) -> Result<(), LinkError> {
    sender.send(Frame::control(reply)).await
}

/// The addresses of the machine itself that a host name stands for, in the order in which they are tried.
fn addresses(spec: &ConnectSpec, hostname: Option<&str>) -> Result<Vec<IpAddr>, Failure> {
    let local = || vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    if spec.is_local() {
        return Ok(local());
    }
    let host = spec.host.as_str();
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Ok(address) = bare.unwrap_or(host).parse::<IpAddr>() {
        let address = address.to_canonical();
        return if is_own(address) {
            Ok(vec![address])
        } else {
            Err(failure(
                FailureKind::Invalid,
                format!(
                    "{address} is not an address of this sprite; a proxy leads to the sprite itself"
                ),
            ))
        };
    }
    let name = host.trim_end_matches('.');
    if hostname.is_some_and(|own| own.eq_ignore_ascii_case(name)) {
        return Ok(local());
    }
    let shown: String = host.chars().take(80).collect();
    Err(failure(
        FailureKind::Invalid,
        format!(
            "{shown:?} is not this sprite; a proxy leads to the sprite itself: localhost, or one of its addresses"
        ),
    ))
}

/// Whether the kernel takes an address for its own: only such a one can be listened on.
fn is_own(address: IpAddr) -> bool {
    address.is_loopback() || TcpListener::bind((address, 0)).is_ok()
}

async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, SocketAddr), ConnectReply> {
    let mut first: Option<(SocketAddr, io::Error)> = None;
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        let connected = timeout(CONNECT_WITHIN, TcpStream::connect(address)).await;
        let error = match connected {
            Ok(Ok(socket)) => return Ok((socket, address)),
            Ok(Err(error)) => error,
            Err(_) => ErrorKind::TimedOut.into(),
        };
        // Of several the first is the one that people mean.
        first.get_or_insert((address, error));
    }
    let (address, error) = first.expect("a name stands for an address at least");
    let message = format!("connect to {address}: {error}");
    Err(ConnectReply::Refused { message })
}

/// How a connection ended.
enum End {
    /// Both directions were finished.
    Both,
    /// The port's side broke.
    Broken(io::Error),
    /// The client closed.
    Closed,
    /// The host is gone, or gave the stream up.
    Gone,
}

async fn relay(
    connections: &Connections,
    socket: &mut TcpStream,
    sender: &Sender,
    receiver: &mut Receiver,
) -> End {
    let (read, write) = socket.split();
    let mut out = pin!(from_port(connections, read, sender));
    let mut into = pin!(to_port(write, receiver));
    let (mut talks, mut listens) = (true, true);
    while talks || listens {
        tokio::select! {
            ended = &mut out, if talks => match ended {
                Ok(()) => {
                    sender.finish();
                    talks = false;
                }
                Err(end) => return end,
            },
            ended = &mut into, if listens => match ended {
                Ok(()) => listens = false,
                Err(end) => return end,
            },
            () = sender.until_failed() => return End::Gone,
        }
    }
    End::Both
}

/// Moves what the port says until its end.
async fn from_port(
    connections: &Connections,
    read: ReadHalf<'_>,
    sender: &Sender,
) -> Result<(), End> {
    let mut chunk = READ_SMALL;
    let mut buffer = BytesMut::new();
    loop {
        sender
            .room_within(connections.window())
            .await
            .map_err(|_| End::Gone)?;
        // Not before there is something: a thousand idle connections have no buffers.
        read.readable().await.map_err(End::Broken)?;
        if buffer.capacity() < READ_SMALL / 4 {
            buffer = BytesMut::with_capacity(chunk);
        }
        let room = buffer.capacity();
        match read.try_read_buf(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                chunk = if count == room { MAX_DATA } else { chunk };
                let bytes = buffer.split().freeze();
                let sent = sender.send(Frame::data(FrameKind::Stdout, bytes)).await;
                sent.map_err(|_| End::Gone)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                buffer = BytesMut::new();
                chunk = READ_SMALL;
            }
            Err(error) => return Err(End::Broken(error)),
        }
    }
}

/// Moves what the client says until its end.
async fn to_port(mut write: WriteHalf<'_>, receiver: &mut Receiver) -> Result<(), End> {
    let mut open = true;
    loop {
        let Some(frame) = receiver.recv().await.map_err(|_| End::Gone)? else {
            break;
        };
        match frame.kind {
            // A port that takes nothing any more may still talk; what it says last tells how it ended.
            FrameKind::Stdin if open => open = write.write_all(&frame.payload).await.is_ok(),
            FrameKind::Stdin => {}
            FrameKind::Control => match frame.message::<ConnectInput>() {
                Ok(ConnectInput::Close) => {
                    let _ = write.shutdown().await;
                    return Err(End::Closed);
                }
                // A message of a later protocol that this agent does not know is not for it.
                Err(_) => {}
            },
            FrameKind::Stdout | FrameKind::Stderr => return Err(End::Gone),
        }
    }
    let _ = write.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(host: &str) -> Result<Vec<IpAddr>, FailureKind> {
        let spec = ConnectSpec {
            host: host.to_owned(),
            port: 1,
        };
        addresses(&spec, Some("dawn")).map_err(|failure| failure.kind)
    }

    #[test]
    fn a_sprite_is_reached_by_its_names_and_addresses() {
        let local: Vec<IpAddr> = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        for host in [
            "localhost",
            "LOCALHOST.",
            "app.localhost",
            "dawn",
            "Dawn",
            "",
            "0.0.0.0",
            "::",
            "[::]",
        ] {
            assert_eq!(kinds(host).as_ref(), Ok(&local), "{host:?}");
        }
        for (host, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.8.9.1", "127.8.9.1"),
            ("[::1]", "::1"),
            ("::ffff:127.0.0.1", "127.0.0.1"),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(kinds(host), Ok(vec![address]), "{host}");
        }
    }

    #[test]
    fn nothing_but_the_sprite_is_reached() {
        for host in [
            "203.0.113.7",
            "10.0.0.2",
            "2001:db8::1",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example",
            "local host",
            "169.254.169.254",
            "dawn2",
        ] {
            assert_eq!(kinds(host), Err(FailureKind::Invalid), "{host}");
        }
    }
}
