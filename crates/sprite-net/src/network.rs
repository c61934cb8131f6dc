//! The network of one instance: slots for machines, some kept ready.
//!
//! Work on the host runs in tasks of the network, not in the callers' futures: a caller that goes away leaves
//! no half-made slot, and a slot that nobody waits for any more is kept ready for the next.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_types::InstanceId;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::{self, DnsSockets, Site};
use crate::dns::{Forwarder, Resolvers, Upstream};
use crate::error::NetError;
use crate::ledger::{Ledger, Release};
use crate::netns::in_thread;
use crate::slot::{Slot, SlotId};
use crate::watch::Watch;
use crate::{diagnose, site};

/// How a network is opened.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Whose network it is: part of every name on the host.
    pub instance: InstanceId,
    /// How many slots are kept ready, so that a machine gets one at once.
    pub pool_size: usize,
    /// Where the host's resolvers are listed; `/etc/resolv.conf`. Read again when it changes.
    pub resolv_conf: PathBuf,
}

impl NetOptions {
    /// The usual: four slots ready, the host's own resolvers.
    #[must_use]
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            pool_size: 4,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        }
    }
}

/// Slots made at the same time. The kernel makes namespaces and links under one lock: two keep it busy.
const MAKERS: usize = 2;
/// Slots removed at the same time: they wait for grace periods of the kernel, which they then share.
const REMOVERS: usize = 16;
/// After a slot for the pool could not be made.
const PAUSE: Duration = Duration::from_secs(1);

