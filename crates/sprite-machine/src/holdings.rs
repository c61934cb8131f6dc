//! What machines have on the host, whichever driver made them: records, cgroups, network slots, user ids.
//!
//! # Crash safety
//! A record is written before anything else of a machine is made, and removed after everything else is gone. What
//! has no record is found by its name: everything carries the instance.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_net::{Network, SlotId};
use sprite_types::{Egress, InstanceId, MachineId, SpriteId};

use crate::cgroup::{Cgroups, Part};
use crate::failure::network;
use crate::range;
use crate::record::{Record, RecordDirectory};
use crate::{Identity, MachineError, Statistics};

/// Most networks that are kept of machines that sleep: a third of all slots.
const MOST_KEPT: usize = 1365;

/// Of machines that sleep.
#[derive(Default)]
struct Asleep {
    /// Whose slots are listened to.
    listening: HashMap<SlotId, SpriteId>,
    /// What is left of machines whose memory was written.
    kept: HashMap<MachineId, Record>,
}

/// What the machines of an instance have.
pub(crate) struct Holdings {
    asleep: Mutex<Asleep>,
    pub(crate) cgroups: Cgroups,
    pub(crate) records: RecordDirectory,
    pub(crate) network: Network,
    pub(crate) ranges_dir: PathBuf,
}

impl Holdings {
    pub(crate) fn open(
        instance: &InstanceId,
        run_dir: &Path,
        ranges_dir: PathBuf,
        network: Network,
    ) -> Result<Self, MachineError> {
        Ok(Self {
            cgroups: Cgroups::find(instance)?,
            records: RecordDirectory::open(run_dir)?,
            network,
            ranges_dir,
            asleep: Mutex::default(),
        })
    }

    /// Removes what is not of one machine, if no machine is left, running or asleep.
    pub(crate) fn close(&self) -> Result<(), MachineError> {
        if !self.cgroups.all()?.is_empty() {
            return Ok(());
        }
        self.cgroups.remove_parent()?;
        if !self.asleep().kept.is_empty() {
            return Ok(());
        }
        self.records.remove_all()
    }

    /// Removes what a machine has; its record goes last. What still runs of it is killed. Idempotent.
    pub(crate) async fn remove(&self, record: &Record) -> Result<(), MachineError> {
        self.cgroups.remove(&record.group()).await?;
        if let Some(slot) = record.slot
            && !self.is_kept_for(slot, record)
        {
            self.asleep().listening.remove(&slot);
            self.network
                .release(slot)
                .await
                .map_err(network("give back the network slot"))?;
        }
        self.records.remove(record.identity.machine)
    }

    /// Removes what a start that failed has made, which its record says. What cannot be undone now is swept at the
    /// next start; the first failure is the one to tell.
    pub(crate) async fn undo(&self, machine: MachineId) {
        let undone = match self.records.read(machine) {
            Ok(Some(record)) => self.remove(&record).await,
            Ok(None) => self.records.remove(machine),
            Err(error) => Err(error),
        };
        if let Err(error) = undone {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(%machine, error, "undo a failed start");
        }
    }

