//! The host's side of an instance: its addresses, its table, its uplinks.
//!
//! | what | where it is told after a crash |
//! |---|---|
//! | subnet | an unreachable route whose metric is the instance; or the routes of its slots |
//! | rules | the table `inet sprited-<instance>` |
//! | slots | interfaces `sp<instance>*`, files `/run/netns/sprited-<instance>-*` |
//! | forwarding | marks in `/run/sprited-net/forwarding` |
//!
//! Several instances change the host at the same time; whoever does holds the host's lock. All calls block.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, flock};
use sprite_types::InstanceId;

use crate::address::{Subnet, choose_subnet, instance_number, reachable, subnet_of_slot};
use crate::build::{self, Site, Sleepers};
use crate::error::NetError;
use crate::name::{is_ours, slot_of_link, slot_of_netns};
use crate::netlink::{Family, Refused, Socket};
use crate::route::{self, Ipv6, Link, Route};
use crate::slot::{Attachment, SlotId};
use crate::{forwarding, netns, nft};

const DIRECTORY: &str = "/run/sprited-net";
/// Ethernet's, and the least that IPv6 would need.
const MOST_MTU: u32 = 1500;
const LEAST_MTU: u32 = 1280;

/// Keeps other instances from changing the host while it lives.
#[derive(Debug)]
struct HostLock {
    _file: File,
}

impl HostLock {
    fn take() -> Result<Self, NetError> {
        let path = format!("{DIRECTORY}/lock");
        let take = || -> io::Result<File> {
            fs::create_dir_all(DIRECTORY)?;
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        take()
            .map(|file| Self { _file: file })
            .map_err(NetError::step(format!("lock {path}")))
    }
}

/// The host as it is.
struct View {
    links: Vec<Link>,
    routes: Vec<Route>,
    addresses: Vec<Subnet>,
    netns: Vec<String>,
}

impl View {
    fn take() -> Result<Self, NetError> {
        let look = || -> io::Result<Self> {
            let mut socket = Socket::open(Family::Route)?;
            Ok(Self {
                links: route::links(&mut socket)?,
                routes: route::routes(&mut socket)?,
                addresses: route::addresses(&mut socket)?,
                netns: netns::names()?,
            })
        };
        look().map_err(NetError::step(
            "read the host's interfaces, addresses and routes",
        ))
    }

    fn link(&self, route: &Route) -> Option<&Link> {
        self.links.iter().find(|link| Some(link.index) == route.by)
    }

    /// Every slot of which anything is there.
    fn slots(&self, instance: &InstanceId) -> BTreeSet<SlotId> {
        let links = self
            .links
            .iter()
            .filter_map(|link| slot_of_link(instance, &link.name));
        let files = self
            .netns
            .iter()
            .filter_map(|name| slot_of_netns(instance, name));
        links.chain(files).collect()
    }

    fn claim(&self, instance: &InstanceId) -> Option<Subnet> {
        let metric = instance_number(instance);
        self.routes
            .iter()
            .find(|route| route.claim == Some(metric))
            .map(|route| route.to)
    }

    /// The subnet that the instance already has.
    fn subnet(&self, instance: &InstanceId) -> Option<Subnet> {
        let of_slot = |route: &Route| {
            let slot = slot_of_link(instance, &self.link(route)?.name)?;
            subnet_of_slot(slot, route.to.first())
        };
        self.claim(instance)
            .or_else(|| self.routes.iter().find_map(of_slot))
    }

    /// Everything that an address of ours must not meet.
    fn used(&self, resolvers: &[IpAddr]) -> Vec<Subnet> {
        let resolvers = resolvers.iter().filter_map(|ip| match ip {
            IpAddr::V4(ip) => Some(Subnet::host(*ip)),
            IpAddr::V6(_) => None,
        });
        let gateways = self
            .routes
            .iter()
            .filter_map(|route| route.gateway)
            .map(Subnet::host);
        let routes = self.routes.iter().map(|route| route.to);
        self.addresses
            .iter()
            .copied()
            .chain(routes)
            .chain(gateways)
            .chain(resolvers)
            .collect()
    }

