//! Ports of a fake environment: one program listens, and says again what it is told.

use std::net::{Ipv4Addr, SocketAddr};

use sprite_agent_api::link::{LinkError, Receiver, Sender};
use sprite_agent_api::ports::{Port, PortsReply};
use sprite_agent_api::tcp::{ConnectInput, ConnectReply, ConnectSpec};
use sprite_agent_api::{Frame, FrameKind};

/// The port on which the fake program listens. Source: RFC 862.
const ECHO: u16 = 7;

/// Connects to the program, which says what it hears until its client has ended.
pub(super) async fn connect(
    spec: &ConnectSpec,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), LinkError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, spec.port));
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

/// Tells the program's port; it never changes.
pub(super) async fn ports(sender: &Sender, receiver: &mut Receiver) -> Result<(), LinkError> {
    let port = Port {
        port: ECHO,
        address: Ipv4Addr::LOCALHOST.into(),
        pid: 1,
    };
    let list = PortsReply::List { ports: vec![port] };
    sender.send(Frame::control(&list)).await?;
    while receiver.recv().await?.is_some() {}
    Ok(())
}
