//! The task of one active sprite.
//!
//! It alone owns the sprite's machine and its operations. It takes in what happens (requests from its mailbox, the
//! end of the operation under way, the end of the machine, holds let go, time), asks the lifecycle what to do, and
//! does it. It never waits for an operation anywhere else than in its loop, so its mailbox is always taken.

mod attend;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;

use sprite_catalog::{IdleTimeout, Idleness, NewSprite as NewRow, Sprite};
use sprite_lifecycle::{
    Action, Answer, Connections, Event, Fault, Memory, Operation, Policy, Request, RequestId,
    State, step,
};
use sprite_machine::MachineExit;
use sprite_types::{MachineId, SpriteId};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::context::Context;
use crate::enforce::{self, NotInForce};
use crate::error::CreateError;
use crate::ledger::Ledger;
use crate::line::Exchange;
use crate::registry::{CreateReply, EnforceReply, Look, Message, Undelivered};
use crate::reply::{self, Reply};
use crate::shared::Shared;
use crate::sprite::ForkOf;
use crate::tasks::Looks;
use crate::{create, destroy, load, recover, sleep, stop, wake};

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// Where an operation's end goes, and what it changed.
struct Ended {
    ctx: Context,
    result: Result<(), Fault>,
    /// What the creator of the sprite is told.
    create_error: Option<CreateError>,
}

/// Who waited for the stored policies, and whether they are in force.
type Ruled = (Vec<EnforceReply>, Result<(), NotInForce>);

struct Actor {
    ctx: Context,
    state: State,
    mailbox: mpsc::Receiver<Message>,
    replies: HashMap<RequestId, Reply>,
    next_request: u64,
    /// When the sprite is idle, and since when the row says so: newer than the copies of operations.
    idleness: (OffsetDateTime, Idleness),
    /// Holds and traffic.
    ledger: Arc<Ledger>,
    /// Where streams find the sprite's memory.
    exchange: Exchange,
    operation: Option<Future<Ended>>,
    /// Who waits for the stored policies to be in force.
    unruled: Vec<EnforceReply>,
    /// Policies being put in force, and who waits for these.
    ruling: Option<Future<Ruled>>,
    /// The end of the machine, watched while no operation is about to end it.
    exit: Option<Future<MachineExit>>,
    /// What goes on with processes inside that call, while a machine runs.
    calls: Option<Future<()>>,
    /// When its own tasks end.
    tasks: Looks,
    create_error: Option<CreateError>,
    /// The machine that the task's span names: to name it again would add to every line of the log.
    named: Option<MachineId>,
    closed: bool,
}

/// Starts the task of a new sprite; `reply` is answered when it is complete.
///
/// The task is entered before the row is inserted: nobody knows the id before, and whoever finds the row finds the
/// task too.
pub(crate) fn create(
    shared: &Arc<Shared>,
    new: NewRow,
    from: Option<ForkOf>,
    reply: CreateReply,
) -> Result<(), Undelivered> {
    let owner = shared.clone();
    shared.registry.enter(new.id, |mailbox| {
        let task = async move { begin(owner, new, from, reply, mailbox).await };
        shared.spawn(task);
    })
}

async fn begin(
    shared: Arc<Shared>,
    new: NewRow,
    from: Option<ForkOf>,
    reply: CreateReply,
    mailbox: mpsc::Receiver<Message>,
) {
    match create::record(&shared, &new).await {
        Ok(row) => {
            shared.publish(&row).await;
            let id = RequestId(0);
            let (state, actions) = State::creating(id);
            let span = span(&row);
            let ctx = Context {
                from,
                ..Context::new(shared, row, None)
            };
            let mut actor = Actor::new(ctx, state, mailbox);
            actor.replies.insert(id, Reply::Create(reply));
            actor.run(actions).instrument(span).await;
        }
        Err(error) => {
            answer_all(
                &shared,
                new.id,
                mailbox,
                matches!(error, CreateError::Catalog(_)),
            );
            // Whoever does not wait any more needs no answer.
            let _ = reply.send(Err(error));
        }
    }
}

