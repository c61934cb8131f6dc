//! The door: the network of one instance.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sprite_types::{Egress, InstanceId};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::Subnet;
use crate::build::{self, Site};
use crate::diagnose::{self, Finding};
use crate::dns::{Resolvers, Upstream};
use crate::error::NetError;
use crate::inward::{Sockets, SpareSockets};
use crate::knock::Knocks;
use crate::netns::in_thread;
use crate::site;
use crate::slot::{Attachment, Slot, SlotId, Traffic};
use crate::slots::Slots;
use crate::tap::TapOwner;
use crate::watch::Watch;

/// How a network is opened.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Whose network it is: part of every name on the host.
    pub instance: InstanceId,
    /// How many slots are kept ready, so that a machine gets one at once.
    pub pool_size: usize,
    /// How its machines hold on to their slots.
    pub attachment: Attachment,
    /// Where the host's resolvers are listed; `/etc/resolv.conf`. Read again when it changes.
    pub resolv_conf: PathBuf,
}

impl NetOptions {
    /// The usual: four slots ready, for machines of processes, the host's own resolvers.
    #[must_use]
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            pool_size: 4,
            attachment: Attachment::Interface,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// The network of one instance. Clones are handles of the same.
///
/// When the last handle is dropped without [`Network::close`], its tasks end and the host stays as it is: as
/// after a crash, machines keep their network, without name server until they are adopted.
#[derive(Debug, Clone)]
pub struct Network {
    site: Arc<Site>,
    upstream: Arc<Upstream>,
    slots: Arc<Slots>,
    knocks: Arc<Knocks>,
    sockets: Arc<Sockets>,
    /// The tasks that run as long as the network is open.
    tasks: TaskTracker,
    stop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Network {
    /// Opens the network: claims a subnet that the host does not use, installs the instance's nftables table,
    /// lets the uplinks forward, and begins to fill the pool. Slots of an earlier process are left as they are
    /// until they are adopted or swept. Within a tokio runtime whose threads stand in the host's namespace.
    ///
    /// # Errors
    /// Not root, no nf_tables in the kernel, no free subnet. Nothing new is left on the host.
    ///
    /// # Cancel safety
    /// The set-up goes on in its thread; the next open or [`Network::purge`] finds it.
    ///
    /// # Crash safety
    /// May be called after a crash at any point.
    pub async fn open(options: NetOptions) -> Result<Self, NetError> {
        let upstream = Arc::new(Upstream::new(Resolvers::new(options.resolv_conf)));
        let resolvers: Vec<_> = match upstream.resolvers().now() {
            Ok(resolvers) => resolvers.iter().map(std::net::SocketAddr::ip).collect(),
            // Told by `diagnose`, and by each question that fails.
            Err(_) => Vec::new(),
        };
        // Before the first look at the host, so that no change falls between.
        let watch = Watch::begin()?;
        let instance = options.instance;
        let knocks = Knocks::begin(&instance)?;
        let group = knocks.group;
        let (site, leftovers) =
            in_thread(move || site::open(&instance, options.attachment, &resolvers, group)).await?;
        let site = Arc::new(site);
        let slots = Slots::new(Arc::clone(&site), Arc::clone(&upstream), leftovers);
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(Arc::clone(&slots).keep_ready(options.pool_size, stop.clone()));
        tasks.spawn(watch.run(Arc::clone(&site), stop.clone()));
        tasks.close();
        Ok(Self {
            site,
            upstream,
            slots,
            knocks: Arc::new(knocks),
            sockets: Arc::default(),
            tasks,
            stop: Arc::new(StopOnDrop(stop)),
        })
    }

    /// A slot for a machine: a ready one at once, else one made now. Fresh in any case.
    ///
    /// # Errors
    /// The host refused a step (the slot is undone), or no number is free.
    ///
    /// # Cancel safety
    /// A slot that was being made is kept ready for the next.
    pub async fn acquire(&self) -> Result<Slot, NetError> {
        self.slots.acquire().await.map(|slot| self.site.slot(slot))
    }

    /// Takes over a slot that a machine of an earlier process uses; its name server answers again.
    ///
    /// # Errors
    /// [`NetError::NotWhole`] when a part is missing or there is no such slot, [`NetError::InUse`] when this
    /// network has handed it out.
    ///
    /// # Cancel safety
    /// A slot whose adoption nobody waits for is left for the sweep.
    pub async fn adopt(&self, slot: SlotId) -> Result<Slot, NetError> {
        self.slots
            .adopt(slot)
            .await
            .map(|slot| self.site.slot(slot))
    }

    /// Says who may hold the tap of a slot that was handed out; before that it is root alone. The slot's
    /// machine is not started yet.
    ///
    /// # Errors
    /// The slot has no tap, or somebody holds it.
    ///
    /// # Cancel safety
    /// It is done nevertheless.
    pub async fn assign_tap(&self, slot: SlotId, owner: TapOwner) -> Result<(), NetError> {
        let site = Arc::clone(&self.site);
        in_thread(move || build::assign_tap(&site, slot, owner)).await
    }

    /// Closes a slot that was handed out, or opens it again; a fresh one is open. Closed, nothing passes between
    /// its machine and the outside, and its questions for names are refused. Connections that it had are cut:
    /// their next segment is answered by a reset. Stays so when this process ends, and when another adopts the
    /// slot. Idempotent.
    ///
    /// Must not be called while the slot is being released.
    ///
    /// # Errors
    /// The slot is not whole, or the kernel refused: it is as it was, but for names, which are closed first.
    ///
    /// # Cancel safety
    /// It is done nevertheless.
    pub async fn set_egress(&self, slot: SlotId, egress: Egress) -> Result<(), NetError> {
        self.slots.set_egress(slot, egress).await
    }

    /// What a driver needs to know about a slot that it has.
    #[must_use]
    pub fn slot(&self, slot: SlotId) -> Slot {
        self.site.slot(slot)
    }

    /// Whether the slot's machine has connections to the outside that may go on: TCP that is established, and flows
    /// of datagrams in which both sides spoke lately.
    ///
    /// # Errors
    /// The slot is not whole, or the kernel does not tell.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn is_connected(&self, slot: SlotId) -> Result<bool, NetError> {
        let site = Arc::clone(&self.site);
        in_thread(move || build::is_connected(&site, slot)).await
    }

