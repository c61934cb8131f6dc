//! The ports on which the environment listens.
//!
//! The host asks with [`Request::Ports`](crate::message::Request::Ports). The agent answers [`PortsReply::List`], then
//! every change until the stream ends. A session tells changes beside its output, as
//! [`Reply::Port`](crate::message::Reply::Port), if its request asks for them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::message::Failure;

/// Most ports that are told of one machine: programs that open more are told no more of.
pub const MOST_PORTS: usize = 1024;

/// A TCP port on which a process of the environment listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// 1 to 65,535.
    pub port: u16,
    /// The address that it is bound to; `0.0.0.0` and `::` are all addresses.
    pub address: IpAddr,
    /// The process that has it, by its id in the environment; 0 where that is not known.
    pub pid: u32,
}

/// Something happened to a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PortEvent {
    /// A process listens on it.
    Opened(Port),
    /// It does not any more.
    Closed(Port),
}

/// What the agent answers to a watch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum PortsReply {
    /// The ports that there are; the first message.
    List {
        /// At most [`MOST_PORTS`], in order of their numbers.
        ports: Vec<Port>,
    },
    /// One of them changed.
    Port(PortEvent),
    /// The operation could not be done; the last message of its stream.
    Failed(Failure),
}