/// Starts the task of a sprite that an earlier process left in the midst of something.
pub(crate) fn resume(ctx: Context, (state, actions): (State, Vec<Action>)) {
    let registry = &ctx.shared.clone().registry;
    // Refused only when the host closes while it opens: then the next start does this.
    let _ = registry.enter(ctx.sprite.id, |mailbox| {
        Actor::new(ctx, state, mailbox).spawn(actions)
    });
}

/// Sends the sprite's task a message; starts the task if it has none.
pub(crate) fn send(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    message: Message,
) -> Result<(), Undelivered> {
    shared.registry.send(sprite, message, |mailbox| {
        let owner = shared.clone();
        shared.spawn(async move { wake_up(owner, sprite, mailbox).await });
    })
}

/// The task of a sprite at rest: reads the row first, now that nobody else changes it.
async fn wake_up(shared: Arc<Shared>, sprite: SpriteId, mailbox: mpsc::Receiver<Message>) {
    match shared.catalog.sprite(sprite).await {
        Ok(Some(row)) => {
            let span = span(&row);
            let state = if recover::sleeps_without_machine(&row) {
                State::warm(shared.now(), Memory::Snapshot)
            } else {
                State::cold()
            };
            let ctx = Context::new(shared, row, None);
            let actor = Actor::new(ctx, state, mailbox);
            actor.run(Vec::new()).instrument(span).await;
        }
        outcome => {
            let error = outcome.err();
            if let Some(error) = &error {
                let error = error as &dyn std::error::Error;
                tracing::error!(error, %sprite, "read the row of a sprite");
            }
            answer_all(&shared, sprite, mailbox, error.is_some());
        }
    }
}

/// Answers all that came for a sprite without a row, and leaves when nothing more does.
fn answer_all(
    shared: &Shared,
    sprite: SpriteId,
    mut mailbox: mpsc::Receiver<Message>,
    unreadable: bool,
) {
    while !shared.registry.leave(sprite, &mailbox) {
        if let Ok(message) = mailbox.try_recv() {
            reply::refuse(message, unreadable);
        }
    }
}

fn span(sprite: &Sprite) -> tracing::Span {
    tracing::info_span!(
        "sprite",
        org = %sprite.org,
        sprite = %sprite.id,
        machine = tracing::field::Empty,
        generation = sprite.generation.0,
    )
}

impl Actor {
    fn new(ctx: Context, state: State, mailbox: mpsc::Receiver<Message>) -> Self {
        let ledger = Arc::new(Ledger::new(ctx.shared.began));
        let idleness = (ctx.sprite.updated_at, ctx.sprite.idleness);
        Self {
            idleness,
            ctx,
            state,
            mailbox,
            replies: HashMap::new(),
            // 0 is the creation.
            next_request: 1,
            ledger,
            exchange: Exchange::new(),
            operation: None,
            unruled: Vec::new(),
            ruling: None,
            exit: None,
            calls: None,
            tasks: Looks::default(),
            create_error: None,
            named: None,
            closed: false,
        }
    }

    fn spawn(self, actions: Vec<Action>) {
        let shared = self.ctx.shared.clone();
        let span = span(&self.ctx.sprite);
        shared.spawn(self.run(actions).instrument(span));
    }

    async fn run(mut self, actions: Vec<Action>) {
        self.tell_line();
        self.act(actions);
        self.look_at_tasks(None);
        loop {
            if self.closed && self.operation.is_none() {
                // Whoever waits in the mailbox sees it dropped: the host closes.
                return self.ctx.shared.registry.strike_out(self.ctx.sprite.id);
            }
            self.rule();
            if self.state.forgettable()
                && self.ruling.is_none()
                // Nobody else knows that a machine may come yet.
                && self.ctx.unfinished.is_none()
                && self
                    .ctx
                    .shared
                    .registry
                    .leave(self.ctx.sprite.id, &self.mailbox)
            {
                return;
            }
            self.watch_machine();
            let Some(event) = self.next_event().await else {
                continue;
            };
            // What is decided now knows of all bytes so far. The end of an operation is of what was, and comes first.
            if !matches!(event, Event::Finished(_))
                && let Some(traffic) = self.ledger.traffic()
            {
                self.take_in(Event::Traffic(traffic));
            }
            self.take_in(event);
        }
    }

