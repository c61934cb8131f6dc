//! `sprite proxy`: ports here that are ports of a sprite.

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;

use futures_util::future::select_all;
use sprite_client::{ConnectError, Connection, Forward, Sprite};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};

use crate::context::Context;
use crate::failure::Failure;
use crate::holder;
use crate::show;
use crate::stream::{Inlet, Outlet, OutletError};

/// Bytes read and written at once.
const CHUNK: usize = 64 << 10;

/// Reach ports of a sprite as ports here
///
/// Each PORT listens on 127.0.0.1 until Ctrl-C, and every connection to it goes to the sprite, which stays awake
/// while one is open. With -W one connection is on standard input and output instead, as ssh wants it of a
/// ProxyCommand.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite proxy 3000
  sprite proxy 3000 8080:80
  sprite proxy 5432:10.0.0.1:5432
  ssh -o ProxyCommand='sprite proxy -s my-sprite -W :22' sprite@my-sprite")]
pub(crate) struct Args {
    /// Connect standard input and output to this port
    #[arg(
        short = 'W',
        long = "stdio",
        value_name = "[HOST]:PORT",
        conflicts_with = "ports"
    )]
    stdio: Option<Remote>,
    /// Ports: the same here and there, or LOCAL:REMOTE, or LOCAL:HOST:REMOTE; LOCAL 0 is any that is free
    #[arg(required_unless_present = "stdio", value_name = "PORT")]
    ports: Vec<Mapping>,
}

/// A port in the sprite.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Remote {
    host: String,
    port: u16,
}

/// A port here and the one that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    local: u16,
    remote: Remote,
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a port: 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

impl FromStr for Remote {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, number) = text.rsplit_once(':').unwrap_or(("", text));
        let host = match host {
            "" => "localhost",
            host => host.trim_start_matches('[').trim_end_matches(']'),
        };
        Ok(Self {
            host: host.to_owned(),
            port: port(number)?,
        })
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((local, remote)) = text.split_once(':') else {
            let remote: Remote = text.parse()?;
            return Ok(Self {
                local: remote.port,
                remote,
            });
        };
        let local = match local {
            "0" => 0,
            local => port(local)?,
        };
        Ok(Self {
            local,
            remote: remote.parse()?,
        })
    }
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    match args.stdio {
        Some(remote) => on_stdio(&sprite, &remote, context).await,
        None => listen(&sprite, &args.ports, context).await,
    }
}

async fn listen(sprite: &Sprite, mappings: &[Mapping], context: &Context) -> Result<u8, Failure> {
    // A name that is wrong shows now, and not at the first connection.
    let known = sprite.info().await;
    known.map_err(|error| context.failure(&error))?;
    let mut forwards = Vec::new();
    for mapping in mappings {
        let Remote { host, port } = &mapping.remote;
        let local = (Ipv4Addr::LOCALHOST, mapping.local);
        let forward = sprite.forward(local, host, *port).await;
        let forward = forward.map_err(|error| taken(mapping.local, &error))?;
        show::note(&format!(
            "{} is {host}:{port} of {}",
            forward.local_addr(),
            sprite.name()
        ));
        forwards.push(forward);
    }
    let listening =
        |kind| signal(kind).map_err(|error| Failure::caused("cannot wait for signals", &error));
    let mut interrupts = listening(SignalKind::interrupt())?;
    let mut terminations = listening(SignalKind::terminate())?;
    loop {
        let refused = select_all(
            forwards
                .iter_mut()
                .map(|forward| Box::pin(Forward::refused(forward))),
        );
        tokio::select! {
            (refused, _, _) = refused => show::note(&format!("{}: {}", refused.peer, show::plain(&refused.error.to_string()))),
            _ = interrupts.recv() => return Ok(0),
            _ = terminations.recv() => return Ok(0),
        }
    }
}

/// Why a port cannot be listened on, with who has it.
fn taken(port: u16, error: &io::Error) -> Failure {
    let failure = Failure::caused(format!("cannot listen on port {port}"), error);
    if error.kind() != io::ErrorKind::AddrInUse {
        return failure;
    }
    let free = format!(
        "choose another one: sprite proxy {}:{port}",
        port.wrapping_add(1).max(1024)
    );
    match holder::of(port) {
        Some(holder) => failure.hint(format!("{holder} has it; {free}")),
        None => failure.hint(free),
    }
}

async fn on_stdio(sprite: &Sprite, remote: &Remote, context: &Context) -> Result<u8, Failure> {
    let connected = sprite.connect(&remote.host, remote.port).await;
    let connection = connected.map_err(|error| refused(&error, context))?;
    match pass(connection).await {
        Ok(()) => Ok(0),
        Err(OutletError::Closed) => Ok(141),
        Err(OutletError::Failed { stream, source }) => {
            Err(Failure::caused(format!("cannot pass on {stream}"), &source))
        }
    }
}

fn refused(error: &ConnectError, context: &Context) -> Failure {
    match error {
        ConnectError::Call(error) => context.failure(error),
        other => Failure::new(show::plain(&other.to_string()))
            .hint("see what listens: sprite exec -- ss -ltn"),
    }
}

/// Both directions, each to its end.
async fn pass(connection: Connection) -> Result<(), OutletError> {
    let (mut from, mut to) = tokio::io::split(connection);
    let mut input = Inlet::open();
    let sending = async {
        while let Some(Ok(chunk)) = input.next().await {
            if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
                // The other direction tells why.
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    let receiving = async {
        let mut outlet = Outlet::stdout();
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(CHUNK);
            let read = from.read_buf(&mut buffer).await;
            let broke = |source| OutletError::Failed {
                stream: "the connection",
                source,
            };
            if read.map_err(broke)? == 0 {
                return outlet.finish().await;
            }
            outlet.send(buffer.freeze()).await?;
        }
    };
    // When the port has ended there is nobody to send to.
    tokio::pin!(sending, receiving);
    tokio::select! {
        received = &mut receiving => received,
        () = &mut sending => receiving.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(text: &str) -> Option<(u16, String, u16)> {
        let Mapping { local, remote } = text.parse().ok()?;
        Some((local, remote.host, remote.port))
    }

    #[test]
    fn ports_are_read_in_each_form() {
        for (text, local, host, port) in [
            ("3000", 3000, "localhost", 3000),
            ("8080:80", 8080, "localhost", 80),
            ("0:80", 0, "localhost", 80),
            ("5432:10.0.0.1:5433", 5432, "10.0.0.1", 5433),
            ("80:[::1]:81", 80, "::1", 81),
        ] {
            assert_eq!(
                mapping(text),
                Some((local, host.to_owned(), port)),
                "{text}"
            );
        }
        for wrong in ["", "0", "x", "80:0", "80:", ":80", "65536", "1:2:x"] {
            assert_eq!(mapping(wrong), None, "{wrong:?}");
        }
        for (text, host) in [
            (":22", "localhost"),
            ("22", "localhost"),
            ("10.0.0.1:22", "10.0.0.1"),
        ] {
            let remote: Remote = text.parse().expect("a port");
            assert_eq!((remote.host.as_str(), remote.port), (host, 22));
        }
    }
}
