//! The table of a sprite's life, line by line.

use std::time::Duration;

use sprite_lifecycle::{
    Action, Answer, Connections, DestroyStep, Event, Fault, Hold, Holds, Left, Memory, Moment,
    Operation, Phase, Policy, Refusal, Request, RequestId, Sleep, State, Stop, Traffic, Wake, Why,
    step,
};

const POLICY: Policy = Policy {
    idle_timeout: Some(Duration::from_secs(30)),
    connections: Connections::Open,
    cold_after: Duration::from_secs(600),
    memory: Memory::Machine,
    most_waiting: 2,
};

struct Life {
    policy: Policy,
    state: State,
    now: Moment,
}

impl Life {
    fn cold() -> Self {
        Self {
            policy: POLICY,
            state: State::cold(),
            now: Moment::default(),
        }
    }

    fn running() -> Self {
        let mut life = Self::cold();
        life.on(wake(1));
        life.on(Event::Finished(Ok(())));
        assert_eq!(life.on(released()), []);
        life
    }

    fn warm() -> Self {
        let mut life = Self::running();
        life.after(30);
        life.on(Event::Finished(Ok(())));
        life.on(Event::Finished(Ok(())));
        let since = life.now;
        let memory = Memory::Machine;
        assert_eq!(*life.state.phase(), Phase::Warm { since, memory });
        life
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        let (state, actions) = step(&self.state, event, self.now, &self.policy);
        self.state = state;
        actions
    }

    fn after(&mut self, seconds: u64) -> Vec<Action> {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.on(Event::Tick)
    }
}

/// Bytes went to and fro.
fn passed(at: Moment) -> Event {
    Event::Traffic(Traffic {
        at,
        unanswered: false,
    })
}

/// A call has ended.
fn released() -> Event {
    Event::Held {
        added: Holds::default(),
        released: Holds::of(Hold::Call, 1),
    }
}

/// A call has become something that lasts.
fn turned(into: Hold) -> Event {
    Event::Held {
        added: Holds::of(into, 1),
        released: Holds::of(Hold::Call, 1),
    }
}

fn wake(id: u64) -> Event {
    Event::Requested(RequestId(id), Request::Wake)
}

fn request(id: u64, request: Request) -> Event {
    Event::Requested(RequestId(id), request)
}

fn fault(left: Left) -> Event {
    Event::Finished(Err(Fault {
        cause: "broken".to_owned(),
        left,
    }))
}

fn answer(id: u64, answer: Answer) -> Action {
    Action::Answer(RequestId(id), answer)
}

fn refused(id: u64) -> Action {
    answer(id, Answer::Refused(Refusal::Failed("broken".to_owned())))
}

#[test]
fn many_wakes_cause_one_boot_and_are_all_answered() {
    let mut life = Life::cold();
    assert_eq!(life.on(wake(1)), [Action::Perform(Operation::Boot)]);
    assert_eq!(life.on(wake(2)), []);
    assert_eq!(
        life.on(wake(3)),
        [answer(3, Answer::Refused(Refusal::Busy))]
    );
    let answers = life.on(Event::Finished(Ok(())));
    assert_eq!(
        answers,
        [answer(1, Answer::Awake), answer(2, Answer::Awake)]
    );
    assert_eq!(life.state.holds(), Holds::of(Hold::Call, 2));
    assert_eq!(life.on(wake(4)), [answer(4, Answer::Awake)]);
}

#[test]
fn a_failed_boot_is_told_and_the_next_wake_tries_again() {
    let mut life = Life::cold();
    life.on(wake(1));
    assert_eq!(life.on(fault(Left::NoMachine)), [refused(1)]);
    assert_eq!(*life.state.phase(), Phase::Cold);
    assert_eq!(life.on(wake(2)), [Action::Perform(Operation::Boot)]);
}

#[test]
fn what_may_be_left_of_a_machine_bars_another_until_it_is_removed() {
    let mut life = Life::cold();
    life.on(wake(1));
    assert_eq!(life.on(fault(Left::Unknown)), [refused(1)]);
    assert_eq!(life.on(wake(2)), [refused(2)]);
    let removes = [Action::Perform(Operation::Stop(Stop::Hard))];
    assert_eq!(life.on(request(3, Request::Restart)), removes);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Boot)]
    );
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [answer(3, Answer::Restarted)]
    );
}

