//! Addresses to listen on, names of sprites, and the way of a machine's packets.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use sprite_net::{Attachment, NetOptions, Network};
use sprite_types::{DriverKind, InstanceId};

use super::check::{Check, told};
use super::data::Data;
use crate::config::{Config, Listen, UrlDomain};
use crate::serve::Stop;

/// The mark of what is set up to look at the network. Always the same, so that what a killed doctor left is found
/// and removed by the next one.
const INSTANCE: &str = "doctor";

/// A resolver that does not answer by then does not answer.
const RESOLVE_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn addresses(config: &Config, data: &Data) -> Vec<Check> {
    const NAME: &str = "address";
    if data.serving() {
        return vec![Check::ok(NAME, "held by the server that runs")];
    }
    config
        .listen
        .iter()
        .map(|listen| address(NAME, *listen))
        .collect()
}

fn address(name: &'static str, Listen { address, required }: Listen) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(name, format!("{address} is free")),
        Err(error) if !required => {
            Check::ok(name, format!("{address} is left out: {}", told(&error)))
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Check::unseen(name),
        Err(error) => Check::problem(
            name,
            format!("{address}: {}", told(&error)),
            "choose another address with --listen ADDR:PORT",
        ),
    }
}

/// Whether programs on this host find a sprite by its URL.
pub(crate) async fn names(domain: &UrlDomain) -> Check {
    const NAME: &str = "names";
    let domain = domain.name();
    let name = format!("doctor.{domain}");
    let local = domain == "localhost" || domain.ends_with(".localhost");
    let remedy = if local {
        "browsers and curl find such names by themselves; for other programs: apt-get install libnss-myhostname"
            .to_owned()
    } else {
        format!("let the names *.{domain} lead to this host, by one record of a name server")
    };
    let asked =
        tokio::time::timeout(RESOLVE_WITHIN, tokio::net::lookup_host((name.as_str(), 0))).await;
    match asked {
        Ok(Ok(mut found)) => match found.next() {
            Some(first) if local && !first.ip().is_loopback() => Check::warning(
                NAME,
                format!("{name} leads to {}, away from this host", first.ip()),
                remedy,
            ),
            Some(first) => Check::ok(NAME, format!("{name} leads to {}", first.ip())),
            None => Check::warning(NAME, format!("{name} leads nowhere"), remedy),
        },
        Ok(Err(error)) => Check::warning(
            NAME,
            format!("{name} is not found: {}", told(&error)),
            remedy,
        ),
        Err(_) => Check::warning(
            NAME,
            format!("{name}: no answer in {RESOLVE_WITHIN:?}"),
            remedy,
        ),
    }
}

/// Sends a packet the way that a machine's takes, through a network that is set up for it and removed. For virtual
/// machines, then sets up what one of them holds on to.
pub(super) async fn way_out(driver: DriverKind) -> Vec<Check> {
    if !rustix::process::geteuid().is_root() {
        return vec![Check::unseen(NAME)];
    }
    let turn = match Turn::take() {
        Ok(turn) => turn,
        Err(error) => return vec![failed(told(&error))],
    };
    let Some(_turn) = turn else {
        return vec![Check::warning(
            NAME,
            "another sprited doctor looks at it now",
            "try again when that has ended",
        )];
    };
    // Whoever stops us while the network stands still has it removed.
    let mut stop = match Stop::listen() {
        Ok(stop) => stop,
        Err(error) => return vec![failed(told(&error))],
    };
    let looked = async {
        let mut checks = passage().await;
        match driver {
            // Both bear one mark: the first is gone before the second is set up.
            DriverKind::Microvm => {
                checks.extend(removed().await);
                checks.push(tap().await);
            }
            DriverKind::Container => {}
        }
        checks
    };
    let mut checks = tokio::select! {
        looked = looked => looked,
        _ = stop.wait() => vec![failed("it was not looked at to the end".to_owned())],
    };
    checks.extend(removed().await);
    checks
}

const NAME: &str = "network";

fn failed(found: String) -> Check {
    let remedy = "machines need veth, bridge and nf_tables in the kernel; dmesg may say more";
    Check::problem(NAME, found, remedy)
}

fn instance() -> InstanceId {
    INSTANCE.parse().expect("six letters are a legal mark")
}

fn options() -> NetOptions {
    NetOptions {
        pool_size: 0,
        ..NetOptions::new(instance())
    }
}

async fn passage() -> Vec<Check> {
    let looked = async {
        let network = Network::open(options()).await?;
        network.diagnose().await
    };
    match looked.await {
        Err(error) => vec![failed(told(&error))],
        Ok(findings) if findings.is_empty() => {
            vec![Check::ok(
                NAME,
                "packets of machines pass, and their answers",
            )]
        }
        Ok(findings) => findings
            .into_iter()
            .map(|finding| Check::problem(NAME, finding.problem, finding.remedy))
            .collect(),
    }
}

/// What a monitor of a virtual machine holds its network by.
async fn tap() -> Check {
    const NAME: &str = "taps";
    let made = async {
        let network = Network::open(NetOptions {
            attachment: Attachment::Tap,
            ..options()
        })
        .await?;
        let slot = network.acquire().await?;
        network.release(slot.id).await
    };
    match made.await {
        Ok(()) => Check::ok(NAME, "a virtual machine's network can be made"),
        Err(error) => Check::problem(
            NAME,
            told(&error),
            "load the modules: modprobe -a tun bridge veth",
        ),
    }
}

/// Removes what was set up; says only what went wrong.
async fn removed() -> Vec<Check> {
    match Network::purge(&instance()).await {
        Ok(()) => Vec::new(),
        Err(error) => vec![failed(format!(
            "remove what was set up to look: {}",
            told(&error)
        ))],
    }
}

/// One looks at a time. A name that needs no file and goes with its process; like what is set up, it belongs to the
/// host's network namespace.
struct Turn {
    _name: UnixListener,
}

impl Turn {
    /// `None`: another looks now.
    fn take() -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name("sprited-doctor")?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Some(Self { _name: listener })),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }
}
