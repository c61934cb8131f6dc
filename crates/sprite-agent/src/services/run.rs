//! One run of a service: its process from the beginning to the end, and what it says.

use std::sync::Arc;
use std::time::SystemTime;

use sprite_agent_api::message::{ExecSpec, Failure};
use sprite_agent_api::services::{ServiceHappening, ServiceStatus};
use sprite_types::ServiceSpec;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::lines::{self, Cutter, Out};
use super::log::Logs;
use super::service::{Aim, Service};
use crate::agent::Agent;
use crate::operation::{self, Purpose};
use crate::session::{Process, Stdio};
use crate::step::Step;

/// Output that is read at once.
const PIECE: usize = 8 << 10;

/// Of what is left in a pipe when the process has ended so much is read: what the kernel holds at most. Whoever writes
/// on is another process, which left the service's group.
const MOST_LEFT: usize = 1 << 20;

/// A run that has begun.
pub(super) struct Running {
    process: Process,
    pub(super) since: Instant,
    readers: JoinSet<()>,
    ended: watch::Sender<bool>,
}

/// How a run ended.
pub(super) struct Ended {
    /// 0 to 255; 128 + n for signal n.
    pub(super) code: u8,
    /// Whether that was wanted.
    pub(super) told: Told,
}

/// Whether a process was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Yes,
    No,
}

/// Starts the process.
pub(super) async fn begin(
    agent: &Arc<Agent>,
    service: &Arc<Service>,
    aim: &Aim,
) -> Result<Running, Failure> {
    let exec = exec(&aim.spec);
    let (stdio, theirs, number) =
        operation::make_stdio(agent.walls, &exec).step("make stdin, stdout and stderr")?;
    let (name, process) =
        operation::begin_process(agent, &exec, theirs, number, Purpose::Service).await?;
    let Stdio::Pipes { stdout, stderr, .. } = stdio else {
        unreachable!("no terminal was asked for");
    };
    let (ended, _) = watch::channel(false);
    let mut readers = JoinSet::new();
    let logs = agent.services.logs();
    for (out, pipe) in [(Out::Stdout, stdout), (Out::Stderr, stderr)] {
        let (service, logs) = (service.clone(), logs.clone());
        readers.spawn(read(service, logs, out, pipe, ended.subscribe()));
    }
    service.set_process(process.group.clone(), aim.clone());
    service.set(|state| {
        state.status = ServiceStatus::Running;
        state.pid = Some(name.id.0);
        state.started_unix_us = Some(unix_us(SystemTime::now()));
        state.error.clear();
        state.next_restart_unix_us = None;
    });
    agent.services.changed();
    service.tell(ServiceHappening::Started { pid: name.id.0 });
    Ok(Running {
        process,
        since: Instant::now(),
        readers,
        ended,
    })
}

fn exec(spec: &ServiceSpec) -> ExecSpec {
    let argv = [&spec.cmd].into_iter().chain(&spec.args);
    let env = spec.env.iter();
    ExecSpec {
        path: spec.cmd.clone(),
        argv: argv.cloned().collect(),
        env: env
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        dir: spec.dir.clone().filter(|dir| !dir.is_empty()),
        tty: None,
        stdin: false,
        max_run_after_disconnect_ms: None,
        ports: false,
    }
}

pub(super) fn unix_us(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

impl Running {
    /// Waits for the end, or brings it about when the service is to be something else than `as_begun`.
    pub(super) async fn end(
        mut self,
        agent: &Agent,
        service: &Service,
        aim: &mut watch::Receiver<Aim>,
        as_begun: &Aim,
    ) -> Ended {
        let told = tokio::select! {
            biased;
            _ = self.process.ended() => Told::No,
            () = until_another(aim, as_begun) => Told::Yes,
        };
        if told == Told::Yes {
            service.set(|state| state.status = ServiceStatus::Stopping);
            agent.services.changed();
            service.tell(ServiceHappening::Stopping);
            self.terminate(aim).await;
        }
        // The leader is not reaped yet, so the group's number is still its own: what is left of it goes with it.
        let _ = self.process.group.signal(libc::SIGKILL);
        service.clear_process();
        let code = self.process.wait().await.unwrap_or(255);
        self.ended.send_replace(true);
        while self.readers.join_next().await.is_some() {}
        service.set(|state| {
            state.pid = None;
            state.started_unix_us = None;
        });
        Ended { code, told }
    }

    /// Asks the group to end, and ends it when its time is over. The time may be changed meanwhile.
    async fn terminate(&self, aim: &mut watch::Receiver<Aim>) {
        let group = &self.process.group;
        let since = Instant::now();
        // Whoever is gone already is what was wanted. One that stands still has to go on to hear it.
        let _ = group.signal(libc::SIGTERM);
        let _ = group.signal(libc::SIGCONT);
        loop {
            let deadline = since + aim.borrow_and_update().grace;
            tokio::select! {
                biased;
                _ = self.process.ended() => return,
                () = tokio::time::sleep_until(deadline) => break,
                changed = aim.changed() => if changed.is_err() { break },
            }
        }
        let _ = group.signal(libc::SIGKILL);
        // It is the agent's own child: if it cannot be waited for it is gone already.
        let _ = self.process.ended().await;
    }
}

/// Waits until the process that was begun is not the one that is wanted.
async fn until_another(aim: &mut watch::Receiver<Aim>, as_begun: &Aim) {
    if aim
        .wait_for(|now| as_begun.is_other_than(now))
        .await
        .is_err()
    {
        std::future::pending().await
    }
}

/// Reads one stream until its end, or what is left of it when the process has ended.
async fn read(
    service: Arc<Service>,
    logs: Logs,
    out: Out,
    mut pipe: pipe::Receiver,
    mut ended: watch::Receiver<bool>,
) {
    let mut cutter = Cutter::default();
    let mut buffer = vec![0; PIECE];
    loop {
        let got = tokio::select! {
            biased;
            got = pipe.read(&mut buffer) => Some(got),
            _ = ended.wait_for(|ended| *ended) => None,
        };
        match got {
            Some(Ok(0) | Err(_)) => break,
            Some(Ok(count)) => say(&service, &logs, out, &cutter.cut(&buffer[..count])).await,
            None => {
                let mut left = MOST_LEFT;
                while let Ok(count @ 1..) = pipe.try_read(&mut buffer) {
                    say(&service, &logs, out, &cutter.cut(&buffer[..count])).await;
                    left = left.saturating_sub(count);
                    if left == 0 {
                        break;
                    }
                }
                break;
            }
        }
    }
    if let Some(rest) = cutter.rest() {
        say(&service, &logs, out, &[rest]).await;
    }
}

/// Tells lines and has them written, when there is room for them.
async fn say(service: &Service, logs: &Logs, out: Out, said: &[Vec<u8>]) {
    if said.is_empty() {
        return;
    }
    let now = lines::now_ms();
    let mut written = Vec::new();
    for line in said {
        lines::write(&mut written, out, now, line);
    }
    let room = logs.room(written.len()).await;
    let events = said.iter().map(|line| out.event(now, lines::text(line)));
    // As one: whoever takes a place in between would get a line twice, or never.
    service
        .feed
        .push(events, || logs.write(&service.name, written, room));
}
