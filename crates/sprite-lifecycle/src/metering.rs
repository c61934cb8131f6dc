//! What a sprite has used: a fold of facts, without clock or I/O.
//!
//! ```text
//! Fact { stood: Cold, at: 3 s }  Fact { stood: Running, at: 8 s, reading }  Fact { stood: Warm, at: 20 s } …
//!        └─ cold += 3 s                └─ running += 5 s, cpu += …                └─ warm += 12 s
//! ```
//!
//! A [`Fact`] says how the sprite stood until a moment, and what the counters of its machine said then. Whoever makes a
//! transition durable writes the folded [`Meter`] with it, so that there is no moment at which the one is known without
//! the other. A fact may be told at any time, and any number of times: it changes nothing that was counted.
//!
//! # What always holds
//! * `running + warm + cold` is `until - since`, to the microsecond, whatever was told in which order.
//! * Nothing ever becomes less.
//! * A machine's counters are counted once, however often and in whatever order they are told.
//! * A clock that was set back counts nothing until it has come to where it was.

use sprite_types::{MachineId, SpriteStatus};

/// A moment of the wall clock: microseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct WallMicros(pub i64);

impl WallMicros {
    /// The microseconds from an earlier moment; 0 from a later one.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

/// What the counters of a machine said. They begin at 0 with the machine and never fall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Whose counters.
    pub machine: MachineId,
    /// CPU time of everything in it, in microseconds.
    pub cpu_micros: u64,
    /// Memory in use then, in bytes.
    pub memory_bytes: u64,
    /// What came from its network, in bytes.
    pub bytes_in: u64,
    /// What went to its network, in bytes.
    pub bytes_out: u64,
}

/// What is known of a sprite at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact {
    /// How it stood until then.
    pub stood: SpriteStatus,
    /// When that was.
    pub at: WallMicros,
    /// The counters of its machine then, if there was one and they could be read.
    pub reading: Option<Reading>,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Time with a machine that ran, in microseconds.
    pub running_micros: u64,
    /// Time asleep with its memory kept, in microseconds.
    pub warm_micros: u64,
    /// Time asleep with its disk alone, in microseconds.
    pub cold_micros: u64,
    /// CPU time, in microseconds: of two CPUs that are busy for a second, two seconds.
    pub cpu_micros: u64,
    /// Memory in use times the time that it ran with it, in MiB × microseconds. Begun MiB count whole.
    pub memory_mib_micros: u128,
    /// What came from the network, in bytes.
    pub bytes_in: u64,
    /// What went to the network, in bytes.
    pub bytes_out: u64,
}

/// What a sprite has used, and what the next fact is measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    /// Since when it is counted.
    pub since: WallMicros,
    /// Until when it is.
    pub until: WallMicros,
    /// What was used between the two.
    pub usage: Usage,
    /// The counters that were counted last; none while there is nothing to go on from.
    pub counted: Option<Reading>,
}

impl Meter {
    /// The meter of a sprite that is counted from now on.
    #[must_use]
    pub fn begun(at: WallMicros) -> Self {
        Self {
            since: at,
            until: at,
            usage: Usage::default(),
            counted: None,
        }
    }

    /// The meter when a fact is known too.
    #[must_use]
    pub fn fold(&self, fact: &Fact) -> Self {
        let elapsed = fact.at.since(self.until);
        let mut usage = self.usage;
        match fact.stood {
            SpriteStatus::Running => {
                let told = fact.reading.or(self.counted);
                let mib = told.map_or(0, |told| told.memory_bytes.div_ceil(1 << 20));
                let used = u128::from(mib).saturating_mul(u128::from(elapsed));
                usage.memory_mib_micros = usage.memory_mib_micros.saturating_add(used);
                usage.running_micros = usage.running_micros.saturating_add(elapsed);
            }
            SpriteStatus::Warm => usage.warm_micros = usage.warm_micros.saturating_add(elapsed),
            SpriteStatus::Cold => usage.cold_micros = usage.cold_micros.saturating_add(elapsed),
        }
        let counted = match (fact.reading, fact.stood) {
            (Some(reading), SpriteStatus::Running | SpriteStatus::Warm | SpriteStatus::Cold) => {
                Some(count(&mut usage, self.counted, reading))
            }
            (None, SpriteStatus::Running | SpriteStatus::Warm) => self.counted,
            // Its machine is gone, and what the next one uses has nothing to do with it.
            (None, SpriteStatus::Cold) => None,
        };
        Self {
            since: self.since,
            until: self.until.max(fact.at),
            usage,
            counted,
        }
    }
}

/// Adds what a machine's counters say beyond what was counted of them; how far they are counted then.
fn count(usage: &mut Usage, counted: Option<Reading>, reading: Reading) -> Reading {
    let before = counted.filter(|counted| counted.machine == reading.machine);
    let add = |total: &mut u64, now: u64, before: Option<u64>| {
        let before = before.unwrap_or(0);
        *total = total.saturating_add(now.saturating_sub(before));
        // One that was read earlier and is told later says less than is known.
        now.max(before)
    };
    Reading {
        machine: reading.machine,
        memory_bytes: reading.memory_bytes,
        cpu_micros: add(
            &mut usage.cpu_micros,
            reading.cpu_micros,
            before.map(|before| before.cpu_micros),
        ),
        bytes_in: add(
            &mut usage.bytes_in,
            reading.bytes_in,
            before.map(|before| before.bytes_in),
        ),
        bytes_out: add(
            &mut usage.bytes_out,
            reading.bytes_out,
            before.map(|before| before.bytes_out),
        ),
    }
}