#[test]
fn a_sprite_sleeps_after_its_idle_time_and_not_while_held() {
    let mut life = Life::running();
    assert_eq!(life.after(29), []);
    life.on(wake(2));
    assert_eq!(life.state.deadline(&POLICY), None);
    assert_eq!(life.after(1000), []);
    life.on(released());
    assert_eq!(life.after(29), []);
    assert_eq!(life.after(1), [Action::Perform(Operation::Sync(Why::Idle))]);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Freeze)]
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    assert_eq!(life.on(wake(3)), [Action::Perform(Operation::Thaw)]);
    assert_eq!(life.on(Event::Finished(Ok(()))), [answer(3, Answer::Awake)]);
}

#[test]
fn a_wake_abandons_a_sleep_that_has_not_frozen_yet() {
    let mut life = Life::running();
    life.after(30);
    assert_eq!(
        life.on(wake(2)),
        [Action::Abandon, answer(2, Answer::Awake)]
    );

    let mut life = Life::running();
    life.after(30);
    life.on(Event::Finished(Ok(())));
    assert_eq!(life.on(wake(2)), []);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Thaw)]
    );
}

#[test]
fn a_sleep_that_fails_is_tried_again_later_and_later() {
    let mut life = Life::running();
    for wait in [30, 60, 120, 240] {
        assert_eq!(life.after(wait - 1), [], "{wait}");
        assert_eq!(
            life.after(1),
            [Action::Perform(Operation::Sync(Why::Idle))],
            "{wait}"
        );
        assert_eq!(life.on(fault(Left::AsBefore)), []);
    }
    life.on(wake(2));
    life.on(released());
    assert_eq!(
        life.after(30),
        [Action::Perform(Operation::Sync(Why::Idle))]
    );
}

#[test]
fn warm_becomes_cold_with_time() {
    let mut life = Life::warm();
    assert_eq!(life.after(599), []);
    assert_eq!(
        life.after(1),
        [Action::Perform(Operation::Stop(Stop::Hard))]
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    assert!(life.state.forgettable());
}

#[test]
fn a_machine_that_exits_is_cleared_away() {
    for mut life in [Life::running(), Life::warm()] {
        let clears = [Action::Perform(Operation::Stop(Stop::Hard))];
        assert_eq!(life.on(Event::MachineExited), clears);
        // Whoever comes meanwhile gets the next machine.
        assert_eq!(life.on(wake(9)), []);
        assert_eq!(
            life.on(Event::Finished(Ok(()))),
            [Action::Perform(Operation::Boot)]
        );
    }
}

#[test]
fn restarts_get_a_machine_that_boots_after_them() {
    let mut life = Life::running();
    let stops = [Action::Perform(Operation::Stop(Stop::Orderly))];
    assert_eq!(life.on(request(2, Request::Restart)), stops);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Boot)]
    );
    assert_eq!(*life.state.phase(), Phase::Waking(Wake::Boot));
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [answer(2, Answer::Restarted)]
    );

    // A thaw that is under way does not count.
    let mut life = Life::warm();
    life.on(wake(2));
    assert_eq!(life.on(request(3, Request::Restart)), []);
    assert_eq!(life.on(Event::Finished(Ok(()))), stops);
}

#[test]
fn an_end_that_cannot_be_recorded_is_recorded_later_or_by_the_next_boot() {
    let mut life = Life::running();
    let ends = [Action::Perform(Operation::Stop(Stop::Hard))];
    assert_eq!(life.on(Event::MachineExited), ends);
    assert_eq!(life.on(fault(Left::Unrecorded)), []);
    assert!(!life.state.forgettable());
    assert_eq!(life.after(5), ends);
    assert_eq!(life.on(fault(Left::Unrecorded)), []);
    // A boot announces another machine in the place of the one that is gone.
    let boots = [Action::Perform(Operation::Boot)];
    assert_eq!(life.on(wake(2)), boots);
    assert_eq!(life.on(fault(Left::Unrecorded)), [refused(2)]);
    assert_eq!(life.after(5), ends);
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    assert_eq!(*life.state.phase(), Phase::Cold);
}

