//! A port here that is a port of a sprite.

use std::io;
use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ConnectError;
use crate::sprite::Sprite;

/// Most connections at once; further ones wait to be accepted.
const MOST_CONNECTIONS: usize = 1024;
/// Refusals that wait to be heard of; more are forgotten.
const REFUSALS: usize = 16;

/// A local port whose connections go to a port of a sprite, for as long as this lives.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    refused: mpsc::Receiver<Refused>,
    _end: DropGuard,
}

/// A connection to the local port that did not reach the sprite.
#[derive(Debug)]
pub struct Refused {
    /// Who connected.
    pub peer: SocketAddr,
    /// Why it was not passed on.
    pub error: ConnectError,
}

impl Forward {
    /// Listens and forwards. Must be called within a runtime.
    pub(crate) async fn start(
        sprite: Sprite,
        local: impl ToSocketAddrs,
        host: String,
        port: u16,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(local).await?;
        let local = listener.local_addr()?;
        let end = CancellationToken::new();
        let (tell, refused) = mpsc::channel(REFUSALS);
        let target = Target {
            sprite,
            host,
            port,
            tell,
        };
        tokio::spawn(accept(listener, target, end.clone()));
        Ok(Self {
            local,
            refused,
            _end: end.drop_guard(),
        })
    }

    /// The address that is listened on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next connection that was not passed on; for those who tell people.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn refused(&mut self) -> Refused {
        match self.refused.recv().await {
            Some(refused) => refused,
            None => std::future::pending().await,
        }
    }
}

#[derive(Debug, Clone)]
struct Target {
    sprite: Sprite,
    host: String,
    port: u16,
    tell: mpsc::Sender<Refused>,
}

/// Accepts until the handle is dropped; the connections end with it.
async fn accept(listener: TcpListener, target: Target, end: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => {
                // An error is of a connection that is gone already, or of a lack that passes with the next end.
                if let Ok((local, peer)) = accepted {
                    connections.spawn(pass(local, peer, target.clone()));
                }
            }
        }
    }
}

async fn pass(mut local: TcpStream, peer: SocketAddr, target: Target) {
    // A gain, no need.
    let _ = local.set_nodelay(true);
    let passed = match target.sprite.connect(&target.host, target.port).await {
        Ok(mut connection) => copy_bidirectional(&mut local, &mut connection)
            .await
            .is_ok(),
        Err(error) => {
            // Nobody need listen.
            let _ = target.tell.try_send(Refused { peer, error });
            false
        }
    };
    if !passed {
        // Whoever connected sees what it would see in the sprite: a reset, and no end.
        let _ = local.set_zero_linger();
    }
}