    /// Connects to a port on which a process of the slot's machine listens, on its loopback interface. Where a virtual
    /// machine is attached, nothing of it is there. `spare` is that machine's.
    ///
    /// # Errors
    /// The slot is not whole, or nobody takes the connection.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn connect(
        &self,
        slot: SlotId,
        spare: &SpareSockets,
        port: u16,
    ) -> io::Result<TcpStream> {
        self.sockets.connect(&self.site, slot, spare, port).await
    }

    /// The machine of a slot sleeps: from now on [`Network::knocked`] tells of packets that come on connections
    /// which it opened. Until it is awake, or the slot is released. Idempotent.
    ///
    /// # Errors
    /// The kernel refused.
    ///
    /// # Cancel safety
    /// It is done nevertheless.
    pub async fn fall_asleep(&self, slot: SlotId) -> Result<(), NetError> {
        let site = Arc::clone(&self.site);
        in_thread(move || site::fall_asleep(&site, slot)).await
    }

    /// The machine of a slot is awake, and hears its packets itself. Idempotent.
    ///
    /// # Errors
    /// The kernel refused.
    ///
    /// # Cancel safety
    /// It is done nevertheless.
    pub async fn wake(&self, slot: SlotId) -> Result<(), NetError> {
        if !site::sleeps(&self.site, slot) {
            return Ok(());
        }
        let site = Arc::clone(&self.site);
        in_thread(move || site::wake(&site, slot)).await
    }

    /// Waits until packets have come for machines that sleep, and says whose slots those are. Told again and again
    /// while they come; one caller at a time.
    ///
    /// # Errors
    /// The kernel's socket failed.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn knocked(&self) -> Result<Vec<SlotId>, NetError> {
        loop {
            let slots = self.knocks.next(self.site.subnet).await;
            let mut slots = slots.map_err(NetError::step("hear packets to machines that sleep"))?;
            slots.retain(|slot| site::sleeps(&self.site, *slot));
            if !slots.is_empty() {
                return Ok(slots);
            }
        }
    }

    /// What went through a slot since it was made, which is when its machine had not begun. Takes some microseconds.
    ///
    /// # Errors
    /// There is no such slot.
    pub fn traffic(&self, slot: SlotId) -> Result<Traffic, NetError> {
        build::traffic(&self.site.instance, slot)
    }

    /// Gives a slot back: its namespaces, links and addresses go. The machine must have ended; what still runs
    /// in it has no network any more. Idempotent.
    ///
    /// # Errors
    /// Something could not be removed; calling again tries again.
    ///
    /// # Cancel safety
    /// The removal goes on.
    pub async fn release(&self, slot: SlotId) -> Result<(), NetError> {
        self.slots.release(slot).await
    }

    /// Removes every slot that an earlier process left and that is not in `keep`; returns them. Called once,
    /// when all slots still in use are adopted.
    ///
    /// # Errors
    /// The first failure; the others are removed nevertheless, and calling again tries again.
    ///
    /// # Cancel safety
    /// Removals that began go on.
    pub async fn sweep(&self, keep: &[SlotId]) -> Result<Vec<SlotId>, NetError> {
        self.slots.sweep(keep).await
    }

    /// Ends the network. Ready slots are removed; if no slot is left then, so is everything else of the
    /// instance on the host. Slots in use keep working, without name server, for the next process to adopt.
    /// Other handles answer [`NetError::Closed`] from now on.
    ///
    /// # Errors
    /// Something could not be removed; [`Network::purge`] tries again.
    pub async fn close(self) -> Result<(), NetError> {
        self.stop.0.cancel();
        // First whoever makes slots and whoever restores the table; then slots and table.
        self.tasks.wait().await;
        self.slots.close().await?;
        if !self.slots.is_empty() {
            return Ok(());
        }
        let instance = self.site.instance.clone();
        in_thread(move || site::close(&instance)).await
    }

    /// Removes all that the instance ever set on this host, whether or not a server ran last. Not while one
    /// runs. Idempotent.
    ///
    /// # Errors
    /// The first thing that could not be removed; the rest is removed nevertheless.
    pub async fn purge(instance: &InstanceId) -> Result<(), NetError> {
        let instance = instance.clone();
        in_thread(move || site::purge(&instance)).await
    }

    /// Finds out why machines may have no network on this host: sends a packet the way that a machine's takes,
    /// to a namespace that plays the outside, and names whose rules stop it.
    ///
    /// # Errors
    /// The host would not let us try.
    pub async fn diagnose(&self) -> Result<Vec<Finding>, NetError> {
        diagnose::diagnose(self, &self.site, &self.upstream).await
    }

    /// The instance's addresses on this host.
    #[must_use]
    pub fn subnet(&self) -> Subnet {
        self.site.subnet
    }

    /// How many slots are ready now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.slots.ready()
    }
}