#[test]
fn destroy_goes_step_by_step_and_does_not_give_up() {
    let mut life = Life::running();
    assert_eq!(
        life.on(request(2, Request::Destroy)),
        [Action::Perform(Operation::Mark)]
    );
    let step = |step| [Action::Perform(Operation::Destroy(step))];
    assert_eq!(life.on(Event::Finished(Ok(()))), step(DestroyStep::Machine));
    // Too late for anything else.
    assert_eq!(
        life.on(wake(3)),
        [answer(3, Answer::Refused(Refusal::Gone))]
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), step(DestroyStep::Disk));
    assert_eq!(life.on(fault(Left::AsBefore)), []);
    assert_eq!(life.after(1), step(DestroyStep::Disk));
    assert_eq!(life.on(fault(Left::AsBefore)), []);
    assert_eq!(life.after(1), step(DestroyStep::Disk));
    assert_eq!(life.on(fault(Left::AsBefore)), [refused(2)]);
    // Somebody asks again: at once.
    assert_eq!(
        life.on(request(4, Request::Destroy)),
        step(DestroyStep::Disk)
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), step(DestroyStep::Row));
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [answer(4, Answer::Destroyed)]
    );
    assert_eq!(*life.state.phase(), Phase::Gone);
}

#[test]
fn a_destroy_that_cannot_be_announced_changes_nothing() {
    let mut life = Life::warm();
    let before = life.state.phase().clone();
    life.on(request(2, Request::Destroy));
    assert_eq!(life.on(fault(Left::AsBefore)), [refused(2)]);
    assert_eq!(*life.state.phase(), before);
}

#[test]
fn a_sprite_that_cannot_be_created_is_undone() {
    let (state, actions) = State::creating(RequestId(1));
    assert_eq!(actions, [Action::Perform(Operation::Create)]);
    let mut life = Life {
        policy: POLICY,
        state,
        now: Moment::default(),
    };
    assert_eq!(
        life.on(fault(Left::AsBefore)),
        [Action::Perform(Operation::Destroy(DestroyStep::Machine))]
    );
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));
    assert_eq!(life.on(Event::Finished(Ok(()))), [refused(1)]);
}

#[test]
fn closing_stops_what_runs_and_begins_nothing() {
    let mut life = Life::running();
    let stops = [Action::Perform(Operation::Stop(Stop::Orderly))];
    assert_eq!(life.on(request(2, Request::Close)), stops);
    assert_eq!(life.on(wake(3)), []);
    let answers = life.on(Event::Finished(Ok(())));
    assert_eq!(
        answers,
        [
            answer(3, Answer::Refused(Refusal::Closing)),
            answer(2, Answer::Closed)
        ]
    );

    let mut life = Life::running();
    life.after(30);
    life.on(Event::Finished(Ok(())));
    assert_eq!(
        *life.state.phase(),
        Phase::FallingAsleep {
            step: Sleep::Freeze,
            sleepless: 0
        }
    );
    assert_eq!(life.on(request(2, Request::Close)), []);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Stop(Stop::Hard))]
    );

    let (state, _) = State::creating(RequestId(1));
    let mut life = Life {
        policy: POLICY,
        state,
        now: Moment::default(),
    };
    life.on(request(2, Request::Close));
    let actions = life.on(Event::Finished(Ok(())));
    assert_eq!(
        actions,
        [
            answer(1, Answer::Created),
            Action::Perform(Operation::Stop(Stop::Hard))
        ]
    );
}

const KEEPS: Policy = Policy {
    memory: Memory::Snapshot,
    ..POLICY
};

fn asleep() -> Life {
    let mut life = Life::running();
    life.policy = KEEPS;
    assert_eq!(
        life.after(30),
        [Action::Perform(Operation::Sync(Why::Idle))]
    );
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Snapshot)]
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    let since = life.now;
    let memory = Memory::Snapshot;
    assert_eq!(*life.state.phase(), Phase::Warm { since, memory });
    life
}

#[test]
fn a_snapshot_is_kept_for_ever_and_needs_no_task() {
    let mut life = asleep();
    assert!(life.state.forgettable());
    assert_eq!(life.state.deadline(&KEEPS), None);
    assert_eq!(life.after(1_000_000), []);
    assert_eq!(life.on(Event::MachineExited), []);
    assert_eq!(life.on(wake(2)), [Action::Perform(Operation::Load)]);
    assert_eq!(life.on(Event::Finished(Ok(()))), [answer(2, Answer::Awake)]);
}

#[test]
fn a_wake_during_a_snapshot_waits_for_it() {
    let mut life = Life::running();
    life.policy = KEEPS;
    life.after(30);
    life.on(Event::Finished(Ok(())));
    assert_eq!(life.on(wake(2)), []);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Load)]
    );
}

#[test]
fn a_load_that_failed_keeps_the_snapshot_and_the_next_wake_tries_again() {
    let mut life = asleep();
    life.on(wake(2));
    assert_eq!(life.on(fault(Left::AsBefore)), [refused(2)]);
    assert_eq!(life.on(wake(3)), [Action::Perform(Operation::Load)]);
}