    /// Our mark on the user ids of a machine of an earlier process, and its network again; `None` if either is
    /// lost: it was being ended, or somebody else took it apart.
    pub(crate) async fn adopt(&self, record: &Record) -> Option<OwnedFd> {
        let machine = record.identity.machine;
        let (base, slot) = (record.id_base?, record.slot?);
        let mark = match range::mark(&self.ranges_dir, base) {
            Ok(mark) => mark,
            Err(error) => {
                tracing::warn!(%machine, %error, "end a machine that let go of its user ids");
                return None;
            }
        };
        match self.network.adopt(slot).await {
            Ok(_) => Some(mark),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(%machine, error, "end a machine without network");
                None
            }
        }
    }

    /// Closes a machine's network, or opens it.
    pub(crate) async fn set_egress(
        &self,
        record: &Record,
        egress: Egress,
    ) -> Result<(), MachineError> {
        let Some(slot) = record.slot else {
            // It has no network at all.
            return Ok(());
        };
        let set = self.network.set_egress(slot, egress).await;
        set.map_err(network("close or open the network"))
    }

    /// A machine sleeps: what comes for it is told by [`Holdings::called`]. Idempotent.
    pub(crate) async fn fall_asleep(&self, record: &Record) -> Result<(), MachineError> {
        let Some(slot) = record.slot else {
            return Ok(());
        };
        self.asleep().listening.insert(slot, record.identity.sprite);
        let told = self.network.fall_asleep(slot).await;
        told.map_err(network("listen for the machine"))
    }

    /// It is awake. Idempotent.
    pub(crate) async fn wake(&self, record: &Record) -> Result<(), MachineError> {
        let Some(slot) = record.slot else {
            return Ok(());
        };
        self.asleep().listening.remove(&slot);
        let awake = self.network.wake(slot).await;
        awake.map_err(network("listen no more for the machine"))
    }

    /// For which sprites that sleep something has come.
    pub(crate) async fn called(&self) -> Result<Vec<SpriteId>, MachineError> {
        loop {
            let knocked = self.network.knocked().await;
            let knocked = knocked.map_err(network("hear what comes for machines that sleep"))?;
            let asleep = self.asleep();
            let called = knocked.iter().filter_map(|slot| asleep.listening.get(slot));
            let called: Vec<SpriteId> = called.copied().collect();
            if !called.is_empty() {
                return Ok(called);
            }
        }
    }

    /// Removes what a machine has whose process ended with its memory written, and keeps its network if it has
    /// connections. What cannot be kept is no failure: the connections are lost, and the memory is not.
    pub(crate) async fn keep(&self, record: &Record) -> Result<(), MachineError> {
        match self.try_to_keep(record).await {
            Ok(true) => Ok(()),
            Ok(false) => self.remove(record).await,
            Err(error) => {
                tell_lost(record, &error);
                self.asleep().kept.remove(&record.identity.machine);
                self.remove(record).await
            }
        }
    }

    async fn try_to_keep(&self, record: &Record) -> Result<bool, MachineError> {
        let Some(slot) = record.slot else {
            return Ok(false);
        };
        if self.asleep().kept.len() >= MOST_KEPT {
            return Ok(false);
        }
        let connected = self.network.is_connected(slot).await;
        if !connected.map_err(network("look for connections"))? {
            return Ok(false);
        }
        self.cgroups.remove(&record.group()).await?;
        let kept = Record {
            process: None,
            id_base: None,
            asleep: true,
            ..record.clone()
        };
        self.records.write(&kept)?;
        self.fall_asleep(&kept).await?;
        self.asleep().kept.insert(kept.identity.machine, kept);
        Ok(true)
    }

    /// The network that was kept of a machine, for the one that goes on from its memory. It stays kept until that
    /// [took it over](Holdings::take_over), so that nothing is lost with a load that fails.
    pub(crate) fn kept(&self, machine: MachineId) -> Option<SlotId> {
        self.asleep().kept.get(&machine)?.slot
    }

    /// The record of the next machine names what was kept of this one.
    pub(crate) fn take_over(&self, machine: MachineId) -> Result<(), MachineError> {
        match self.asleep().kept.remove(&machine) {
            Some(_) => self.records.remove(machine),
            None => Ok(()),
        }
    }

    /// Removes what is kept for a sprite. Idempotent.
    pub(crate) async fn forget(&self, sprite: SpriteId) -> Result<(), MachineError> {
        let of_sprite = |record: &&Record| record.identity.sprite == sprite;
        let found: Vec<Record> = {
            let asleep = self.asleep();
            asleep.kept.values().filter(of_sprite).cloned().collect()
        };
        for record in found {
            self.asleep().kept.remove(&record.identity.machine);
            self.remove(&record).await?;
        }
        Ok(())
    }

    /// Whose networks are kept.
    pub(crate) fn sleepers(&self) -> Vec<Identity> {
        let asleep = self.asleep();
        asleep.kept.values().map(|record| record.identity).collect()
    }

    /// Takes over what an earlier process kept; what is not there any more is forgotten. Called when all machines
    /// that run are adopted, and before anything is removed.
    pub(crate) async fn adopt_kept(&self, record: &Record) -> Result<bool, MachineError> {
        let machine = record.identity.machine;
        let Some(slot) = record.slot else {
            return Ok(false);
        };
        if let Err(error) = self.network.adopt(slot).await {
            tell_lost(record, &error);
            // Perhaps it is the slot of the machine that went on, which runs.
            self.records.remove(machine)?;
            return Ok(false);
        }
        self.asleep().kept.insert(machine, record.clone());
        self.fall_asleep(record).await?;
        Ok(true)
    }

    fn is_kept_for(&self, slot: SlotId, record: &Record) -> bool {
        let mine = record.identity.machine;
        let asleep = self.asleep();
        let mut others = asleep.kept.values();
        others.any(|kept| kept.slot == Some(slot) && kept.identity.machine != mine)
    }

    fn asleep(&self) -> MutexGuard<'_, Asleep> {
        // Nothing panics while holding it.
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a part of a machine uses, and what went through the machine's network.
    pub(crate) fn statistics(
        &self,
        record: &Record,
        part: Part,
    ) -> Result<Statistics, MachineError> {
        let used = self.cgroups.statistics(&record.group(), part)?;
        let Some(slot) = record.slot else {
            // It has no network at all.
            return Ok(used);
        };
        let counted = self.network.traffic(slot);
        let counted = counted.map_err(network("count what went through the network"))?;
        let counted = counted.since(record.traffic_before);
        Ok(Statistics {
            bytes_in: counted.bytes_in,
            bytes_out: counted.bytes_out,
            ..used
        })
    }

    /// Removes what has no record: a crash between two steps, or a record that was lost.
    pub(crate) async fn sweep(&self, kept: &[Record]) -> Result<(), MachineError> {
        let groups: Vec<_> = kept.iter().map(Record::group).collect();
        for group in self.cgroups.all()? {
            if !groups.contains(&group) {
                self.cgroups.remove(&group).await?;
            }
        }
        let slots: Vec<_> = kept.iter().filter_map(|record| record.slot).collect();
        let swept = self.network.sweep(&slots).await;
        swept.map(drop).map_err(network("sweep network slots"))
    }
}

fn tell_lost(record: &Record, error: &(dyn std::error::Error + 'static)) {
    let machine = record.identity.machine;
    tracing::warn!(%machine, error, "the connections of a machine that sleeps are lost");
}

/// Removes every machine of an instance, running or not: its processes, cgroups and records. Network slots are
/// removed by [`Network::purge`]. Idempotent; for a data directory that no server uses.
///
/// # Errors
/// Something could not be removed.
pub async fn purge(instance: &InstanceId, run_dir: &Path) -> Result<(), MachineError> {
    let cgroups = Cgroups::find(instance)?;
    for group in cgroups.all()? {
        cgroups.remove(&group).await?;
    }
    cgroups.remove_parent()?;
    RecordDirectory::open(run_dir)?.remove_all()
}
