//! Ports that a command in a sprite opens are ports here, while the command is attached; so is the port to which a login
//! in the browser comes back.
//!
//! A port gets the same number here if that is free, else the next one that is. All of it is for the own computer
//! only: the local side listens on 127.0.0.1.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use sprite_client::{Forward, Port, PortChange, Sprite};
use tokio::time::{Instant, sleep_until};

use crate::attend::Lines;

/// Most ports that are forwarded at once: a program may open very many.
const MOST: usize = 64;
/// How many numbers are tried for a port whose own is taken.
const TRIES: u16 = 100;
/// Below it, only root may listen: those numbers are left alone.
const FIRST_FREE: u16 = 1024;
/// How long a login may take to come back.
const CALLBACK_WITHIN: Duration = Duration::from_secs(600);
/// Most logins that are waited for at once.
const MOST_CALLBACKS: usize = 4;

/// What is forwarded now. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Forwards {
    sprite: Sprite,
    lines: Lines,
    /// By number: a program that listens on two addresses has one port for its users.
    open: BTreeMap<u16, (Port, Forward)>,
    /// Ports of logins that nobody said were opened.
    callbacks: BTreeMap<u16, (Forward, Instant)>,
}

impl Forwards {
    pub(crate) fn new(sprite: Sprite, lines: Lines) -> Self {
        Self {
            sprite,
            lines,
            open: BTreeMap::new(),
            callbacks: BTreeMap::new(),
        }
    }

    /// Follows a change of the sprite's ports.
    pub(crate) async fn follow(&mut self, change: PortChange) {
        match change {
            PortChange::Opened(port) if self.open.contains_key(&port.port) => {}
            PortChange::Opened(port) if self.open.len() >= MOST => {
                self.lines.tell(&format!(
                    "port {} of the sprite is not forwarded: {MOST} are already",
                    port.port
                ));
            }
            PortChange::Opened(port) => self.opened(port).await,
            PortChange::Closed(port) => {
                let same = self
                    .open
                    .get(&port.port)
                    .is_some_and(|(known, _)| known.address == port.address);
                if same {
                    self.open.remove(&port.port);
                    self.lines
                        .tell(&format!("port {} of the sprite is closed", port.port));
                }
            }
        }
    }

    async fn opened(&mut self, port: Port) {
        // A login may have asked for it before its program listened.
        let forward = match self.callbacks.remove(&port.port) {
            Some((forward, _)) => Ok(forward),
            None => self.listen(&port).await,
        };
        match forward {
            Ok(forward) => {
                let local = forward.local_addr();
                self.lines.tell(&format!(
                    "port {} of the sprite is http://{local} here",
                    port.port
                ));
                self.open.insert(port.port, (port, forward));
            }
            Err(error) => {
                self.lines.tell(&format!(
                    "port {} of the sprite is not forwarded: {error}",
                    port.port
                ));
            }
        }
    }

    /// Listens on the port's own number, or on the next one that is free.
    async fn listen(&self, port: &Port) -> io::Result<Forward> {
        let first = port.port.max(FIRST_FREE);
        let last = first.saturating_add(TRIES);
        let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
        for local in first..=last {
            let address = (Ipv4Addr::LOCALHOST, local);
            match self.sprite.forward(address, &port.address, port.port).await {
                Ok(forward) => return Ok(forward),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => taken = error,
                Err(error) => return Err(error),
            }
        }
        Err(taken)
    }

    /// Forwards the port to which a login comes back. It has to have its own number here: that is what the page knows.
    pub(crate) async fn callback(&mut self, port: u16) {
        let here = |forward: &Forward| forward.local_addr().port() == port;
        let until = Instant::now() + CALLBACK_WITHIN;
        if self
            .open
            .get(&port)
            .is_some_and(|(_, forward)| here(forward))
        {
            return;
        }
        if let Some((_, end)) = self.callbacks.get_mut(&port) {
            *end = until;
            return;
        }
        let refused = if port < FIRST_FREE {
            "it is a number that programs of users cannot have".to_owned()
        } else if self.callbacks.len() >= MOST_CALLBACKS {
            format!("{MOST_CALLBACKS} logins are waited for already")
        } else {
            let address = (Ipv4Addr::LOCALHOST, port);
            match self.sprite.forward(address, "localhost", port).await {
                Ok(forward) => {
                    self.callbacks.insert(port, (forward, until));
                    return;
                }
                Err(error) => error.to_string(),
            }
        };
        self.lines.tell(&format!(
            "port {port}, to which the page comes back, is not forwarded: {refused}"
        ));
    }

    /// Ends the wait for logins whose time is over; returns only to be called again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn expire(&mut self) {
        match self.callbacks.values().map(|(_, end)| *end).min() {
            Some(end) => sleep_until(end).await,
            None => std::future::pending().await,
        }
        let now = Instant::now();
        self.callbacks.retain(|_, (_, end)| *end > now);
    }
}