    /// The interfaces by which machines' packets leave the host.
    fn uplinks(&self) -> Vec<&Link> {
        let mut uplinks: Vec<&Link> = self
            .routes
            .iter()
            .filter(|route| !route.local && reachable(route.to))
            .filter_map(|route| self.link(route))
            .filter(|link| link.name != "lo" && !is_ours(&link.name))
            .collect();
        uplinks.sort_by_key(|link| link.index);
        uplinks.dedup();
        uplinks
    }
}

/// Sets the host up for an instance; tells which slots an earlier process left.
///
/// # Errors
/// Nothing that was not there before is left.
///
/// # Crash safety
/// Each step is done again by the next call.
pub(crate) fn open(
    instance: &InstanceId,
    attachment: Attachment,
    resolvers: &[IpAddr],
    group: u16,
) -> Result<(Site, BTreeSet<SlotId>), NetError> {
    let _lock = HostLock::take()?;
    netns::prepare_directory().map_err(NetError::step("make /run/netns a shared mount"))?;
    let view = View::take()?;
    let slots = view.slots(instance);
    let subnet = match view.subnet(instance) {
        Some(subnet) => subnet,
        None => choose_subnet(instance, &view.used(resolvers)).ok_or(NetError::NoSubnet)?,
    };
    let site = Site {
        instance: instance.clone(),
        subnet,
        attachment,
        host: netns::current().map_err(NetError::step("open the host's network namespace"))?,
        mtu: AtomicU32::new(MOST_MTU),
        ipv6: Ipv6::detect(),
        group,
        sleepers: Mutex::default(),
    };
    set_up(&site, &view).inspect_err(|_| {
        if let (true, Err(error)) = (slots.is_empty(), take_down(instance)) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "what is left of the half-made host set-up stays");
        }
    })?;
    tracing::info!(%instance, %subnet, slots = slots.len(), "network is open");
    Ok((site, slots))
}

fn set_up(site: &Site, view: &View) -> Result<(), NetError> {
    let Site {
        instance, subnet, ..
    } = site;
    if view.claim(instance).is_none() {
        Socket::open(Family::Route)
            .map_err(Refused::from)
            .and_then(|mut s| s.transact(vec![route::claim(*subnet, instance_number(instance))]))
            .map_err(|refused| NetError::step(format!("claim {subnet}"))(refused.source))?;
    }
    install_table(site)?;
    open_uplinks(site, view)
}

/// Makes the host's rules, or makes them anew.
pub(crate) fn install_table(site: &Site) -> Result<(), NetError> {
    let name = nft::host_table_name(&site.instance);
    let sleepers = sleepers(site);
    let addresses: Vec<_> = sleepers
        .slots
        .iter()
        .map(|slot| site.subnet.slot(*slot))
        .collect();
    nft::install_host_table(&site.instance, site.subnet, site.group, &addresses)
        .map_err(NetError::step(format!("install nftables table {name}")))
}

fn sleepers(site: &Site) -> MutexGuard<'_, Sleepers> {
    // Nothing panics while holding it.
    site.sleepers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on packets for that slot's machine are told. Idempotent.
pub(crate) fn fall_asleep(site: &Site, slot: SlotId) -> Result<(), NetError> {
    let Sleepers { slots, changes } = &mut *sleepers(site);
    nft::add_sleeper(changes, &site.instance, site.subnet.slot(slot))
        .map_err(NetError::step(format!("listen for packets to slot {slot}")))?;
    slots.insert(slot);
    Ok(())
}

/// From now on they are not. Idempotent.
pub(crate) fn wake(site: &Site, slot: SlotId) -> Result<(), NetError> {
    let Sleepers { slots, changes } = &mut *sleepers(site);
    if !slots.contains(&slot) {
        return Ok(());
    }
    nft::remove_sleeper(changes, &site.instance, site.subnet.slot(slot)).map_err(
        NetError::step(format!("listen no more for packets to slot {slot}")),
    )?;
    slots.remove(&slot);
    Ok(())
}

/// Whether that slot's machine sleeps.
pub(crate) fn sleeps(site: &Site, slot: SlotId) -> bool {
    sleepers(site).slots.contains(&slot)
}

/// Follows the host's routes: a new uplink forwards too. Called when routes or interfaces changed.
pub(crate) fn follow_uplinks(site: &Site) -> Result<(), NetError> {
    let _lock = HostLock::take()?;
    open_uplinks(site, &View::take()?)
}

