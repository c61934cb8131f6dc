//! All slots of an instance: making, keeping some ready, handing out, removing.
//!
//! Work on the host runs in tasks of this module, not in the callers' futures: a caller that goes away leaves no
//! half-made slot. A slot made for a caller that went away is kept ready for the next; a slot that was being
//! adopted for one is a leftover again, for a machine still uses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_types::Egress;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::build::{self, DnsSockets, Site};
use crate::dns::{Forwarder, Upstream};
use crate::error::NetError;
use crate::ledger::{Ledger, Release};
use crate::netns::in_thread;
use crate::site;
use crate::slot::SlotId;

/// Slots made at the same time. The kernel makes namespaces and links under one lock: two keep it busy.
const MAKERS: usize = 2;
/// Slots removed at the same time: they wait for grace periods of the kernel, which they then share.
const REMOVERS: usize = 16;
/// After a slot to keep ready could not be made.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Slots {
    site: Arc<Site>,
    upstream: Arc<Upstream>,
    state: Mutex<State>,
    makers: Semaphore,
    removers: Semaphore,
    /// A ready slot was taken.
    taken: Notify,
    /// A removal ended.
    removed: Notify,
    /// Slots being made or adopted.
    tasks: TaskTracker,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    ready: VecDeque<SlotId>,
    forwarders: BTreeMap<SlotId, Forwarder>,
    closed: bool,
}

/// What becomes of a slot whose caller went away.
#[derive(Debug, Clone, Copy)]
enum Unclaimed {
    /// It was made for the caller: the next one gets it.
    Ready,
    /// A machine of an earlier process uses it.
    Leftover,
}

/// A slot on its way to its caller.
struct Delivery {
    slots: Arc<Slots>,
    slot: SlotId,
    unclaimed: Option<Unclaimed>,
}

impl Delivery {
    fn arrive(mut self) -> SlotId {
        self.unclaimed = None;
        self.slots.lock().ledger.take(self.slot);
        self.slot
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        match self.unclaimed {
            None => {}
            Some(Unclaimed::Ready) => state.ready.push_back(self.slot),
            Some(Unclaimed::Leftover) => {
                // Its sockets close with it.
                state.forwarders.remove(&self.slot);
                state.ledger.left(self.slot);
            }
        }
    }
}

impl Slots {
    pub(crate) fn new(
        site: Arc<Site>,
        upstream: Arc<Upstream>,
        leftovers: BTreeSet<SlotId>,
    ) -> Arc<Self> {
        let state = State {
            ledger: Ledger::new(leftovers),
            ready: VecDeque::new(),
            forwarders: BTreeMap::new(),
            closed: false,
        };
        Arc::new(Self {
            site,
            upstream,
            state: Mutex::new(state),
            makers: Semaphore::new(MAKERS),
            removers: Semaphore::new(REMOVERS),
            taken: Notify::new(),
            removed: Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in a holder leaves the bookkeeping as it was between two steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ready(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether nothing of any slot is on the host.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().ledger.is_empty()
    }

    /// See [`Network::acquire`](crate::Network::acquire).
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<SlotId, NetError> {
        let slot = {
            let mut state = self.lock();
            if state.closed {
                return Err(NetError::Closed);
            }
            if let Some(slot) = state.ready.pop_front() {
                state.ledger.take(slot);
                self.taken.notify_one();
                return Ok(slot);
            }
            self.reserve(&mut state)?
        };
        let making = Arc::clone(self).make(slot);
        self.deliver(slot, Unclaimed::Ready, making).await
    }

    /// See [`Network::adopt`](crate::Network::adopt).
    pub(crate) async fn adopt(self: &Arc<Self>, slot: SlotId) -> Result<SlotId, NetError> {
        {
            let mut state = self.lock();
            if state.closed {
                return Err(NetError::Closed);
            }
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
        let joining = Arc::clone(self).rejoin(slot);
        self.deliver(slot, Unclaimed::Leftover, joining).await
    }

    fn reserve(&self, state: &mut State) -> Result<SlotId, NetError> {
        let subnet = self.site.subnet;
        state.ledger.reserve().ok_or(NetError::Exhausted { subnet })
    }

    /// Runs the making of a slot in a task and waits for it.
    async fn deliver(
        self: &Arc<Self>,
        slot: SlotId,
        unclaimed: Unclaimed,
        work: impl Future<Output = Result<(), NetError>> + Send + 'static,
    ) -> Result<SlotId, NetError> {
        let (sender, receiver) = oneshot::channel();
        let slots = Arc::clone(self);
        self.tasks.spawn(async move {
            let done = work.await;
            let delivery = done.map(|()| Delivery {
                slots,
                slot,
                unclaimed: Some(unclaimed),
            });
            // If nobody waits any more, dropping the delivery says what becomes of the slot.
            drop(sender.send(delivery));
        });
        let delivery: Delivery = receiver.await.map_err(|_| NetError::Closed)??;
        Ok(delivery.arrive())
    }

    /// Makes a reserved slot; afterwards it is ready, or as if it had never been.
    async fn make(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        let made = {
            let _maker = self.makers.acquire().await.map_err(|_| NetError::Closed)?;
            let site = Arc::clone(&self.site);
            in_thread(move || build::build(&site, slot)).await
        };
        let sockets = match made {
            Ok(sockets) => sockets,
            Err(error) => {
                self.lock().ledger.undone(slot);
                return Err(error);
            }
        };
        if let Err(error) = self.serve(slot, sockets) {
            // Everything is there but the name server: what is left is removed by the next sweep or close.
            self.lock().ledger.left(slot);
            return Err(error);
        }
        self.lock().ledger.built(slot);
        Ok(())
    }

    async fn rejoin(self: Arc<Self>, slot: SlotId) -> Result<(), NetError> {
        let site = Arc::clone(&self.site);
        let joined = in_thread(move || build::rejoin(&site, slot)).await;
        let served = joined.and_then(|sockets| self.serve(slot, sockets));
        let mut state = self.lock();
        match &served {
            Ok(()) => state.ledger.built(slot),
            Err(_) => state.ledger.left(slot),
        }
        served
    }

    fn serve(&self, slot: SlotId, sockets: DnsSockets) -> Result<(), NetError> {
        let forwarder = Forwarder::start(sockets, Arc::clone(&self.upstream)).map_err(
            NetError::step(format!("serve the name server of slot {slot}")),
        )?;
        self.lock().forwarders.insert(slot, forwarder);
        Ok(())
    }

    /// Keeps `count` slots ready until `stop`.
    pub(crate) async fn keep_ready(self: Arc<Self>, count: usize, stop: CancellationToken) {
        loop {
            if stop.is_cancelled() {
                return;
            }
            if self.ready() >= count {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.taken.notified() => continue,
                }
            }
            let reserved = self.reserve(&mut self.lock());
            let made = match reserved {
                Ok(slot) => Arc::clone(&self).make(slot).await.map(|()| slot),
                Err(error) => Err(error),
            };
            match made {
                Ok(slot) => self.lock().ready.push_back(slot),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn Error, "make a slot to keep ready");
                    drop(error);
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep(PAUSE) => {}
                    }
                }
            }
        }
    }

