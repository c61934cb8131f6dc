//! Ports that a command in a sprite opens are ports here, while the command is attached.
//!
//! A port gets the same number here if that is free, else the next one that is. All of it is for the own computer
//! only: the local side listens on 127.0.0.1.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::Ipv4Addr;

use sprite_client::{Forward, Port, PortChange, PortChanges, Sprite};
use tokio::task::JoinHandle;

use crate::show;

/// Most ports that are forwarded at once: a program may open very many.
const MOST: usize = 64;
/// How many numbers are tried for a port whose own is taken.
const TRIES: u16 = 100;
/// Below it, only root may listen: those numbers are left alone.
const FIRST_FREE: u16 = 1024;

/// Forwards until it is dropped.
#[derive(Debug)]
pub(crate) struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a line ends on standard error: a terminal in raw mode does not return by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    Plain,
    Raw,
}

impl Lines {
    /// Those of a command with a terminal: ours is in raw mode then, if there is one.
    pub(crate) fn of_terminal() -> Self {
        match io::stdin().is_terminal() {
            true => Self::Raw,
            false => Self::Plain,
        }
    }

    fn tell(self, text: &str) {
        match self {
            Self::Plain => show::note(text),
            Self::Raw => show::note(&format!("\r{text}\r")),
        }
    }
}

/// Begins to forward what a command opens.
pub(crate) fn start(sprite: &Sprite, changes: PortChanges, lines: Lines) -> Forwarding {
    Forwarding(tokio::spawn(follow(sprite.clone(), changes, lines)))
}

async fn follow(sprite: Sprite, mut changes: PortChanges, lines: Lines) {
    // By number: a program that listens on two addresses has one port for its users.
    let mut open: BTreeMap<u16, (Port, Forward)> = BTreeMap::new();
    while let Some(change) = changes.next().await {
        match change {
            PortChange::Opened(port) if open.contains_key(&port.port) => {}
            PortChange::Opened(port) if open.len() >= MOST => {
                lines.tell(&format!(
                    "port {} of the sprite is not forwarded: {MOST} are already",
                    port.port
                ));
            }
            PortChange::Opened(port) => match forward(&sprite, &port).await {
                Ok(forward) => {
                    let local = forward.local_addr();
                    lines.tell(&format!(
                        "port {} of the sprite is http://{local} here",
                        port.port
                    ));
                    open.insert(port.port, (port, forward));
                }
                Err(error) => {
                    lines.tell(&format!(
                        "port {} of the sprite is not forwarded: {error}",
                        port.port
                    ));
                }
            },
            PortChange::Closed(port) => {
                let same = open
                    .get(&port.port)
                    .is_some_and(|(known, _)| known.address == port.address);
                if same {
                    open.remove(&port.port);
                    lines.tell(&format!("port {} of the sprite is closed", port.port));
                }
            }
        }
    }
}

/// Listens on the port's own number, or on the next one that is free.
async fn forward(sprite: &Sprite, port: &Port) -> io::Result<Forward> {
    let first = port.port.max(FIRST_FREE);
    let last = first.saturating_add(TRIES);
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for local in first..=last {
        let address = (Ipv4Addr::LOCALHOST, local);
        match sprite.forward(address, &port.address, port.port).await {
            Ok(forward) => return Ok(forward),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
            Err(error) => return Err(error),
        }
    }
    Err(taken)
}