    fn take_in(&mut self, event: Event) {
        let policy = self.policy();
        let (state, actions) = step(&self.state, event, self.ctx.shared.now(), &policy);
        self.state = state;
        // Before anybody is answered: he uses it at once.
        self.tell_line();
        self.act(actions);
    }

    /// What happens next; `None` if it needed no decision.
    async fn next_event(&mut self) -> Option<Event> {
        let deadline = self.state.deadline(&self.policy());
        let deadline = deadline.and_then(|moment| self.ctx.shared.instant(moment));
        tokio::select! {
            // Ends before beginnings: who asks now is answered by what is, not by what was.
            biased;
            ended = ready(&mut self.operation) => Some(self.ended(ended)),
            (waiting, ruled) = ready(&mut self.ruling) => {
                for reply in waiting {
                    // Whoever does not wait any more needs no answer.
                    let _ = reply.send(ruled.clone());
                }
                None
            }
            exit = ready(&mut self.exit) => {
                tracing::warn!(reason = exit.reason, "machine ended by itself");
                Some(Event::MachineExited)
            }
            told = self.ledger.told() => Some(told),
            message = self.mailbox.recv() => self.received(message),
            () = until(deadline) => {
                // What passed since the idle time began begins it anew.
                Some(self.ledger.traffic().map_or(Event::Tick, Event::Traffic))
            }
            until = self.tasks.seen(&self.ctx.shared, self.ctx.sprite.id) => {
                Some(Event::Tasks { until })
            }
            () = ready(&mut self.calls) => None,
            () = over(self.ctx.unfinished.as_ref()) => {
                self.ctx.unfinished = None;
                None
            }
        }
    }

    fn ended(&mut self, ended: Ended) -> Event {
        self.ctx = ended.ctx;
        // The undoing that follows a failed creation does not forget why.
        self.create_error = ended.create_error.or_else(|| self.create_error.take());
        if let Some(machine) = &self.ctx.machine {
            let id = machine.identity().machine;
            if self.named.replace(id) != Some(id) {
                tracing::Span::current().record("machine", tracing::field::display(id));
            }
        }
        Event::Finished(ended.result)
    }

    fn received(&mut self, message: Option<Message>) -> Option<Event> {
        // The registry keeps a sender until the task has left.
        let (reply, request) = match message? {
            Message::Wake(reply) => (Reply::Wake(reply), Request::Wake),
            Message::Sleep(reply, until) => (Reply::Sleep(reply), Request::Sleep { until }),
            Message::Restart(reply) => (Reply::Restart(reply), Request::Restart),
            Message::Destroy(reply) => (Reply::Destroy(reply), Request::Destroy),
            Message::Close(reply) => (Reply::Close(reply), Request::Close),
            Message::TasksChanged(reply) => {
                self.look_at_tasks(Some(reply));
                return None;
            }
            Message::Look(reply) => {
                // Whoever does not wait any more needs no answer.
                let _ = reply.send(self.look());
                return None;
            }
            Message::Counters(reply) => {
                let _ = reply.send(self.ctx.counters());
                return None;
            }
            Message::Idleness(at, idleness) => {
                // Two changes may be told in another order than they were made.
                if at >= self.idleness.0 {
                    self.idleness = (at, idleness);
                }
                return Some(Event::Tick);
            }
            Message::Enforce(reply) => {
                self.unruled.push(reply);
                return None;
            }
            Message::Pressed => return Some(Event::Pressed),
        };
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.replies.insert(id, reply);
        Some(Event::Requested(id, request))
    }

