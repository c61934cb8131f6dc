//! An agent that speaks the real protocol and starts no process.
//!
//! Its programs are a handful of functions (`command`); a session of one behaves as a real one does: it outlives
//! its clients, keeps its last output for whoever attaches, waits for slow readers, and is remembered for ten
//! minutes after its end.

mod calls;
mod command;
mod files;
mod network;
mod services;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sprite_agent_api::idle::IdleReply;
use sprite_agent_api::link::{LinkError, Sender, Stream};
use sprite_agent_api::message::{
    AgentInfo, EnvironmentSpec, ExecSpec, Failure, FailureKind, Input, KillEvent, KillSpec, Reply,
    Request,
};
use sprite_agent_api::policy::{PolicyReply, PolicySpec};
use sprite_agent_api::{Frame, FrameKind, PROTOCOL};
use sprite_types::{SessionId, SpriteId};
use tokio::sync::watch;

use crate::switch::{Shared, Step};
use network::Follower;
use session::{Client, Next, Session, Stdin};

/// How long a session that ended is remembered, as by the real agent.
const REMEMBERED: Duration = Duration::from_secs(600);

pub(crate) struct FakeAgent {
    sprite: SpriteId,
    switches: Shared,
    exit: Arc<watch::Sender<Option<String>>>,
    state: Mutex<State>,
    files: files::Files,
    pub(crate) calls: calls::Calls,
    pub(crate) listening: network::Listening,
    pub(crate) services: services::Services,
}

#[derive(Default)]
struct State {
    environment: Option<EnvironmentSpec>,
    sessions: BTreeMap<u32, Arc<Session>>,
    last_id: u32,
    policy: Option<PolicySpec>,
    in_use: Option<String>,
}