    /// See [`Network::release`](crate::Network::release).
    pub(crate) async fn release(self: &Arc<Self>, slot: SlotId) -> Result<(), NetError> {
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
        let (sender, receiver) = oneshot::channel();
        let slots = Arc::clone(self);
        tokio::spawn(async move {
            // The caller may be gone; the removal is done all the same.
            drop(sender.send(slots.remove(slot).await));
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
            let site = Arc::clone(&self.site);
            in_thread(move || {
                let awake = site::wake(&site, slot);
                build::remove(&site.instance, slot).and(awake)
            })
            .await
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

    /// See [`Network::set_egress`](crate::Network::set_egress).
    pub(crate) async fn set_egress(
        self: &Arc<Self>,
        slot: SlotId,
        egress: Egress,
    ) -> Result<(), NetError> {
        let (sender, receiver) = oneshot::channel();
        let slots = Arc::clone(self);
        tokio::spawn(async move {
            // The caller may be gone; it is done all the same.
            drop(sender.send(slots.switch(slot, egress).await));
        });
        receiver.await.map_err(|_| NetError::Closed)?
    }

    /// Names are closed first and opened last: whoever can look one up can reach it.
    async fn switch(&self, slot: SlotId, egress: Egress) -> Result<(), NetError> {
        match egress {
            Egress::Closed => self.switch_names(slot, egress),
            Egress::Open => {}
        }
        let site = Arc::clone(&self.site);
        in_thread(move || build::set_egress(&site, slot, egress)).await?;
        match egress {
            Egress::Open => self.switch_names(slot, egress),
            Egress::Closed => {}
        }
        Ok(())
    }

    fn switch_names(&self, slot: SlotId, egress: Egress) {
        if let Some(forwarder) = self.lock().forwarders.get(&slot) {
            forwarder.set_egress(egress);
        }
    }

    /// See [`Network::sweep`](crate::Network::sweep).
    pub(crate) async fn sweep(self: &Arc<Self>, keep: &[SlotId]) -> Result<Vec<SlotId>, NetError> {
        let leftovers = self.lock().ledger.leftovers(keep);
        self.release_all(&leftovers).await?;
        Ok(leftovers)
    }

    /// Hands out no more slots, removes those that are ready, and ends all name servers.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), NetError> {
        self.lock().closed = true;
        self.tasks.close();
        self.tasks.wait().await;
        let ready: Vec<SlotId> = self.lock().ready.drain(..).collect();
        let removed = self.release_all(&ready).await;
        let forwarders = std::mem::take(&mut self.lock().forwarders);
        for forwarder in forwarders.into_values() {
            forwarder.stop().await;
        }
        removed
    }

    /// Releases all, at the same time; returns the first failure after the last end.
    async fn release_all(self: &Arc<Self>, slots: &[SlotId]) -> Result<(), NetError> {
        let mut releases = JoinSet::new();
        for slot in slots.iter().copied() {
            let all = Arc::clone(self);
            releases.spawn(async move { all.release(slot).await });
        }
        let mut first = Ok(());
        while let Some(ended) = releases.join_next().await {
            first = first.and(ended.map_err(|_| NetError::Closed).flatten());
        }
        first
    }
}