#[test]
fn only_a_restart_or_a_destroy_drops_a_snapshot() {
    let mut life = asleep();
    let hard = [Action::Perform(Operation::Stop(Stop::Hard))];
    assert_eq!(life.on(request(2, Request::Restart)), hard);
    let mut life = asleep();
    let closed = life.on(request(2, Request::Close));
    assert_eq!(closed, [answer(2, Answer::Closed)]);
}

#[test]
fn a_shut_down_puts_to_sleep_and_stops_what_cannot_sleep() {
    let shut_down = || {
        let mut life = Life::running();
        life.policy = KEEPS;
        // It is held: what holds it ends with the owner.
        life.on(wake(1));
        let sync = [Action::Perform(Operation::Sync(Why::Asked))];
        assert_eq!(life.on(request(2, Request::Close)), sync);
        life.on(Event::Finished(Ok(())));
        life
    };
    let mut life = shut_down();
    let closed = [answer(2, Answer::Closed)];
    assert_eq!(life.on(Event::Finished(Ok(()))), closed);

    let mut life = shut_down();
    let stops = [Action::Perform(Operation::Stop(Stop::Orderly))];
    assert_eq!(life.on(fault(Left::AsBefore)), stops);
    assert_eq!(life.on(Event::Finished(Ok(()))), closed);
}

/// Tasks hold a sprite as requests do, and let go at their end by themselves.
#[test]
fn a_task_holds_a_sprite_awake_until_its_end() {
    let mut life = Life::running();
    let until = life.now.after(Duration::from_secs(100));
    assert_eq!(life.on(Event::Tasks { until: Some(until) }), []);
    assert_eq!(life.state.deadline(&life.policy), Some(until));
    assert_eq!(life.after(99), []);
    assert_eq!(life.after(1), []);
    let asleep = until.after(Duration::from_secs(30));
    assert_eq!(life.state.deadline(&life.policy), Some(asleep));
    assert_eq!(life.after(29), []);
    assert_eq!(life.after(1), [Action::Perform(Operation::Sync(Why::Idle))]);
}

#[test]
fn a_task_that_is_taken_back_lets_go_at_once() {
    let mut life = Life::running();
    let until = life.now.after(Duration::from_secs(3600));
    assert_eq!(life.on(Event::Tasks { until: Some(until) }), []);
    life.after(50);
    assert_eq!(life.on(Event::Tasks { until: None }), []);
    assert_eq!(life.after(29), []);
    assert_eq!(life.after(1), [Action::Perform(Operation::Sync(Why::Idle))]);
}

#[test]
fn a_task_that_comes_while_a_sprite_falls_asleep_keeps_it_awake() {
    let mut life = Life::running();
    assert_eq!(
        life.after(30),
        [Action::Perform(Operation::Sync(Why::Idle))]
    );
    let until = life.now.after(Duration::from_secs(60));
    assert_eq!(
        life.on(Event::Tasks { until: Some(until) }),
        [Action::Abandon]
    );
    assert_eq!(life.state.deadline(&life.policy), Some(until));
}

#[test]
fn an_owner_that_closes_does_not_wait_for_tasks() {
    let mut life = Life::running();
    let until = life.now.after(Duration::from_secs(60));
    life.on(Event::Tasks { until: Some(until) });
    assert_eq!(
        life.on(request(9, Request::Close)),
        [Action::Perform(Operation::Stop(Stop::Orderly))]
    );
}

/// A sprite that runs, with one hold of that kind.
fn with(hold: Hold) -> Life {
    let mut life = Life::cold();
    life.on(wake(1));
    life.on(Event::Finished(Ok(())));
    life.on(turned(hold));
    life
}

fn falls_asleep(why: Why) -> [Action; 1] {
    [Action::Perform(Operation::Sync(why))]
}

#[test]
fn sessions_and_open_connections_keep_awake_and_presence_does_not() {
    for hold in [Hold::Session, Hold::Connection] {
        let mut life = with(hold);
        assert_eq!(life.after(10_000), [], "{hold:?}");
    }
    let mut life = with(Hold::Presence);
    assert_eq!(life.after(29), []);
    assert_eq!(life.after(1), falls_asleep(Why::Idle));

    let mut life = with(Hold::Connection);
    life.policy.connections = Connections::Traffic;
    assert_eq!(
        life.after(1),
        [],
        "the setting counts from the next look on"
    );
    assert_eq!(life.after(30), falls_asleep(Why::Idle));
    let mut life = with(Hold::Session);
    life.policy.connections = Connections::Traffic;
    assert_eq!(life.after(10_000), [], "a command is no connection");
}