impl FakeAgent {
    pub(crate) fn new(
        sprite: SpriteId,
        switches: Shared,
        exit: Arc<watch::Sender<Option<String>>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            sprite,
            switches,
            exit,
            state: Mutex::default(),
            files: files::Files::default(),
            calls: calls::Calls::default(),
            listening: network::Listening::default(),
            services: services::Services::default(),
        })
    }

    pub(crate) fn accept(self: Arc<Self>, stream: Stream) {
        tokio::spawn(async move { self.serve(stream).await });
    }

    pub(crate) fn set_in_use(&self, what: Option<String>) {
        self.state().in_use = what;
    }

    pub(crate) fn kill_sessions(&self) {
        for session in self.state().sessions.values() {
            session.signal(9);
        }
    }

    pub(crate) fn live_sessions(&self) -> usize {
        self.state()
            .sessions
            .values()
            .filter(|session| session.exit().is_none())
            .count()
    }

    pub(crate) fn policy(&self) -> Option<PolicySpec> {
        self.state().policy.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, stream: Stream) {
        let Stream {
            sender,
            mut receiver,
        } = stream;
        let Ok(Some(first)) = receiver.recv().await else {
            return;
        };
        let done = match first.message::<Request>() {
            Ok(Request::Exec(spec)) => {
                let ports = spec.ports.then(|| self.listening.follow());
                match self.exec(spec) {
                    Ok(client) => attached(client, ports, &sender, &mut receiver).await,
                    Err(failure) => Err(failure),
                }
            }
            Ok(Request::Attach(spec)) => match self.find(spec.session) {
                Ok(session) => {
                    let ports = spec.ports.then(|| self.listening.follow());
                    attached(session.join(&spec), ports, &sender, &mut receiver).await
                }
                Err(failure) => Err(failure),
            },
            Ok(Request::Fs(spec)) => told(self.files.perform(spec, &sender, &mut receiver).await),
            Ok(Request::Kill(spec)) => self.kill(&spec, &sender).await,
            Ok(Request::Connect(spec)) => {
                let program = self.switches.program(spec.port);
                told(network::connect(&spec, program, &sender, &mut receiver).await)
            }
            Ok(Request::Ports) => {
                told(network::ports(self.listening.follow(), &sender, &mut receiver).await)
            }
            Ok(Request::Policy(spec)) => {
                match self.switches.pass(Step::Policy, self.sprite).await {
                    Ok(()) => {
                        self.state().policy = Some(spec);
                        told(policy_reply(&sender, &PolicyReply::Applied).await)
                    }
                    Err(error) => Err(failed(FailureKind::System, &error.to_string())),
                }
            }
            Ok(Request::Services(spec)) => told(self.services.perform(spec, &sender).await),
            Ok(Request::Calls) => return self.calls.stand(&sender, &mut receiver).await,
            Ok(Request::Take { call }) => return self.calls.take(call, sender, receiver).await,
            Ok(Request::Idle) => {
                let idle = match self.state().in_use.clone() {
                    Some(what) => IdleReply::InUse { what },
                    None => IdleReply::Idle,
                };
                told(sender.send(Frame::control(&idle)).await)
            }
            Ok(Request::Shutdown) => return self.shut_down(&sender, &mut receiver).await,
            Ok(
                short @ (Request::Start(_)
                | Request::Sessions
                | Request::Sync
                | Request::Ping
                | Request::Clock { .. }),
            ) => match self.answer(short).await {
                Ok(answer) => told(reply(&sender, answer).await),
                Err(failure) => Err(failure),
            },
            Err(error) => Err(failed(
                FailureKind::Invalid,
                &format!("read the request: {error}"),
            )),
        };
        if let Err(failure) = done {
            told(reply(&sender, Reply::Failed(failure)).await).unwrap_or_default();
        }
        sender.finish();
    }

    async fn answer(&self, request: Request) -> Result<Reply, Failure> {
        let system = |error: std::io::Error| failed(FailureKind::System, &error.to_string());
        match request {
            Request::Start(spec) => {
                self.switches
                    .pass(Step::Environment, self.sprite)
                    .await
                    .map_err(system)?;
                self.state().environment.get_or_insert(spec);
            }
            Request::Sync => {
                self.switches
                    .pass(Step::Sync, self.sprite)
                    .await
                    .map_err(system)?;
                return Ok(Reply::Synced);
            }
            Request::Sessions => {
                let state = self.state();
                let live = state
                    .sessions
                    .values()
                    .filter(|session| session.exit().is_none());
                return Ok(Reply::Sessions {
                    sessions: live.map(|session| session.info()).collect(),
                });
            }
            Request::Ping
            | Request::Idle
            | Request::Clock { .. }
            | Request::Exec(_)
            | Request::Attach(_)
            | Request::Kill(_)
            | Request::Connect(_)
            | Request::Ports
            | Request::Fs(_)
            | Request::Policy(_)
            | Request::Calls
            | Request::Take { .. }
            | Request::Services(_)
            | Request::Shutdown => {}
        }
        let environment = self.state().environment.is_some();
        Ok(Reply::Ready(AgentInfo {
            protocol: PROTOCOL,
            environment,
        }))
    }

    fn find(&self, id: SessionId) -> Result<Arc<Session>, Failure> {
        let found = self.state().sessions.get(&id.0).cloned();
        found.ok_or_else(|| failed(FailureKind::NoSession, &format!("session not found: {id}")))
    }

    /// Starts a session; its client is there before the program is.
    fn exec(self: &Arc<Self>, spec: ExecSpec) -> Result<Client, Failure> {
        if spec.argv.is_empty() || spec.path.is_empty() {
            return Err(failed(FailureKind::Invalid, "a command is required"));
        }
        if let Some(dir) = spec
            .dir
            .as_deref()
            .filter(|dir| dir.starts_with("/missing"))
        {
            let message = format!("enter directory {dir}: no such file or directory");
            return Err(failed(FailureKind::Dir, &message));
        }
        let mut state = self.state();
        let Some(environment) = state.environment.clone() else {
            let message = "the environment has not been built";
            return Err(failed(FailureKind::NotReady, message));
        };
        // As process ids do, they begin anywhere and grow.
        state.last_id = state.last_id.max(19) + 1;
        let id = state.last_id;
        let (session, stdin) = Session::new(id, spec);
        state.sessions.insert(id, session.clone());
        drop(state);
        let client = session.attach(0, 0);
        let agent = self.clone();
        tokio::spawn(async move {
            command::run(&session, stdin, &environment).await;
            tokio::time::sleep(REMEMBERED).await;
            agent.state().sessions.remove(&id);
        });
        Ok(client)
    }

    async fn kill(&self, spec: &KillSpec, sender: &Sender) -> Result<(), Failure> {
        let session = self.find(spec.session)?;
        if let Some(code) = session.exit() {
            return Err(failed(
                FailureKind::SessionEnded,
                &format!("exit status {code}"),
            ));
        }
        if !(1..=64).contains(&spec.signal) {
            let message = format!("no signal has the number {}", spec.signal);
            return Err(failed(FailureKind::Invalid, &message));
        }
        let tell = async |event| told(reply(sender, Reply::Kill(event)).await);
        session.signal(spec.signal);
        tell(KillEvent::Signal {
            signal: spec.signal,
            pid: spec.session.0,
        })
        .await?;
        let mut exit_code = None;
        if spec.timeout_ms > 0 {
            let within = Duration::from_millis(spec.timeout_ms);
            if tokio::time::timeout(within, session.ended()).await.is_err() {
                tell(KillEvent::Timeout).await?;
                session.signal(9);
                tell(KillEvent::Killed).await?;
            }
            exit_code = Some(session.ended().await);
            tell(KillEvent::Exited).await?;
        }
        tell(KillEvent::Complete { exit_code }).await
    }

    async fn shut_down(&self, sender: &Sender, receiver: &mut sprite_agent_api::link::Receiver) {
        if let Err(error) = self.switches.pass(Step::Shutdown, self.sprite).await {
            let failure = failed(FailureKind::System, &error.to_string());
            told(reply(sender, Reply::Failed(failure)).await).unwrap_or_default();
            return sender.finish();
        }
        self.kill_sessions();
        told(reply(sender, Reply::Synced).await).unwrap_or_default();
        sender.finish();
        while let Ok(Some(_)) = receiver.recv().await {}
        self.exit.send_if_modified(|exit| {
            let first = exit.is_none();
            exit.get_or_insert_with(|| "agent shut down".to_owned());
            first
        });
    }
}

