//! Random lives of a sprite in a model world: what always holds, held against every order of events.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sprite_lifecycle::{
    Action, Answer, Connections, DestroyStep, Event, Fault, Hold, Holds, Left, Memory, Moment,
    Operation, Phase, Policy, Refusal, Request, RequestId, State, Traffic, Why, step,
};

fn policy(memory: Memory, connections: Connections) -> Policy {
    Policy {
        connections,
        idle_timeout: Some(Duration::from_secs(30)),
        cold_after: Duration::from_secs(3600),
        memory,
        most_waiting: 4,
    }
}

fn owners() -> impl Strategy<Value = (Memory, Connections)> {
    let memories = prop_oneof![Just(Memory::Machine), Just(Memory::Snapshot)];
    let connections = prop_oneof![Just(Connections::Open), Just(Connections::Traffic)];
    (memories, connections)
}

fn lasting() -> impl Strategy<Value = Hold> {
    prop_oneof![
        Just(Hold::Session),
        Just(Hold::Connection),
        Just(Hold::Presence)
    ]
}

fn holds() -> impl Strategy<Value = Hold> {
    prop_oneof![Just(Hold::Call), lasting()]
}

/// What a machine is in the model, apart from what the lifecycle believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    None,
    Running,
    Frozen,
    /// It ended by itself; its remains are there.
    Dead,
    /// An operation failed half-way.
    Unknown,
}

#[derive(Debug, Clone)]
enum Command {
    Request(Request),
    Finish,
    Fail(Left),
    Release(Hold),
    /// A call becomes something that lasts.
    Turn(Hold),
    /// Somebody asks for sleep, and waits so many seconds.
    Sleep(u64),
    Traffic,
    Stirred,
    MachineDies,
    Pressed,
    /// Tasks hold the sprite for so many seconds from now, or no longer.
    Tasks(Option<u64>),
    Wait(u64),
}

fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        5 => Just(Command::Request(Request::Wake)),
        1 => Just(Command::Request(Request::Restart)),
        1 => Just(Command::Request(Request::Destroy)),
        1 => Just(Command::Request(Request::Close)),
        8 => Just(Command::Finish),
        1 => Just(Command::Fail(Left::AsBefore)),
        1 => Just(Command::Fail(Left::NoMachine)),
        1 => Just(Command::Fail(Left::Unrecorded)),
        1 => Just(Command::Fail(Left::Unknown)),
        4 => holds().prop_map(Command::Release),
        4 => lasting().prop_map(Command::Turn),
        2 => (0..100u64).prop_map(Command::Sleep),
        2 => Just(Command::Traffic),
        2 => Just(Command::Stirred),
        1 => Just(Command::Fail(Left::InUse)),
        1 => Just(Command::MachineDies),
        1 => Just(Command::Pressed),
        2 => prop::option::of(0..5000u64).prop_map(Command::Tasks),
        4 => (0..5000u64).prop_map(Command::Wait),
    ]
}

struct World {
    policy: Policy,
    /// Whether there is a snapshot that a sprite at rest counts on.
    snapshot: bool,
    state: State,
    now: Moment,
    operation: Option<Operation>,
    machine: Machine,
    disk: bool,
    row: bool,
    open: BTreeMap<RequestId, Option<Request>>,
    next_request: u64,
    holds: Holds,
    tasks_until: Option<Moment>,
    destroy_begun: bool,
    closing: bool,
}

impl World {
    fn new(
        (memory, connections): (Memory, Connections),
        state: State,
        actions: Vec<Action>,
        machine: Machine,
    ) -> Self {
        let mut world = Self {
            policy: policy(memory, connections),
            snapshot: memory == Memory::Snapshot && matches!(state.phase(), Phase::Warm { .. }),
            state,
            now: Moment::default(),
            operation: None,
            machine,
            disk: true,
            row: true,
            open: BTreeMap::new(),
            next_request: 1,
            holds: Holds::default(),
            tasks_until: None,
            destroy_begun: false,
            closing: false,
        };
        world.act(actions);
        world
    }