/// Lets all interfaces of the instance and all uplinks forward again, after someone switched it off for the whole
/// host: by a settings file that is applied again, mostly, and not by a wish to stop machines.
pub(crate) fn restore_forwarding(site: &Site) -> Result<(), NetError> {
    let _lock = HostLock::take()?;
    let view = View::take()?;
    let ours = view
        .links
        .iter()
        .filter(|link| slot_of_link(&site.instance, &link.name).is_some());
    let messages: Vec<_> = ours
        .map(|link| route::link_forwards(link.index, site.ipv6))
        .collect();
    let restored = Socket::open(Family::Route)
        .map_err(Refused::from)
        .and_then(|mut socket| socket.transact(messages));
    match restored {
        // A slot went meanwhile; the kernel did the rest all the same.
        Err(refused) if refused.source.raw_os_error() == Some(libc::ENODEV) => {}
        result => result.map_err(|refused| {
            NetError::step("switch on forwarding of the slots' interfaces")(refused.source)
        })?,
    }
    open_uplinks(site, &view)
}

fn open_uplinks(site: &Site, view: &View) -> Result<(), NetError> {
    let uplinks = view.uplinks();
    for link in &uplinks {
        match forwarding::allow(&link.name, &site.instance) {
            // The interface went while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(NetError::step(format!(
                "switch on forwarding of interface {}",
                link.name
            )))?,
        }
    }
    let fits = uplinks
        .iter()
        .map(|link| link.mtu)
        .min()
        .unwrap_or(MOST_MTU);
    site.mtu
        .store(fits.clamp(LEAST_MTU, MOST_MTU), Ordering::Relaxed);
    Ok(())
}

/// The slots of which anything is on the host now.
pub(crate) fn slots(instance: &InstanceId) -> Result<BTreeSet<SlotId>, NetError> {
    Ok(View::take()?.slots(instance))
}

/// Takes away what [`open`] set up. Idempotent; goes on after a failure and returns the first.
pub(crate) fn close(instance: &InstanceId) -> Result<(), NetError> {
    let _lock = HostLock::take()?;
    take_down(instance)
}

fn take_down(instance: &InstanceId) -> Result<(), NetError> {
    let name = nft::host_table_name(instance);
    let table = nft::remove_host_table(instance)
        .map_err(NetError::step(format!("remove nftables table {name}")));
    let forwarding =
        forwarding::forget(instance).map_err(NetError::step("give back forwarding of interfaces"));
    table.and(forwarding).and(unclaim(instance))
}

fn unclaim(instance: &InstanceId) -> Result<(), NetError> {
    let Some(subnet) = View::take()?.claim(instance) else {
        return Ok(());
    };
    Socket::open(Family::Route)
        .map_err(Refused::from)
        .and_then(|mut s| s.transact(vec![route::unclaim(subnet, instance_number(instance))]))
        .map_err(|refused| NetError::step(format!("give back {subnet}"))(refused.source))
}

/// Takes away everything that the instance ever set on this host. Idempotent; goes on after a failure and
/// returns the first.
pub(crate) fn purge(instance: &InstanceId) -> Result<(), NetError> {
    let _lock = HostLock::take()?;
    let slots = slots(instance)?;
    let removed = slots.into_iter().map(|slot| build::remove(instance, slot));
    let removed = removed.fold(Ok(()), Result::and);
    let probe = crate::probe::remove(instance);
    removed.and(probe).and(take_down(instance))
}

/// Whether a route of the host leads to the outside at all.
pub(crate) fn has_default_route() -> Result<bool, NetError> {
    let view = View::take()?;
    Ok(view
        .routes
        .iter()
        .any(|route| route.to == Subnet::EVERYTHING && route.by.is_some()))
}

/// Where a namespace can play the outside: documentation networks, which machines may reach.
const PROBE_NETWORKS: [Ipv4Addr; 3] = [
    Ipv4Addr::new(198, 51, 100, 0),
    Ipv4Addr::new(203, 0, 113, 0),
    Ipv4Addr::new(192, 0, 2, 0),
];

/// Runs `work` with an address that plays the outside: one that no route of the host is about. Other instances
/// change nothing on the host meanwhile.
pub(crate) fn with_probe_address<T>(
    work: impl FnOnce(Ipv4Addr) -> Result<T, NetError>,
) -> Result<T, NetError> {
    let _lock = HostLock::take()?;
    let used = View::take()?.used(&[]);
    let free = |ip: &Ipv4Addr| {
        !used
            .iter()
            .any(|used| used.prefix() > 0 && used.contains(*ip))
    };
    let address = PROBE_NETWORKS
        .into_iter()
        .flat_map(|network| (1..255).map(move |host| Ipv4Addr::from(network.to_bits() + host)))
        .find(free)
        .ok_or(NetError::NoSubnet)?;
    work(address)
}
