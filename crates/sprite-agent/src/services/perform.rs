//! What the host asks of services.

use std::sync::Arc;
use std::time::Duration;

use sprite_agent_api::Frame;
use sprite_agent_api::link::{LinkError, Receiver, Sender};
use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::services::{
    ServiceEvent, ServiceHappening, ServiceStatus, ServicesCall, ServicesReply, ServicesSpec,
};
use sprite_types::ServiceName;
use tokio::time::{Instant, sleep_until};

use super::feed::Place;
use super::service::{Run, Service};
use super::tail::Tail;
use crate::agent::Agent;
use crate::operation::failure;
use crate::ports;
use crate::step::Step;

/// How much longer than its grace a process may take to be gone after SIGKILL.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// The longest that anybody is told something.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

/// Highest signal number. Source: signal(7).
const LAST_SIGNAL: i32 = 64;

/// Why telling ended.
enum Stop {
    /// The host is gone.
    Gone,
    Failed(Failure),
}

impl From<LinkError> for Stop {
    fn from(_: LinkError) -> Self {
        Self::Gone
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Does what is asked on one stream.
pub(crate) async fn perform(
    agent: &Arc<Agent>,
    spec: ServicesSpec,
    sender: &Sender,
    receiver: &mut Receiver,
) -> Result<(), Failure> {
    if agent.variables().await.is_none() {
        let message = "the environment has not been built";
        return Err(failure(FailureKind::NotReady, message));
    }
    let begun = begin(agent, spec)?;
    let tell = async {
        say(sender, &ServicesReply::Applied).await?;
        go_on(agent, begun, sender).await
    };
    // The host says nothing more; when it ends its direction it still listens.
    let told = tokio::select! {
        told = tell => told,
        () = sender.until_failed() => Err(Stop::Gone),
        () = given_up(receiver) => Err(Stop::Gone),
    };
    match told {
        Ok(()) | Err(Stop::Gone) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

async fn given_up(receiver: &mut Receiver) {
    loop {
        match receiver.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

async fn say(sender: &Sender, reply: &ServicesReply) -> Result<(), LinkError> {
    sender.send(Frame::control(reply)).await
}

/// What was begun, without waiting: nobody else does anything in between.
enum Begun {
    Nothing,
    States,
    Watch {
        service: Arc<Service>,
        place: Place,
        /// It runs already.
        running: Option<ServiceEvent>,
        within: Duration,
    },
    Ends {
        service: Arc<Service>,
        place: Place,
        within: Duration,
    },
    Logs {
        service: Arc<Service>,
        place: Place,
        parts: tokio::sync::oneshot::Receiver<Vec<super::log::Part>>,
        lines: Option<u64>,
        follow: Duration,
    },
    Demand {
        service: Arc<Service>,
        within: Duration,
    },
}

fn begin(agent: &Arc<Agent>, spec: ServicesSpec) -> Result<Begun, Failure> {
    let services = &agent.services;
    let ms = |ms: u64| Duration::from_millis(ms).min(LONGEST);
    // Places are taken first, so that nothing that follows from the new set is missed.
    let before = before(agent, &spec.call);
    if let Some(set) = spec.set {
        services.apply(agent, set)?;
    }
    match spec.call {
        ServicesCall::Apply => Ok(Begun::Nothing),
        ServicesCall::States => Ok(Begun::States),
        ServicesCall::Start { name, watch_ms } => {
            let service = services.get(&name)?;
            let running = urge(&service);
            Ok(watch(service, before, running, ms(watch_ms)))
        }
        ServicesCall::Restart { name, watch_ms } => {
            let service = services.get(&name)?;
            service.aim.send_modify(|aim| {
                aim.replaced += 1;
                aim.grace = super::GRACE;
            });
            Ok(watch(service, before, None, ms(watch_ms)))
        }
        ServicesCall::Stop { name, timeout_ms } => {
            // Also one that was deleted with this very request.
            let service = services.any(&name).ok_or_else(|| not_running(&name))?;
            if service.status() == ServiceStatus::Stopped {
                return Err(not_running(&name));
            }
            let within = ms(timeout_ms);
            service.aim.send_modify(|aim| aim.grace = within);
            let place = before.unwrap_or_else(|| service.feed.place(|| {}));
            Ok(Begun::Ends {
                service,
                place,
                within,
            })
        }
        ServicesCall::Signal { name, signal } => {
            if !(1..=LAST_SIGNAL).contains(&signal) {
                let message = format!("no signal has the number {signal}");
                return Err(failure(FailureKind::Invalid, message));
            }
            match services.get(&name)?.signal(signal) {
                true => Ok(Begun::Nothing),
                false => Err(not_running(&name)),
            }
        }
        ServicesCall::Logs {
            name,
            lines,
            follow_ms,
        } => {
            let service = services.get(&name)?;
            let mut parts = None;
            let place = service
                .feed
                .place(|| parts = Some(services.logs.read(&name)));
            let parts = parts.expect("it was asked for");
            Ok(Begun::Logs {
                service,
                place,
                parts,
                lines,
                follow: ms(follow_ms),
            })
        }
        ServicesCall::Demand { name, within_ms } => {
            let service = services.get(&name)?;
            let aim = service.aim.borrow().run;
            match aim {
                Run::Started => {}
                Run::Stopped | Run::Deleted => return Err(not_running(&name)),
            }
            urge(&service);
            Ok(Begun::Demand {
                service,
                within: ms(within_ms),
            })
        }
    }
}

fn not_running(name: &ServiceName) -> Failure {
    failure(
        FailureKind::SessionEnded,
        format!("service {name} is not running"),
    )
}

/// Where whoever watches a service that exists already begins.
fn before(agent: &Agent, call: &ServicesCall) -> Option<Place> {
    let name = match call {
        ServicesCall::Start { name, .. }
        | ServicesCall::Restart { name, .. }
        | ServicesCall::Stop { name, .. } => name,
        ServicesCall::Apply
        | ServicesCall::States
        | ServicesCall::Signal { .. }
        | ServicesCall::Logs { .. }
        | ServicesCall::Demand { .. } => return None,
    };
    let service = agent.services.any(name)?;
    Some(service.feed.place(|| {}))
}

/// Ends a pause, if there is one. Tells how it began if it runs and is left alone.
fn urge(service: &Service) -> Option<ServiceEvent> {
    let state = service.state();
    match state.status {
        ServiceStatus::Running if !service.aim_differs() => {
            let pid = state.pid?;
            let unix_ms = state.started_unix_us? / 1000;
            let what = ServiceHappening::Started { pid };
            Some(ServiceEvent { unix_ms, what })
        }
        ServiceStatus::Failed => {
            service.aim.send_modify(|aim| aim.urged += 1);
            None
        }
        ServiceStatus::Stopped
        | ServiceStatus::Starting
        | ServiceStatus::Running
        | ServiceStatus::Stopping => None,
    }
}

fn watch(
    service: Arc<Service>,
    before: Option<Place>,
    running: Option<ServiceEvent>,
    within: Duration,
) -> Begun {
    let place = before.unwrap_or_else(|| service.feed.beginning());
    Begun::Watch {
        service,
        place,
        running,
        within,
    }
}

async fn go_on(agent: &Arc<Agent>, begun: Begun, sender: &Sender) -> Result<(), Stop> {
    match begun {
        Begun::Nothing => Ok(()),
        Begun::States => {
            let states = agent.services.states();
            Ok(say(sender, &ServicesReply::States { states }).await?)
        }
        Begun::Watch {
            service,
            mut place,
            running,
            within,
        } => {
            if let Some(event) = running {
                say(sender, &ServicesReply::Event(event)).await?;
            }
            let failed = |what: &ServiceHappening| {
                matches!(
                    what,
                    ServiceHappening::Exit { .. } | ServiceHappening::Error { .. }
                )
            };
            tell(
                &service,
                &mut place,
                Instant::now() + within,
                failed,
                sender,
            )
            .await?;
            Ok(())
        }
        Begun::Ends {
            service,
            mut place,
            within,
        } => {
            let deadline = Instant::now() + within + KILLED_WITHIN;
            let stopped =
                |what: &ServiceHappening| matches!(what, ServiceHappening::Stopped { .. });
            if tell(&service, &mut place, deadline, stopped, sender).await? {
                return Ok(());
            }
            let message = format!("the process of service {} does not end", service.name);
            Err(failure(FailureKind::System, message).into())
        }
        Begun::Logs {
            service,
            mut place,
            parts,
            lines,
            follow,
        } => {
            let deadline = Instant::now() + follow;
            let parts = parts.await.unwrap_or_default();
            history(parts, lines, sender).await?;
            if !follow.is_zero() {
                tell(&service, &mut place, deadline, |_| false, sender).await?;
            }
            Ok(())
        }
        Begun::Demand { service, within } => demand(&service, within, sender).await,
    }
}

/// Tells what happens until the deadline, or until `last` has; says whether it has.
async fn tell(
    service: &Service,
    place: &mut Place,
    deadline: Instant,
    last: impl Fn(&ServiceHappening) -> bool,
    sender: &Sender,
) -> Result<bool, Stop> {
    loop {
        // First room, then the next: what was not sent must not count as taken.
        sender.room().await?;
        let event = tokio::select! {
            biased;
            event = service.feed.next(place) => event,
            () = sleep_until(deadline) => return Ok(false),
        };
        let done = last(&event.what);
        say(sender, &ServicesReply::Event(event)).await?;
        if done {
            return Ok(true);
        }
    }
}

/// Tells what the log has.
async fn history(
    parts: Vec<super::log::Part>,
    lines: Option<u64>,
    sender: &Sender,
) -> Result<(), Stop> {
    let read = "read the log";
    let open = tokio::task::spawn_blocking(move || Tail::open(parts, lines));
    let open = open.await.map_err(std::io::Error::other).flatten();
    let mut tail = open.step(read).map_err(Failure::from)?;
    loop {
        let next = tokio::task::spawn_blocking(move || {
            let events = tail.next();
            (tail, events)
        });
        let (rest, events) = next
            .await
            .map_err(std::io::Error::other)
            .step(read)
            .map_err(Failure::from)?;
        tail = rest;
        let events = events.step(read).map_err(Failure::from)?;
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            say(sender, &ServicesReply::Event(event)).await?;
        }
    }
}

/// Waits until the service runs and its port is listened on.
async fn demand(service: &Service, within: Duration, sender: &Sender) -> Result<(), Stop> {
    let name = &service.name;
    let port = service.aim.borrow().spec.http_port;
    let Some(port) = port else {
        let message = format!("service {name} has no HTTP port");
        return Err(failure(FailureKind::Invalid, message).into());
    };
    let listens = ports::until_listens(port.get());
    match tokio::time::timeout(within, listens).await {
        Ok(Ok(())) => Ok(say(sender, &ServicesReply::Listening).await?),
        Ok(Err(error)) => Err(Failure::from(error).into()),
        Err(_) => {
            let message = format!("service {name} does not listen on port {port} yet");
            Err(failure(FailureKind::NotReady, message).into())
        }
    }
}
