//! What machines have on the host, whichever driver made them: records, cgroups, network slots, user ids.
//!
//! # Crash safety
//! A record is written before anything else of a machine is made, and removed after everything else is gone. What
//! has no record is found by its name: everything carries the instance.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use sprite_net::Network;
use sprite_types::{Egress, InstanceId, MachineId};

use crate::MachineError;
use crate::cgroup::Cgroups;
use crate::failure::network;
use crate::range;
use crate::record::{Record, RecordDirectory};

/// What the machines of an instance have.
pub(crate) struct Holdings {
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
        })
    }

    /// Removes what is not of one machine, if no machine is left.
    pub(crate) fn close(&self) -> Result<(), MachineError> {
        if !self.cgroups.all()?.is_empty() {
            return Ok(());
        }
        self.cgroups.remove_parent()?;
        self.records.remove_all()
    }

    /// Removes what a machine has; its record goes last. What still runs of it is killed. Idempotent.
    pub(crate) async fn remove(&self, record: &Record) -> Result<(), MachineError> {
        self.cgroups.remove(&record.group()).await?;
        if let Some(slot) = record.slot {
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