#[test]
fn traffic_begins_the_idle_time_anew() {
    let mut life = with(Hold::Presence);
    life.after(20);
    let at = life.now;
    life.after(5);
    assert_eq!(life.on(passed(at)), []);
    assert_eq!(life.after(24), [], "29 s after the last byte");
    assert_eq!(life.after(1), falls_asleep(Why::Idle));
    assert_eq!(
        life.on(passed(life.now)),
        [Action::Abandon],
        "it is not idle any more"
    );
    assert_eq!(life.after(30), falls_asleep(Why::Idle));
}

#[test]
fn bytes_that_wait_wake_a_sprite_and_none_is_forgotten() {
    let mut life = with(Hold::Presence);
    life.after(30);
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Freeze)]
    );
    assert_eq!(life.on(Event::Stirred), [], "it cannot be taken back now");
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Thaw)]
    );
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    assert_eq!(life.after(29), []);
    assert_eq!(life.after(1), falls_asleep(Why::Idle));
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));
    assert!(!life.state.forgettable(), "somebody is connected");
    assert_eq!(life.on(Event::Stirred), [Action::Perform(Operation::Thaw)]);
}

#[test]
fn a_sprite_that_sleeps_in_its_machine_gives_it_up_when_memory_is_short() {
    let mut life = with(Hold::Presence);
    assert_eq!(life.on(Event::Pressed), [], "it runs");
    life.after(30);
    assert_eq!(life.on(Event::Pressed), [], "it is on its way");
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));
    let stops = [Action::Perform(Operation::Stop(Stop::Hard))];
    assert_eq!(life.on(Event::Pressed), stops);
    assert_eq!(life.on(Event::Finished(Ok(()))), []);
    assert_eq!(life.on(Event::Pressed), [], "there is nothing to give");
    assert_eq!(life.on(wake(9)), [Action::Perform(Operation::Boot)]);
}

fn asleep_with_a_connection() -> Life {
    let mut life = with(Hold::Connection);
    let until = life.now.after(Duration::from_secs(10));
    life.on(request(2, Request::Sleep { until }));
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));
    life
}

#[test]
fn who_is_about_to_wake_keeps_its_memory() {
    let mut life = asleep_with_a_connection();
    assert_eq!(life.on(Event::Stirred), [Action::Perform(Operation::Thaw)]);
    assert_eq!(life.on(Event::Pressed), [], "it wakes");
    life.on(fault(Left::AsBefore));
    assert_eq!(life.on(Event::Pressed), [], "it will wake");
    assert_eq!(life.after(1), [Action::Perform(Operation::Thaw)]);
}

/// Whoever sent them cannot be told that it failed, and does not ask again.
#[test]
fn a_wake_for_bytes_that_fails_is_tried_again_after_a_while() {
    let mut life = asleep_with_a_connection();
    assert_eq!(life.on(Event::Stirred), [Action::Perform(Operation::Thaw)]);
    for pause in [1, 2, 4] {
        assert_eq!(life.on(fault(Left::AsBefore)), [], "not at once");
        assert_eq!(life.after(pause - 1), []);
        assert_eq!(life.after(1), [Action::Perform(Operation::Thaw)]);
    }
    // What comes while it wakes is not forgotten either, should that fail.
    life.on(Event::Finished(Ok(())));
    life.on(request(
        3,
        Request::Sleep {
            until: life.now.after(Duration::from_secs(10)),
        },
    ));
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));
    assert_eq!(life.on(wake(4)), [Action::Perform(Operation::Thaw)]);
    assert_eq!(life.on(Event::Stirred), []);
    life.on(fault(Left::AsBefore));
    assert_eq!(life.after(1), [Action::Perform(Operation::Thaw)]);
    // Nobody is there any more: nobody waits.
    life.on(Event::Held {
        added: Holds::default(),
        released: Holds::of(Hold::Connection, 1),
    });
    life.on(fault(Left::AsBefore));
    assert_eq!(life.after(30), []);
}

