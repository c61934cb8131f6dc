//! The supervisor of one service: a task that makes it what it is to be, for as long as it exists.
//!
//! ```text
//! Stopped ──wanted──▶ Starting (waits for those it needs) ──▶ Running ──ended by itself──▶ Failed ──pause──▶ Starting
//!    ▲                                                          │
//!    └──────────────────────── Stopping ◀──not wanted so────────┘
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sprite_agent_api::services::{ServiceHappening, ServiceStatus};
use sprite_types::ServiceName;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::backoff::Backoff;
use super::run::{self, Told};
use super::service::{Aim, Run, Service};
use crate::agent::Agent;

/// What the supervisor remembers between two runs.
#[derive(Default)]
struct Between {
    backoff: Backoff,
    /// Not before this.
    due: Option<Instant>,
    /// What the last pause was for.
    seen: Option<Aim>,
    /// Whether the next start is one after an end of its own.
    again: bool,
}

impl Between {
    /// Forgets what was, if somebody wants something new.
    fn consider(&mut self, aim: &Aim) {
        let same = self.seen.as_ref().is_some_and(|seen| {
            seen.spec == aim.spec && seen.urged == aim.urged && seen.replaced == aim.replaced
        });
        if !same {
            *self = Self {
                seen: Some(aim.clone()),
                ..Self::default()
            };
        }
    }

    /// It ended by itself, or could not be started.
    fn failed(&mut self, service: &Service, ran: Duration, error: String) {
        let pause = self.backoff.ended_after(ran);
        self.due = Some(Instant::now() + pause);
        self.again = true;
        service.set(|state| {
            state.status = ServiceStatus::Failed;
            state.error = error;
            state.next_restart_unix_us = Some(run::unix_us(SystemTime::now() + pause));
        });
    }
}

/// Runs until the service is forgotten.
pub(super) async fn supervise(agent: Arc<Agent>, service: Arc<Service>) {
    let mut aim = service.aim.subscribe();
    let mut between = Between::default();
    loop {
        let now = aim.borrow_and_update().clone();
        match now.run {
            Run::Deleted => {
                stopped(&agent, &service, None);
                if agent.services.forget(&service) {
                    return;
                }
            }
            Run::Stopped => {
                stopped(&agent, &service, None);
                between = Between::default();
                if aim.changed().await.is_err() {
                    return;
                }
            }
            Run::Started => {
                between.consider(&now);
                if wait_for_turn(&agent, &service, &mut aim, &now, &mut between).await {
                    run_once(&agent, &service, &mut aim, &now, &mut between).await;
                }
            }
        }
    }
}

/// The service has no process and is to have none; told once.
fn stopped(agent: &Agent, service: &Service, code: Option<u8>) {
    if service.status() == ServiceStatus::Stopped {
        return;
    }
    service.set(|state| {
        state.status = ServiceStatus::Stopped;
        state.error.clear();
        state.restart_count = 0;
        state.next_restart_unix_us = None;
    });
    service.tell(ServiceHappening::Stopped { code });
    agent.services.changed();
}

/// Waits for the pause to be over and for those that it needs; false if the service is to be something else meanwhile.
async fn wait_for_turn(
    agent: &Agent,
    service: &Service,
    aim: &mut watch::Receiver<Aim>,
    now: &Aim,
    between: &mut Between,
) -> bool {
    let mut changes = agent.services.changes();
    loop {
        changes.borrow_and_update();
        if let Some(due) = between.due {
            tokio::select! {
                () = sleep_until(due) => between.due = None,
                _ = aim.changed() => return false,
            }
            continue;
        }
        let Some(missing) = missing(agent, &now.spec.needs) else {
            return true;
        };
        service.set(|state| {
            state.status = ServiceStatus::Starting;
            state.error = format!("waits for service {missing}");
            state.next_restart_unix_us = None;
        });
        tokio::select! {
            _ = changes.changed() => {}
            _ = aim.changed() => return false,
        }
    }
}

fn missing<'a>(agent: &Agent, needs: &'a [ServiceName]) -> Option<&'a ServiceName> {
    needs.iter().find(|need| !agent.services.runs(need))
}

async fn run_once(
    agent: &Arc<Agent>,
    service: &Arc<Service>,
    aim: &mut watch::Receiver<Aim>,
    now: &Aim,
    between: &mut Between,
) {
    let again = std::mem::take(&mut between.again);
    service.set(|state| {
        state.status = ServiceStatus::Starting;
        state.next_restart_unix_us = None;
        state.restart_count = if again { state.restart_count + 1 } else { 0 };
    });
    let running = match run::begin(agent, service, now).await {
        Ok(running) => running,
        Err(failure) => {
            let message = failure.message;
            between.failed(service, Duration::ZERO, message.clone());
            service.tell(ServiceHappening::Error { message });
            return agent.services.changed();
        }
    };
    let since = running.since;
    let ended = running.end(agent, service, aim, now).await;
    match ended.told {
        Told::Yes => stopped(agent, service, Some(ended.code)),
        Told::No => {
            between.failed(service, since.elapsed(), end_of(ended.code));
            service.tell(ServiceHappening::Exit { code: ended.code });
            agent.services.changed();
        }
    }
}

/// How a process ended, for people.
fn end_of(code: u8) -> String {
    match code.checked_sub(128) {
        Some(signal @ 1..=64) => format!("ended by signal {signal}"),
        Some(_) | None => format!("exited with status {code}"),
    }
}