fn failed(kind: FailureKind, message: &str) -> Failure {
    Failure {
        kind,
        message: message.to_owned(),
    }
}

async fn policy_reply(sender: &Sender, reply: &PolicyReply) -> Result<(), LinkError> {
    sender.send(Frame::control(reply)).await
}

async fn reply(sender: &Sender, reply: Reply) -> Result<(), LinkError> {
    sender.send(Frame::control(&reply)).await
}

/// A host that does not listen any more cannot be told anything.
fn told(sent: Result<(), LinkError>) -> Result<(), Failure> {
    drop(sent);
    Ok(())
}

/// Serves an attached client until the session has ended and all was sent, or the client is gone.
async fn attached(
    mut client: Client,
    mut ports: Option<Follower>,
    sender: &Sender,
    receiver: &mut sprite_agent_api::link::Receiver,
) -> Result<(), Failure> {
    let session = client.session().clone();
    let output = async {
        reply(sender, Reply::Started(client.started())).await?;
        loop {
            sender.room().await?;
            let changes = async {
                match &mut ports {
                    Some(ports) => ports.changes().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                next = client.next() => match next {
                    Next::Output(kind, bytes) => sender.send(Frame::data(kind, bytes)).await?,
                    Next::Exited(code) => return reply(sender, Reply::Exited { code }).await,
                },
                events = changes => for event in events {
                    reply(sender, Reply::Port(event)).await?;
                },
            }
        }
    };
    let input = async {
        while let Ok(Some(frame)) = receiver.recv().await {
            match frame.kind {
                FrameKind::Stdin => session.feed(Stdin::Bytes(frame.payload)).await,
                FrameKind::Control => match frame.message::<Input>() {
                    Ok(Input::StdinEof) => session.feed(Stdin::Eof).await,
                    Ok(Input::Resize(size)) => session.resize(size),
                    Ok(Input::Signal { signal }) => session.signal(signal),
                    Ok(Input::Detach) => return,
                    Err(_) => {}
                },
                FrameKind::Stdout | FrameKind::Stderr => return,
            }
        }
        // The host says no more; whether it still reads shows when it is sent something.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        sent = output => told(sent),
        () = input => Ok(()),
    }
}
