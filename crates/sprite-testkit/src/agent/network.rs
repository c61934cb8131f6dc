//! Ports of a fake environment: one program listens, and says again what it is told. Others are the test's own.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use sprite_agent_api::link::{LinkError, Receiver, Sender};
use sprite_agent_api::ports::{Port, PortEvent, PortsReply};
use sprite_agent_api::tcp::{ConnectInput, ConnectReply, ConnectSpec};
use sprite_agent_api::{Frame, FrameKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The port on which the fake program listens. Source: RFC 862.
const ECHO: u16 = 7;

/// Connects to the program, which says what it hears until its client has ended.
pub(super) async fn connect(
    spec: &ConnectSpec,
    program: Option<SocketAddr>,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), LinkError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.port));
    if let Some(program) = program {
        return match TcpStream::connect(program).await {
            Ok(tcp) => pass(address, tcp, sender, receiver).await,
            Err(error) => {
                let message = format!("connect to {address}: {error}");
                sender
                    .send(Frame::control(&ConnectReply::Refused { message }))
                    .await
            }
        };
    }
    if spec.port != ECHO {
        let message = format!("connect to {address}: Connection refused");
        return sender
            .send(Frame::control(&ConnectReply::Refused { message }))
            .await;
    }
    let connected = ConnectReply::Connected { address };
    sender.send(Frame::control(&connected)).await?;
    while let Some(frame) = receiver.recv().await? {
        match frame.kind {
            FrameKind::Stdin => {
                let said = Frame::data(FrameKind::Stdout, frame.payload);
                sender.send(said).await?;
            }
            FrameKind::Control if frame.message::<ConnectInput>().is_ok() => return Ok(()),
            FrameKind::Control | FrameKind::Stdout | FrameKind::Stderr => {}
        }
    }
    Ok(())
}

/// Moves bytes until both directions have ended or one broke.
async fn pass(
    address: SocketAddr,
    mut tcp: TcpStream,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), LinkError> {
    let connected = ConnectReply::Connected { address };
    sender.send(Frame::control(&connected)).await?;
    let (mut read, mut write) = tcp.split();
    let out = async {
        loop {
            let mut buffer = Vec::with_capacity(16 << 10);
            match read.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    let message = error.to_string();
                    return sender
                        .send(Frame::control(&ConnectReply::Broken { message }))
                        .await;
                }
            }
            sender
                .send(Frame::data(FrameKind::Stdout, buffer.into()))
                .await?;
        }
        sender.finish();
        Ok(())
    };
    let inward = async {
        while let Some(frame) = receiver.recv().await? {
            match frame.kind {
                FrameKind::Stdin => {
                    // What does not listen any more shows in the other direction.
                    let _ = write.write_all(&frame.payload).await;
                }
                FrameKind::Control | FrameKind::Stdout | FrameKind::Stderr => {}
            }
        }
        let _ = write.shutdown().await;
        Ok(())
    };
    tokio::try_join!(out, inward).map(drop)
}

/// The ports on which programs listen: tests open and close them in place of programs.
#[derive(Clone)]
pub(crate) struct Listening(Arc<watch::Sender<BTreeSet<u16>>>);

impl Default for Listening {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::from([ECHO]))))
    }
}

impl Listening {
    pub(crate) fn open(&self, port: u16) {
        self.0.send_if_modified(|ports| ports.insert(port));
    }

    pub(crate) fn close(&self, port: u16) {
        self.0.send_if_modified(|ports| ports.remove(&port));
    }

    pub(super) fn follow(&self) -> Follower {
        let mut ports = self.0.subscribe();
        let told = ports.borrow_and_update().clone();
        Follower { ports, told }
    }
}

/// What of the ports was told to somebody.
pub(super) struct Follower {
    ports: watch::Receiver<BTreeSet<u16>>,
    told: BTreeSet<u16>,
}

impl Follower {
    fn list(&self) -> Vec<Port> {
        self.told.iter().copied().map(port).collect()
    }

    /// What has changed since the last time, once something has: what opened and closed meanwhile is nothing.
    pub(super) async fn changes(&mut self) -> Vec<PortEvent> {
        // Cannot fail: the agent holds the sender.
        let _ = self.ports.changed().await;
        let now = self.ports.borrow_and_update().clone();
        let closed = self.told.difference(&now).copied();
        let closed = closed.map(|number| PortEvent::Closed(port(number)));
        let opened = now.difference(&self.told).copied();
        let opened = opened.map(|number| PortEvent::Opened(port(number)));
        let events = closed.chain(opened).collect();
        self.told = now;
        events
    }
}

fn port(port: u16) -> Port {
    Port {
        port,
        address: Ipv4Addr::LOCALHOST.into(),
        pid: 1,
    }
}

/// Tells the ports, and every change.
pub(super) async fn ports(
    mut follower: Follower,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), LinkError> {
    let list = PortsReply::List {
        ports: follower.list(),
    };
    sender.send(Frame::control(&list)).await?;
    loop {
        sender.room().await?;
        tokio::select! {
            said = receiver.recv() => if said?.is_none() { return Ok(()) },
            events = follower.changes() => for event in events {
                sender.send(Frame::control(&PortsReply::Port(event))).await?;
            },
        }
    }
}