    fn event(&mut self, event: Event) {
        let (state, actions) = step(&self.state, event, self.now, &self.policy);
        self.state = state;
        self.act(actions);
        assert_eq!(self.state.holds(), self.holds, "holds are counted");
        self.nothing_waits_at_rest();
        // A machine that is dead tells so for as long as anybody listens.
        if self.machine == Machine::Dead
            && matches!(
                self.state.phase(),
                Phase::Running { .. } | Phase::Warm { .. }
            )
        {
            self.event(Event::MachineExited);
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Perform(operation) => self.begin(operation),
                Action::Abandon => {
                    assert!(matches!(self.operation.take(), Some(Operation::Sync(_))));
                }
                Action::Answer(request, answer) => self.answered(request, &answer),
            }
        }
    }

    fn begin(&mut self, operation: Operation) {
        assert_eq!(
            self.operation, None,
            "one operation at a time, not also {operation:?}"
        );
        match operation {
            Operation::Boot => {
                assert_eq!(self.machine, Machine::None, "never two machines");
                assert!(
                    !self.snapshot,
                    "memory is dropped by a person's request alone"
                );
            }
            Operation::Load => {
                assert_eq!(self.machine, Machine::None, "never two machines");
                assert!(self.snapshot, "only what was kept is loaded");
            }
            Operation::Thaw => assert!(matches!(self.machine, Machine::Frozen | Machine::Dead)),
            Operation::Sync(why) => self.may_fall_asleep(why),
            Operation::Freeze | Operation::Snapshot => {
                assert!(matches!(self.machine, Machine::Running | Machine::Dead));
                assert!(
                    self.holds.calls == 0 || self.closing,
                    "no call is put to sleep"
                );
            }
            Operation::Destroy(DestroyStep::Machine) => {}
            Operation::Destroy(DestroyStep::Disk) => assert_eq!(self.machine, Machine::None),
            Operation::Destroy(DestroyStep::Row) => assert!(!self.disk, "the row goes last"),
            Operation::Stop(_) => {
                let restart = |asked: &Option<Request>| *asked == Some(Request::Restart);
                let asked_for = self.open.values().any(restart);
                assert!(!self.snapshot || asked_for, "memory is kept");
            }
            Operation::Create | Operation::Adopt | Operation::Mark => {}
        }
        if self.closing {
            assert!(
                !matches!(
                    operation,
                    Operation::Boot | Operation::Thaw | Operation::Load | Operation::Create
                ),
                "{operation:?} begins while the owner shuts down"
            );
        }
        self.operation = Some(operation);
    }

    fn may_fall_asleep(&self, why: Why) {
        assert!(matches!(self.machine, Machine::Running | Machine::Dead));
        if self.closing {
            return;
        }
        let tasks = self.tasks_until.is_some_and(|until| until > self.now);
        assert!(!tasks, "no sprite with a live task begins to fall asleep");
        assert_eq!(self.holds.calls, 0, "no call is put to sleep");
        match why {
            Why::Idle => {
                assert_eq!(self.holds.sessions, 0, "attached commands keep it awake");
                assert!(
                    self.holds.connections == 0 || self.policy.connections == Connections::Traffic,
                    "open connections keep it awake"
                );
            }
            Why::Asked => {
                let mut asked = self.open.values();
                let sleep = |asked: &Option<Request>| matches!(asked, Some(Request::Sleep { .. }));
                assert!(asked.any(sleep), "nobody asked for it");
            }
        }
    }

    fn answered(&mut self, request: RequestId, answer: &Answer) {
        let asked = self.open.remove(&request);
        let asked = asked.unwrap_or_else(|| panic!("{request:?} is answered twice: {answer:?}"));
        match (asked, answer) {
            (Some(Request::Wake), Answer::Awake) => {
                assert!(matches!(self.machine, Machine::Running | Machine::Dead));
                self.holds.calls += 1;
            }
            (Some(Request::Sleep { .. }), Answer::Asleep) => {
                let stands = matches!(self.machine, Machine::None | Machine::Frozen);
                assert!(stands || self.machine == Machine::Dead);
            }
            (Some(Request::Sleep { until }), Answer::Refused(Refusal::Held)) => {
                let task = self.tasks_until.is_some_and(|end| end > self.now);
                assert!(task || until <= self.now, "given up before its time");
            }
            (Some(Request::Restart), Answer::Restarted) => {}
            (Some(Request::Destroy), Answer::Destroyed) => {
                assert!(!self.disk && !self.row && self.machine == Machine::None);
            }
            (Some(Request::Close), Answer::Closed) | (None, Answer::Created) => {}
            (_, Answer::Refused(_)) => {}
            (asked, answer) => panic!("{asked:?} is answered by {answer:?}"),
        }
    }

    /// At rest, everything that was asked for is answered.
    fn nothing_waits_at_rest(&self) {
        if self.operation.is_none() && !matches!(self.state.phase(), Phase::Destroying { .. }) {
            let soon = self.now.after(Duration::from_secs(2));
            let looks_again = self
                .state
                .deadline(&self.policy)
                .is_some_and(|at| at <= soon);
            let waits_for_holds = |asked: &Option<Request>| {
                matches!(asked, Some(Request::Sleep { until }) if *until > self.now)
                    && (self.holds.calls > 0 || (!self.holds.is_empty() && looks_again))
            };
            assert!(
                self.open.values().all(waits_for_holds),
                "{:?} wait in {:?}",
                self.open,
                self.state.phase()
            );
        }
    }

    fn request(&mut self, request: Request) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.open.insert(id, Some(request));
        self.destroy_begun |= request == Request::Destroy;
        self.closing |= request == Request::Close;
        self.event(Event::Requested(id, request));
    }

    fn finish(&mut self) {
        let Some(operation) = self.operation.take() else {
            // An end that nobody waits for changes nothing.
            let before = self.state.phase().clone();
            self.event(Event::Finished(Ok(())));
            assert_eq!(*self.state.phase(), before);
            return;
        };
        let dead = self.machine == Machine::Dead;
        match operation {
            Operation::Boot => self.machine = Machine::Running,
            Operation::Thaw
            | Operation::Adopt
            | Operation::Freeze
            | Operation::Snapshot
            | Operation::Sync(_)
                if dead =>
            {
                self.operation = Some(operation);
                return self.fail(Left::AsBefore);
            }
            Operation::Thaw | Operation::Adopt => self.machine = Machine::Running,
            Operation::Freeze => self.machine = Machine::Frozen,
            Operation::Load => {
                self.machine = Machine::Running;
                self.snapshot = false;
            }
            Operation::Snapshot => {
                self.machine = Machine::None;
                self.snapshot = true;
            }
            Operation::Stop(_) => {
                self.machine = Machine::None;
                self.snapshot = false;
            }
            Operation::Destroy(DestroyStep::Machine) => self.machine = Machine::None,
            Operation::Destroy(DestroyStep::Disk) => self.disk = false,
            Operation::Destroy(DestroyStep::Row) => self.row = false,
            Operation::Create | Operation::Sync(_) | Operation::Mark => {}
        }
        self.event(Event::Finished(Ok(())));
    }

    fn fail(&mut self, left: Left) {
        let Some(operation) = self.operation.take() else {
            return;
        };
        // An operation tells the truth about what it leaves.
        let left = match (operation, left) {
            (Operation::Adopt, Left::AsBefore) => Left::Unknown,
            (Operation::Boot, Left::AsBefore) if self.machine != Machine::None => Left::Unknown,
            (Operation::Sync(Why::Idle), Left::InUse) => Left::InUse,
            (_, Left::InUse) => return self.operation = Some(operation),
            (Operation::Create | Operation::Mark | Operation::Destroy(_), _) => Left::AsBefore,
            (_, left) => left,
        };
        match left {
            Left::AsBefore | Left::InUse => {}
            Left::NoMachine | Left::Unrecorded => {
                self.machine = Machine::None;
                self.snapshot = false;
            }
            Left::Unknown => {
                self.machine = Machine::Unknown;
                self.snapshot = false;
            }
        }
        self.event(Event::Finished(Err(Fault {
            cause: "broken".to_owned(),
            left,
        })));
    }

    fn held(&mut self, added: Holds, released: Holds) {
        self.holds = self.holds.and(added).without(released);
        self.event(Event::Held { added, released });
    }

    fn run(&mut self, command: Command) {
        match command {
            Command::Request(request) => self.request(request),
            Command::Finish => self.finish(),
            Command::Fail(left) => self.fail(left),
            Command::Release(hold) => {
                let one = Holds::of(hold, 1);
                if self.holds.without(one) != self.holds {
                    self.held(Holds::default(), one);
                }
            }
            Command::Turn(into) => {
                if self.holds.calls > 0 {
                    self.held(Holds::of(into, 1), Holds::of(Hold::Call, 1));
                }
            }
            Command::Sleep(seconds) => {
                let until = self.now.after(Duration::from_secs(seconds));
                self.request(Request::Sleep { until });
            }
            Command::Traffic => {
                let traffic = Traffic {
                    at: self.now,
                    unanswered: self.next_request.is_multiple_of(2),
                };
                self.event(Event::Traffic(traffic));
            }
            Command::Stirred => self.event(Event::Stirred),
            Command::MachineDies => {
                if matches!(self.machine, Machine::Running | Machine::Frozen) {
                    self.machine = Machine::Dead;
                    self.event(Event::MachineExited);
                }
            }
            Command::Pressed => self.event(Event::Pressed),
            Command::Tasks(seconds) => {
                let until = seconds.map(|seconds| self.now.after(Duration::from_secs(seconds)));
                self.tasks_until = until;
                self.event(Event::Tasks { until });
            }
            Command::Wait(seconds) => {
                self.now = self.now.after(Duration::from_secs(seconds));
                self.event(Event::Tick);
            }
        }
    }

    /// Every operation ends well from here on, and time passes where it is waited for.
    fn until_nothing_is_under_way(&mut self) {
        for _ in 0..100 {
            if self.operation.is_some() {
                self.finish();
            } else if let Some(deadline) = self.state.deadline(&self.policy)
                && (!self.open.is_empty()
                    || matches!(
                        self.state.phase(),
                        Phase::Destroying { .. } | Phase::Unrecorded { .. }
                    ))
            {
                self.now = self.now.max(deadline);
                self.event(Event::Tick);
            } else {
                return;
            }
        }
        panic!("still busy in {:?}", self.state.phase());
    }
}

