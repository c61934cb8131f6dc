//! What a meter says after whatever happened to a sprite.

use proptest::prelude::*;
use sprite_lifecycle::metering::{Fact, Meter, Reading, Usage, WallMicros};
use sprite_types::{MachineId, SpriteStatus};

const SECOND: i64 = 1_000_000;
const MIB: u64 = 1 << 20;

fn at(seconds: i64) -> WallMicros {
    WallMicros(seconds * SECOND)
}

fn stood(stood: SpriteStatus, seconds: i64) -> Fact {
    Fact {
        stood,
        at: at(seconds),
        reading: None,
    }
}

fn reading(machine: MachineId, cpu_seconds: u64, mib: u64) -> Reading {
    Reading {
        machine,
        cpu_micros: cpu_seconds * 1_000_000,
        memory_bytes: mib * MIB,
        bytes_in: cpu_seconds * 10,
        bytes_out: cpu_seconds,
    }
}

fn after(facts: &[Fact]) -> Meter {
    facts
        .iter()
        .fold(Meter::begun(at(0)), |meter, fact| meter.fold(fact))
}

/// What must hold of every meter.
fn sound(meter: &Meter) {
    let Usage {
        running_micros,
        warm_micros,
        cold_micros,
        ..
    } = meter.usage;
    let life = meter.until.since(meter.since);
    assert_eq!(running_micros + warm_micros + cold_micros, life);
}

#[test]
fn a_life_is_divided_among_its_states() {
    let machine = MachineId::random();
    let meter = after(&[
        stood(SpriteStatus::Cold, 3),
        Fact {
            reading: Some(reading(machine, 2, 100)),
            ..stood(SpriteStatus::Running, 8)
        },
        stood(SpriteStatus::Warm, 20),
        Fact {
            reading: Some(reading(machine, 5, 200)),
            ..stood(SpriteStatus::Running, 24)
        },
        stood(SpriteStatus::Cold, 30),
    ]);
    sound(&meter);
    let wanted = Usage {
        running_micros: 9_000_000,
        warm_micros: 12_000_000,
        cold_micros: 9_000_000,
        cpu_micros: 5_000_000,
        memory_mib_micros: (5 * 100 + 4 * 200) * 1_000_000,
        bytes_in: 50,
        bytes_out: 5,
    };
    assert_eq!(meter.usage, wanted);
}

#[test]
fn the_counters_of_another_machine_begin_anew() {
    let meter = after(&[
        Fact {
            reading: Some(reading(MachineId::random(), 7, 1)),
            ..stood(SpriteStatus::Running, 1)
        },
        Fact {
            reading: Some(reading(MachineId::random(), 2, 1)),
            ..stood(SpriteStatus::Running, 2)
        },
    ]);
    assert_eq!(meter.usage.cpu_micros, 9_000_000);
}

#[test]
fn a_reading_that_comes_late_or_twice_counts_nothing() {
    let machine = MachineId::random();
    let told = |cpu, seconds| Fact {
        reading: Some(reading(machine, cpu, 1)),
        ..stood(SpriteStatus::Running, seconds)
    };
    let meter = after(&[told(7, 3), told(4, 2), told(7, 3), told(8, 4)]);
    sound(&meter);
    assert_eq!(meter.usage.cpu_micros, 8_000_000);
    assert_eq!(meter.usage.running_micros, 4_000_000);
}

#[test]
fn a_clock_that_is_set_back_counts_nothing_until_it_has_caught_up() {
    let meter = after(&[
        stood(SpriteStatus::Running, 10),
        stood(SpriteStatus::Warm, 5),
        stood(SpriteStatus::Cold, 12),
    ]);
    sound(&meter);
    assert_eq!(meter.usage.running_micros, 10_000_000);
    assert_eq!(meter.usage.warm_micros, 0);
    assert_eq!(meter.usage.cold_micros, 2_000_000);
}

