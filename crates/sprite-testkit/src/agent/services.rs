//! Services whose processes are numbers: they run when they are to, and end only when they are told to.
//!
//! A service whose command is `fail` ends at once with status 1; one whose command is `missing` cannot be started.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sprite_agent_api::Frame;
use sprite_agent_api::link::{LinkError, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::services::{
    ServiceEvent, ServiceHappening, ServiceSet, ServiceState, ServiceStatus, ServicesCall,
    ServicesReply, ServicesSpec, WantedService,
};
use sprite_types::{ServiceName, ServiceRun};

#[derive(Default)]
pub(crate) struct Services {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    revision: u64,
    /// How often a set was told.
    told: u64,
    last_pid: u32,
    services: BTreeMap<ServiceName, (WantedService, Option<u32>)>,
}

impl Table {
    fn apply(&mut self, set: ServiceSet) {
        self.told += 1;
        if set.revision < self.revision {
            return;
        }
        self.revision = set.revision;
        let mut before = std::mem::take(&mut self.services);
        for wanted in set.services {
            let kept = before.remove(&wanted.name);
            let pid = kept
                .filter(|(old, _)| *old == wanted)
                .and_then(|(_, pid)| pid);
            let pid = pid.or_else(|| self.start(&wanted));
            self.services.insert(wanted.name.clone(), (wanted, pid));
        }
    }

    fn start(&mut self, wanted: &WantedService) -> Option<u32> {
        let well = !matches!(wanted.spec.cmd.as_str(), "fail" | "missing");
        (wanted.run == ServiceRun::Started && well).then(|| {
            self.last_pid += 1;
            self.last_pid
        })
    }
}

impl Services {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of those that run, with their processes.
    pub(crate) fn running(&self) -> Vec<(String, u32)> {
        let table = self.table();
        let services = table.services.values();
        services
            .filter_map(|(wanted, pid)| Some((wanted.name.to_string(), (*pid)?)))
            .collect()
    }

    /// How often a set was told.
    pub(crate) fn told(&self) -> u64 {
        self.table().told
    }

    pub(crate) async fn perform(
        &self,
        spec: ServicesSpec,
        sender: &Sender,
    ) -> Result<(), LinkError> {
        let mut replies = vec![ServicesReply::Applied];
        match self.answer(spec) {
            Ok(more) => replies.extend(more),
            Err(failure) => replies = vec![ServicesReply::Failed(failure)],
        }
        for reply in replies {
            sender.send(Frame::control(&reply)).await?;
        }
        Ok(())
    }

    fn answer(&self, spec: ServicesSpec) -> Result<Vec<ServicesReply>, Failure> {
        let mut table = self.table();
        let ran = |table: &Table, name: &ServiceName| {
            table.services.get(name).and_then(|(_, pid)| *pid).is_some()
        };
        let ran_before = match &spec.call {
            ServicesCall::Stop { name, .. } => ran(&table, name),
            ServicesCall::Apply
            | ServicesCall::States
            | ServicesCall::Start { .. }
            | ServicesCall::Restart { .. }
            | ServicesCall::Signal { .. }
            | ServicesCall::Logs { .. }
            | ServicesCall::Demand { .. } => false,
        };
        if let Some(set) = spec.set {
            table.apply(set);
        }
        let not_running = |name: &ServiceName| {
            failed(
                FailureKind::SessionEnded,
                format!("service {name} is not running"),
            )
        };
        match spec.call {
            ServicesCall::Apply => Ok(Vec::new()),
            ServicesCall::States => Ok(vec![states(&table)]),
            ServicesCall::Start { name, .. } => started(&table, &name),
            ServicesCall::Restart { name, .. } => {
                let mut replies = Vec::new();
                if ran(&table, &name) {
                    replies.extend(stopped(Some(143)));
                }
                if let Some((wanted, _)) = table.services.get(&name).cloned() {
                    let pid = table.start(&wanted);
                    table.services.insert(name.clone(), (wanted, pid));
                }
                replies.extend(started(&table, &name)?);
                Ok(replies)
            }
            ServicesCall::Stop { name, .. } => match ran_before {
                true => Ok(stopped(Some(143))),
                false => Err(not_running(&name)),
            },
            ServicesCall::Signal { name, .. } => match ran(&table, &name) {
                true => Ok(Vec::new()),
                false => Err(not_running(&name)),
            },
            ServicesCall::Logs { lines, .. } => {
                let line = |n: u64| {
                    let data = format!("line {n}");
                    event(ServiceHappening::Stdout { data })
                };
                let first = 3 - lines.unwrap_or(3).min(3);
                Ok((first..3).map(line).collect())
            }
            ServicesCall::Demand { name, .. } => match ran(&table, &name) {
                true => Ok(vec![ServicesReply::Listening]),
                false => Err(not_running(&name)),
            },
        }
    }
}

fn failed(kind: FailureKind, message: String) -> Failure {
    Failure { kind, message }
}

fn event(what: ServiceHappening) -> ServicesReply {
    ServicesReply::Event(ServiceEvent {
        unix_ms: 1_780_420_274_555,
        what,
    })
}

fn stopped(code: Option<u8>) -> Vec<ServicesReply> {
    vec![
        event(ServiceHappening::Stopping),
        event(ServiceHappening::Stopped { code }),
    ]
}

fn started(table: &Table, name: &ServiceName) -> Result<Vec<ServicesReply>, Failure> {
    let Some((wanted, pid)) = table.services.get(name) else {
        let message = format!("service not found: {name}");
        return Err(failed(FailureKind::NoSession, message));
    };
    let hello = ServiceHappening::Stdout {
        data: "hello".to_owned(),
    };
    Ok(match (pid, wanted.spec.cmd.as_str()) {
        (Some(pid), _) => vec![event(ServiceHappening::Started { pid: *pid }), event(hello)],
        (None, "missing") => {
            let message = "executable file `missing` not found: No such file or directory";
            let message = message.to_owned();
            vec![event(ServiceHappening::Error { message })]
        }
        (None, _) => vec![
            event(ServiceHappening::Started { pid: 1 }),
            event(ServiceHappening::Exit { code: 1 }),
        ],
    })
}

fn states(table: &Table) -> ServicesReply {
    let state = |(wanted, pid): &(WantedService, Option<u32>)| {
        let (status, error) = match (pid, wanted.run) {
            (Some(_), _) => (ServiceStatus::Running, ""),
            (None, ServiceRun::Stopped) => (ServiceStatus::Stopped, ""),
            (None, ServiceRun::Started) => (ServiceStatus::Failed, "exited with status 1"),
        };
        ServiceState {
            name: wanted.name.clone(),
            status,
            pid: *pid,
            started_unix_us: pid.map(|_| 1_780_420_274_555_839),
            error: error.to_owned(),
            restart_count: 0,
            next_restart_unix_us: None,
        }
    };
    ServicesReply::States {
        states: table.services.values().map(state).collect(),
    }
}