    /// Begins to put the stored policies in force, if somebody waits for that. Not beside an operation: what it
    /// starts may have read the policies before they were stored, and is not known yet.
    fn rule(&mut self) {
        if self.unruled.is_empty() || self.operation.is_some() || self.ruling.is_some() {
            return;
        }
        let waiting = std::mem::take(&mut self.unruled);
        let ctx = &self.ctx;
        let Some(machine) = ctx.machine.clone() else {
            for reply in waiting {
                let _ = reply.send(Ok(()));
            }
            return;
        };
        let agent = match self.look() {
            Look::Awake(_) => enforce::Agent::Listens,
            Look::Busy | Look::Asleep | Look::Failed(_) => enforce::Agent::MaySleep,
        };
        let (shared, sprite, untold) = (ctx.shared.clone(), ctx.sprite.clone(), ctx.untold.clone());
        self.ruling = Some(Box::pin(async move {
            let ruled = enforce::enforce(shared, sprite, machine, agent, untold).await;
            (waiting, ruled)
        }));
    }

    /// What the server was configured with, and what the sprite's own settings say.
    fn policy(&self) -> Policy {
        let server = self.ctx.shared.policy();
        let (
            _,
            Idleness {
                timeout,
                connections,
            },
        ) = self.idleness;
        Policy {
            idle_timeout: match timeout {
                IdleTimeout::Server => server.idle_timeout,
                IdleTimeout::Never => None,
                IdleTimeout::After(after) => Some(after),
            },
            connections: match connections {
                sprite_catalog::Connections::Open => Connections::Open,
                sprite_catalog::Connections::Traffic => Connections::Traffic,
            },
            ..server
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Perform(operation) => {
                    self.operation = Some(perform(self.ctx.clone(), operation))
                }
                Action::Abandon => self.operation = None,
                Action::Answer(request, answer) => self.answer(request, answer),
            }
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer) {
        let Some(reply) = self.replies.remove(&request) else {
            debug_assert!(false, "{request:?} is answered twice");
            return;
        };
        // Whoever does not wait any more needs no answer; a hold comes back by being dropped.
        match reply {
            Reply::Create(reply) => {
                let error = self.create_error.take();
                let _ = reply.send(reply::created(answer, &self.ctx.sprite, error));
            }
            Reply::Wake(reply) => {
                let woken = reply::woken(answer, &self.ctx, &self.exchange, &self.ledger);
                let _ = reply.send(woken);
            }
            Reply::Sleep(reply) => {
                let _ = reply.send(reply::asleep(answer));
            }
            Reply::Restart(reply) => {
                let _ = reply.send(reply::restarted(answer, &self.ctx));
            }
            Reply::Destroy(reply) => {
                let _ = reply.send(reply::destroyed(answer));
            }
            Reply::Close(reply) => {
                self.closed = true;
                let _ = reply.send(());
            }
        }
    }
}

fn perform(mut ctx: Context, operation: Operation) -> Future<Ended> {
    Box::pin(async move {
        let mut create_error = None;
        let began = Instant::now();
        let result = match operation {
            Operation::Create => create::complete(&mut ctx, &mut create_error).await,
            Operation::Boot => wake::boot(&mut ctx).await,
            Operation::Thaw => wake::thaw(&mut ctx).await,
            Operation::Load => load::load(&mut ctx).await,
            Operation::Adopt => recover::adopt(&mut ctx).await,
            Operation::Sync(why) => sleep::sync(&ctx, why).await,
            Operation::Freeze => sleep::freeze(&mut ctx).await,
            Operation::Snapshot => sleep::snapshot(&mut ctx).await,
            Operation::Stop(how) => stop::stop(&mut ctx, how).await,
            Operation::Mark => destroy::mark(&mut ctx).await,
            Operation::Destroy(step) => destroy::step(&mut ctx, step).await,
        };
        let metrics = &ctx.shared.metrics;
        metrics.ended(operation, &result, began.elapsed());
        Ended {
            ctx,
            result,
            create_error,
        }
    })
}

/// The output of the future, which is taken; waits for ever where there is none.
async fn ready<T>(future: &mut Option<Future<T>>) -> T {
    match future {
        Some(running) => {
            let output = running.await;
            *future = None;
            output
        }
        None => std::future::pending().await,
    }
}

/// Returns when nothing is left of a start that did not end in time; waits for ever where there is none.
async fn over(unfinished: Option<&CancellationToken>) {
    match unfinished {
        Some(ended) => ended.cancelled().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