fn beginnings() -> impl Strategy<Value = u8> {
    0..5u8
}

fn world(owner: (Memory, Connections), beginning: u8) -> World {
    match beginning {
        0 => {
            let request = RequestId(0);
            let (state, actions) = State::creating(request);
            let mut world = World::new(owner, state, actions, Machine::None);
            world.open.insert(request, None);
            world
        }
        1 => World::new(owner, State::cold(), Vec::new(), Machine::None),
        2 => {
            let (memory, _) = owner;
            let state = State::warm(Moment::default(), memory);
            let machine = match memory {
                Memory::Machine => Machine::Frozen,
                Memory::Snapshot => Machine::None,
            };
            World::new(owner, state, Vec::new(), machine)
        }
        3 => {
            let (state, actions) = State::adopting();
            World::new(owner, state, actions, Machine::Running)
        }
        _ => {
            let (state, actions) = State::destroying();
            World::new(owner, state, actions, Machine::Running)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_life_keeps_the_promises(
        owner in owners(),
        beginning in beginnings(),
        commands in prop::collection::vec(commands(), 0..60),
    ) {
        let mut world = world(owner, beginning);
        for command in commands {
            world.run(command);
        }
        world.until_nothing_is_under_way();
        prop_assert!(world.open.is_empty(), "{:?} were never answered", world.open);
        if world.closing {
            prop_assert!(
                matches!(
                    world.state.phase(),
                    Phase::Cold
                        | Phase::Warm {
                            memory: Memory::Snapshot,
                            ..
                        }
                        | Phase::Failed { .. }
                        | Phase::Gone
                ),
                "closed in {:?}", world.state.phase()
            );
        }
        // A destroy is accepted wherever the sprite stands, and ends it.
        world.closing = false;
        world.request(Request::Destroy);
        world.until_nothing_is_under_way();
        prop_assert_eq!(world.state.phase(), &Phase::Gone);
        prop_assert!(world.open.is_empty());
        prop_assert!(!world.row && !world.disk && world.machine == Machine::None);
    }

    #[test]
    fn a_wake_request_is_answered_awake_when_nothing_fails(
        owner in owners(),
        beginning in 0..4u8,
        waits in prop::collection::vec(0..5000u64, 0..10),
    ) {
        let mut world = world(owner, beginning);
        for wait in waits {
            world.run(Command::Wait(wait));
            world.run(Command::Finish);
            world.run(Command::Request(Request::Wake));
            world.until_nothing_is_under_way();
            prop_assert_eq!(world.holds, Holds::of(Hold::Call, 1));
            prop_assert_eq!(world.machine, Machine::Running);
            world.run(Command::Release(Hold::Call));
        }
    }
}
