//! Services: programs that the agent keeps running for as long as the machine does.
//!
//! Their processes are started as those of sessions are, in the same walls and by the same user; each leads a process
//! group, and ends with it. A supervisor for each service makes it what the host told last ([`supervise`]). What it
//! knows of a process is what the kernel tells it of its own child: there is no file with an id in it that could be
//! of another time.
//!
//! Nothing that services do keeps a sprite awake. Their memory goes to sleep with them and wakes with them; after a
//! boot the host tells anew what there is to be.

mod backoff;
mod feed;
mod lines;
mod log;
mod perform;
mod run;
mod service;
mod supervise;
mod tail;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::services::{ServiceSet, ServiceState, ServiceStatus, WantedService};
use sprite_types::{ServiceName, ServiceSpec};
use tokio::sync::watch;

use crate::agent::Agent;
use crate::operation::failure;
use crate::walls::Walls;
use log::Logs;
pub(crate) use perform::perform;
use service::{Aim, GRACE, Run, Service, event};

/// All services of a machine.
pub(crate) struct Services {
    table: Mutex<Table>,
    /// Counts up when a service became something else.
    changes: watch::Sender<u64>,
    logs: Logs,
}

#[derive(Default)]
struct Table {
    revision: u64,
    services: BTreeMap<ServiceName, Arc<Service>>,
    /// The machine ends: nothing is started any more.
    closing: bool,
}

impl Services {
    /// # Errors
    /// The thread that writes logs cannot be started.
    pub(crate) fn new(walls: Walls) -> io::Result<Self> {
        Ok(Self {
            table: Mutex::default(),
            changes: watch::Sender::new(0),
            logs: Logs::start(walls.environment_root())?,
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> Logs {
        self.logs.clone()
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn get(&self, name: &ServiceName) -> Result<Arc<Service>, Failure> {
        let table = self.table();
        let found = table.services.get(name).filter(|service| {
            let run = service.aim.borrow().run;
            match run {
                Run::Started | Run::Stopped => true,
                Run::Deleted => false,
            }
        });
        let missing = || failure(FailureKind::NoSession, format!("service not found: {name}"));
        found.cloned().ok_or_else(missing)
    }

    /// A service, also one that is being deleted.
    fn any(&self, name: &ServiceName) -> Option<Arc<Service>> {
        self.table().services.get(name).cloned()
    }

    fn runs(&self, name: &ServiceName) -> bool {
        let table = self.table();
        let found = table.services.get(name);
        found.is_some_and(|service| service.status() == ServiceStatus::Running)
    }

    fn states(&self) -> Vec<ServiceState> {
        let table = self.table();
        let known = |service: &&Arc<Service>| service.aim.borrow().run != Run::Deleted;
        let known = table.services.values().filter(known);
        known.map(|service| service.state()).collect()
    }

    /// Makes a set the one that holds, unless a later one was told already.
    fn apply(&self, agent: &Arc<Agent>, set: ServiceSet) -> Result<(), Failure> {
        if set.services.len() > ServiceSpec::MOST {
            let message = format!("a sprite has at most {} services", ServiceSpec::MOST);
            return Err(failure(FailureKind::Invalid, message));
        }
        let mut table = self.table();
        if table.closing {
            return Err(failure(FailureKind::NotReady, "the machine ends"));
        }
        if set.revision < table.revision {
            return Ok(());
        }
        table.revision = set.revision;
        for (name, service) in &table.services {
            if !set.services.iter().any(|wanted| wanted.name == *name) {
                service.aim.send_if_modified(|aim| {
                    let before = std::mem::replace(&mut aim.run, Run::Deleted);
                    before != Run::Deleted
                });
            }
        }
        for wanted in set.services {
            match table.services.get(&wanted.name) {
                Some(service) => {
                    service.aim.send_if_modified(|aim| follow(aim, wanted));
                }
                None => {
                    let service = Arc::new(Service::new(wanted));
                    table.services.insert(service.name.clone(), service.clone());
                    tokio::spawn(supervise::supervise(agent.clone(), service));
                }
            }
        }
        Ok(())
    }

    /// Forgets a service that was deleted, unless it is wanted again. Says whether it did.
    fn forget(&self, service: &Arc<Service>) -> bool {
        let mut table = self.table();
        if service.aim.borrow().run != Run::Deleted {
            return false;
        }
        table.services.remove(&service.name);
        self.logs.forget(&service.name);
        drop(table);
        self.changed();
        true
    }

    /// Ends all services within `grace`, and lets go of the disk. Nothing is started afterwards.
    pub(crate) async fn close(&self, grace: Duration) {
        let services: Vec<Arc<Service>> = {
            let mut table = self.table();
            table.closing = true;
            table.services.values().cloned().collect()
        };
        let mut changes = self.changes();
        for service in &services {
            service.aim.send_modify(|aim| {
                aim.run = Run::Stopped;
                aim.grace = grace;
            });
        }
        let ended = async {
            while services
                .iter()
                .any(|one| one.status() != ServiceStatus::Stopped)
            {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        // What does not end even so ends with the environment.
        let _ = tokio::time::timeout(grace * 2, ended).await;
    }

    /// Closes the logs: the disk is left alone from now on.
    pub(crate) async fn leave_disk(&self) {
        self.logs.close().await;
    }
}

/// Changes an aim to what is wanted; says whether that is something else.
fn follow(aim: &mut Aim, wanted: WantedService) -> bool {
    let run = Run::from(wanted.run);
    if *aim.spec == wanted.spec && aim.run == run {
        return false;
    }
    if *aim.spec != wanted.spec {
        aim.spec = Arc::new(wanted.spec);
    }
    aim.run = run;
    aim.grace = GRACE;
    true
}