#[test]
fn time_without_a_reading_is_taken_to_have_used_what_was_used_before() {
    let machine = MachineId::random();
    let meter = after(&[
        Fact {
            reading: Some(reading(machine, 1, 10)),
            ..stood(SpriteStatus::Running, 1)
        },
        // Its machine was lost with the host, and so were its counters.
        stood(SpriteStatus::Running, 3),
        stood(SpriteStatus::Cold, 9),
        // Nothing is known of the next machine yet.
        stood(SpriteStatus::Running, 10),
    ]);
    assert_eq!(meter.usage.memory_mib_micros, 30 * 1_000_000);
    assert_eq!(meter.counted, None);
}

fn statuses() -> impl Strategy<Value = SpriteStatus> {
    prop_oneof![
        Just(SpriteStatus::Running),
        Just(SpriteStatus::Warm),
        Just(SpriteStatus::Cold),
    ]
}

/// Facts in any order, with a clock that is set to anything, and counters of a few machines that say anything.
fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let machines: Vec<MachineId> = (0..3).map(|_| MachineId::random()).collect();
    let counters = (0usize..3, any::<u64>(), any::<u64>(), any::<u64>());
    let reading = prop::option::of(counters).prop_map(move |told| {
        told.map(|(machine, cpu_micros, memory_bytes, bytes)| Reading {
            machine: machines[machine],
            cpu_micros,
            memory_bytes,
            bytes_in: bytes,
            bytes_out: bytes / 2,
        })
    });
    let fact = (statuses(), -1_000_000_000i64..1_000_000_000, reading);
    let fact = fact.prop_map(|(stood, at, reading)| Fact {
        stood,
        at: WallMicros(at),
        reading,
    });
    prop::collection::vec(fact, 0..40)
}

proptest! {
    #[test]
    fn states_add_up_to_the_life_and_nothing_becomes_less(facts in facts()) {
        let mut meter = Meter::begun(WallMicros(0));
        for fact in &facts {
            let next = meter.fold(fact);
            sound(&next);
            prop_assert_eq!(next.since, meter.since);
            prop_assert!(next.until >= meter.until);
            let (was, is) = (meter.usage, next.usage);
            prop_assert!(is.running_micros >= was.running_micros);
            prop_assert!(is.warm_micros >= was.warm_micros);
            prop_assert!(is.cold_micros >= was.cold_micros);
            prop_assert!(is.cpu_micros >= was.cpu_micros);
            prop_assert!(is.memory_mib_micros >= was.memory_mib_micros);
            prop_assert!(is.bytes_in >= was.bytes_in && is.bytes_out >= was.bytes_out);
            // Told again it is nothing new.
            prop_assert_eq!(next.fold(fact).usage, is);
            meter = next;
        }
    }

    /// A process that is killed between two facts tells the second all the same, later or not: what it would have told
    /// between them does not change what time is counted where, nor how much was used.
    #[test]
    fn looking_more_often_counts_the_same(
        looks in prop::collection::vec((0u64..5_000_000, 0u64..5_000_000), 1..30),
        told in prop::collection::vec(any::<bool>(), 30),
    ) {
        let machine = MachineId::random();
        let (mut now, mut cpu) = (0u64, 0);
        let mut all = Vec::new();
        for (time, used) in looks {
            now += time;
            cpu += used;
            all.push(Fact {
                stood: SpriteStatus::Running,
                at: WallMicros(i64::try_from(now).expect("seconds")),
                reading: Some(Reading {
                    machine,
                    cpu_micros: cpu,
                    memory_bytes: 5 * MIB,
                    bytes_in: cpu,
                    bytes_out: cpu,
                }),
            });
        }
        let begun = Meter::begun(WallMicros(0));
        let often = all.iter().fold(begun, |meter, fact| meter.fold(fact));
        let last = all.len() - 1;
        let seldom = all.iter().enumerate().filter(|(index, _)| *index == last || told[*index]);
        let seldom = seldom.fold(begun, |meter, (_, fact)| meter.fold(fact));
        prop_assert_eq!(often, seldom);
        prop_assert_eq!(often.usage.cpu_micros, cpu);
        prop_assert_eq!(often.usage.running_micros, now);
        prop_assert_eq!(often.usage.memory_mib_micros, u128::from(now) * 5);
    }
}