/// The network of one instance. Clones are handles of the same.
///
/// When the last handle is dropped without [`Network::close`], its tasks end and the host stays as it is: as
/// after a crash, machines keep their network, without name server until they are adopted.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
    _stop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct StopOnDrop(CancellationToken);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) site: Arc<Site>,
    pub(crate) upstream: Arc<Upstream>,
    pool_size: usize,
    state: Mutex<State>,
    makers: Semaphore,
    removers: Semaphore,
    /// A ready slot was taken.
    taken: Notify,
    /// A removal ended.
    removed: Notify,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    ready: VecDeque<SlotId>,
    forwarders: BTreeMap<SlotId, Forwarder>,
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
        let (site, leftovers) = in_thread(move || site::open(&instance, &resolvers)).await?;
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            site: Arc::new(site),
            upstream,
            pool_size: options.pool_size,
            state: Mutex::new(State {
                ledger: Ledger::new(leftovers),
                ready: VecDeque::new(),
                forwarders: BTreeMap::new(),
            }),
            makers: Semaphore::new(MAKERS),
            removers: Semaphore::new(REMOVERS),
            taken: Notify::new(),
            removed: Notify::new(),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        inner.tasks.spawn(Arc::clone(&inner).fill());
        inner
            .tasks
            .spawn(watch.run(Arc::clone(&inner.site), stop.clone()));
        Ok(Self {
            inner,
            _stop: Arc::new(StopOnDrop(stop)),
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
        if self.inner.stop.is_cancelled() {
            return Err(NetError::Closed);
        }
        if let Some(slot) = self.inner.take_ready() {
            return Ok(self.inner.site.slot(slot));
        }
        let slot = self.inner.reserve()?;
        self.inner.work(slot, |inner| inner.make(slot)).await
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
        {
            let mut state = self.inner.lock();
            if !state.ledger.adopt(slot) {
                return Err(if state.ledger.knows(slot) {
                    NetError::InUse { slot }
                } else {
                    NetError::NotWhole {
                        slot,
                        missing: "everything".to_owned(),
                    }
                });
            }
        }
        self.inner.work(slot, |inner| inner.rejoin(slot)).await
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
        Arc::clone(&self.inner).release(slot).await
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
        let leftovers = self.inner.lock().ledger.leftovers(keep);
        self.inner.release_all(&leftovers).await?;
        Ok(leftovers)
    }

    /// Ends the network. Ready slots are removed; if no slot is left then, so is everything else of the
    /// instance on the host. Slots in use keep working, without name server, for the next process to adopt.
    /// Other handles answer [`NetError::Closed`] from now on.
    ///
    /// # Errors
    /// Something could not be removed; [`Network::purge`] tries again.
    pub async fn close(self) -> Result<(), NetError> {
        let inner = &self.inner;
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        let ready: Vec<SlotId> = inner.lock().ready.drain(..).collect();
        let removed = inner.release_all(&ready).await;
        let forwarders = std::mem::take(&mut inner.lock().forwarders);
        for forwarder in forwarders.into_values() {
            forwarder.stop().await;
        }
        removed?;
        if !inner.lock().ledger.is_empty() {
            return Ok(());
        }
        let instance = inner.site.instance.clone();
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
    pub async fn diagnose(&self) -> Result<Vec<diagnose::Finding>, NetError> {
        diagnose::diagnose(self).await
    }

    /// The instance's addresses on this host.
    #[must_use]
    pub fn subnet(&self) -> crate::address::Subnet {
        self.inner.site.subnet
    }

    /// How many slots are ready now.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.inner.lock().ready.len()
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

/// A slot on its way to whoever waits for it. Dropped on the way, it is kept for the next.
struct Delivery {
    inner: Arc<Inner>,
    slot: Option<SlotId>,
}

impl Delivery {
    fn arrive(mut self) -> Option<SlotId> {
        let slot = self.slot.take()?;
        self.inner.lock().ledger.take(slot);
        Some(slot)
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.inner.lock().ready.push_back(slot);
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a holder leaves the bookkeeping as it was between two steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_ready(&self) -> Option<SlotId> {
        let mut state = self.lock();
        let slot = state.ready.pop_front()?;
        state.ledger.take(slot);
        self.taken.notify_one();
        Some(slot)
    }

    fn reserve(&self) -> Result<SlotId, NetError> {
        let subnet = self.site.subnet;
        self.lock()
            .ledger
            .reserve()
            .ok_or(NetError::Exhausted { subnet })
    }

    /// Runs the making of a slot in a task and waits for it.
    async fn work<F>(
        self: &Arc<Self>,
        slot: SlotId,
        work: impl FnOnce(Arc<Self>) -> F,
    ) -> Result<Slot, NetError>
    where
        F: Future<Output = Result<(), NetError>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let (inner, work) = (Arc::clone(self), work(Arc::clone(self)));
        self.tasks.spawn(async move {
            let made = work.await;
            let delivery = made.map(|()| Delivery {
                inner,
                slot: Some(slot),
            });
            // Whoever waited is gone: the delivery, dropped, keeps the slot.
            let _ = sender.send(delivery);
        });
        let delivery = receiver.await.map_err(|_| NetError::Closed)??;
        let slot = delivery.arrive().ok_or(NetError::Closed)?;
        Ok(self.site.slot(slot))
    }

    /// Makes a reserved slot; afterwards it is ready, or as if it had never been.
    async fn make(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        let made = {
            let _maker = self.makers.acquire().await.map_err(|_| NetError::Closed)?;
            let site = Arc::clone(&self.site);
            in_thread(move || build::build(&site, slot)).await
        };
        match made.and_then(|sockets| self.serve(slot, sockets)) {
            Ok(()) => {
                self.lock().ledger.built(slot);
                Ok(())
            }
            Err(error) => {
                self.lock().ledger.undone(slot);
                Err(error)
            }
        }
    }

    async fn rejoin(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        let site = Arc::clone(&self.site);
        let joined = in_thread(move || build::rejoin(&site, slot)).await;
        match joined.and_then(|sockets| self.serve(slot, sockets)) {
            Ok(()) => {
                self.lock().ledger.built(slot);
                Ok(())
            }
            Err(error) => {
                self.lock().ledger.left(slot);
                Err(error)
            }
        }
    }

    fn serve(&self, slot: SlotId, sockets: DnsSockets) -> Result<(), NetError> {
        let forwarder = Forwarder::start(sockets, Arc::clone(&self.upstream)).map_err(
            NetError::step(format!("serve the name server of slot {slot}")),
        )?;
        self.lock().forwarders.insert(slot, forwarder);
        Ok(())
    }

    /// Keeps the pool full until the network is closed.
    async fn fill(self: Arc<Self>) {
        loop {
            let full = self.lock().ready.len() >= self.pool_size;
            if full {
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = self.taken.notified() => continue,
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
            let made = match self.reserve() {
                Ok(slot) => {
                    let made = Arc::clone(&self).make(slot).await;
                    made.map(|()| self.lock().ready.push_back(slot))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = made {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "make a slot for the pool");
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    }

    async fn release(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        loop {
            let removed = self.removed.notified();
            let found = {
                let mut state = self.lock();
                state.ready.retain(|ready| *ready != slot);
                state.ledger.begin_release(slot)
            };
            match found {
                Release::Absent => return Ok(()),
                Release::Making => return Err(NetError::InUse { slot }),
                Release::Elsewhere => removed.await,
                Release::Begun => break,
            }
        }
        // A task of its own, but not one that `close` waits for: `close` releases too.
        let (sender, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let _ = sender.send(self.remove(slot).await);
        });
        receiver.await.map_err(|_| NetError::Closed)?
    }

    async fn remove(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        let forwarder = self.lock().forwarders.remove(&slot);
        if let Some(forwarder) = forwarder {
            forwarder.stop().await;
        }
        let removed = {
            let _remover = self
                .removers
                .acquire()
                .await
                .map_err(|_| NetError::Closed)?;
            let instance = self.site.instance.clone();
            in_thread(move || build::remove(&instance, slot)).await
        };
        {
            let mut state = self.lock();
            match &removed {
                Ok(()) => state.ledger.released(slot),
                Err(_) => state.ledger.left(slot),
            }
        }
        self.removed.notify_waiters();
        removed
    }

    /// Releases all, at the same time; returns the first failure after the last end.
    async fn release_all(self: &Arc<Self>, slots: &[SlotId]) -> Result<(), NetError> {
        let mut releases: tokio::task::JoinSet<_> = slots
            .iter()
            .map(|slot| Arc::clone(self).release(*slot))
            .collect();
        let mut first = Ok(());
        while let Some(ended) = releases.join_next().await {
            first = first.and(ended.map_err(|_| NetError::Closed).flatten());
        }
        first
    }
}