#[test]
fn a_request_to_sleep_ignores_connections_and_waits_for_calls() {
    for hold in [Hold::Session, Hold::Connection, Hold::Presence] {
        let mut life = with(hold);
        let until = life.now.after(Duration::from_secs(10));
        assert_eq!(
            life.on(request(2, Request::Sleep { until })),
            falls_asleep(Why::Asked),
            "{hold:?}"
        );
        life.on(Event::Finished(Ok(())));
        assert_eq!(
            life.on(Event::Finished(Ok(()))),
            [answer(2, Answer::Asleep)]
        );
        assert_eq!(
            life.on(request(3, Request::Sleep { until })),
            [answer(3, Answer::Asleep)],
            "asleep already"
        );
    }

    let mut life = with(Hold::Call);
    let until = life.now.after(Duration::from_secs(10));
    assert_eq!(life.on(request(2, Request::Sleep { until })), []);
    assert_eq!(life.on(released()), falls_asleep(Why::Asked));
    assert_eq!(
        life.on(wake(3)),
        [Action::Abandon, answer(3, Answer::Awake)]
    );
    assert_eq!(life.state.deadline(&POLICY), Some(until));
    assert_eq!(
        life.after(10),
        [answer(2, Answer::Refused(Refusal::Held))],
        "the call lasts longer than the request"
    );
    life.on(released());

    life.on(Event::Tasks {
        until: Some(life.now.after(Duration::from_secs(600))),
    });
    let until = life.now.after(Duration::from_secs(10));
    assert_eq!(
        life.on(request(4, Request::Sleep { until })),
        [answer(4, Answer::Refused(Refusal::Held))],
        "a task was promised its time"
    );
}

/// An answer to what was just sent would come at the next wake alone, and nobody would wake it for that.
#[test]
fn a_request_to_sleep_waits_until_connections_are_quiet_and_not_for_long() {
    let mut life = with(Hold::Connection);
    let sleep = |life: &Life| Request::Sleep {
        until: life.now.after(Duration::from_secs(10)),
    };
    let millis = |life: &Life, millis| life.now.after(Duration::from_millis(millis));
    life.on(passed(life.now));
    assert_eq!(life.on(request(2, sleep(&life))), []);
    assert_eq!(life.state.deadline(&POLICY), Some(millis(&life, 250)));
    life.now = millis(&life, 200);
    life.on(passed(life.now));
    life.now = millis(&life, 249);
    assert_eq!(life.on(Event::Tick), [], "something passed since");
    life.now = millis(&life, 1);
    assert_eq!(life.on(Event::Tick), falls_asleep(Why::Asked));
    life.on(Event::Finished(Ok(())));
    life.on(Event::Finished(Ok(())));

    // What was sent to it is not answered yet.
    let mut life = with(Hold::Connection);
    life.on(Event::Traffic(Traffic {
        at: life.now,
        unanswered: true,
    }));
    assert_eq!(life.on(request(2, sleep(&life))), []);
    life.now = millis(&life, 1999);
    assert_eq!(life.on(Event::Tick), []);
    life.now = millis(&life, 1);
    assert_eq!(life.on(Event::Tick), falls_asleep(Why::Asked));

    // What never ends is not waited for.
    let mut life = with(Hold::Connection);
    life.on(passed(life.now));
    assert_eq!(life.on(request(2, sleep(&life))), []);
    for _ in 0..19 {
        life.now = millis(&life, 100);
        assert_eq!(life.on(passed(life.now)), []);
    }
    life.now = millis(&life, 100);
    assert_eq!(life.on(passed(life.now)), falls_asleep(Why::Asked));

    // Nobody is connected who could wait for an answer.
    let mut life = Life::running();
    life.on(passed(life.now));
    assert_eq!(life.on(request(2, sleep(&life))), falls_asleep(Why::Asked));
}

#[test]
fn bytes_that_come_while_it_is_put_to_sleep_wake_it_again() {
    let mut life = with(Hold::Connection);
    let until = life.now.after(Duration::from_secs(10));
    life.on(request(2, Request::Sleep { until }));
    assert_eq!(life.on(Event::Stirred), [], "it was asked to sleep");
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [Action::Perform(Operation::Freeze)]
    );
    assert_eq!(
        life.on(Event::Finished(Ok(()))),
        [answer(2, Answer::Asleep), Action::Perform(Operation::Thaw)]
    );
}

#[test]
fn what_is_in_use_inside_is_looked_at_again_after_the_idle_time() {
    let mut life = Life::running();
    for _ in 0..5 {
        assert_eq!(life.after(29), []);
        assert_eq!(life.after(1), falls_asleep(Why::Idle));
        assert_eq!(life.on(fault(Left::InUse)), []);
    }
}
