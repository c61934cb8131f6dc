//! Measured times, and the rows that are told of them.

use std::time::Duration;

use serde_json::{Value, json};

/// Times of the same work.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn push(&mut self, time: Duration) {
        let at = self.0.partition_point(|earlier| *earlier <= time);
        self.0.insert(at, time);
    }

    /// The time that half of them stay below.
    pub(crate) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that 99 of 100 stay below.
    pub(crate) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let at = (last * percent).div_ceil(100);
        self.0.get(at).copied().unwrap_or_default()
    }

    fn told(&self) -> String {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        format!(
            "{:.1} / {:.1} ms",
            milliseconds(self.p50()),
            milliseconds(self.p99())
        )
    }

    /// All of them, for programs.
    pub(crate) fn numbers(&self) -> Value {
        let all: Vec<u128> = self.0.iter().map(Duration::as_nanos).collect();
        json!({ "p50_ns": self.p50().as_nanos(), "p99_ns": self.p99().as_nanos(), "all_ns": all })
    }
}

/// What a row's number may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    /// Not more than so many times the floor.
    Most(f64),
    /// Nothing fails; this is where it is to go.
    Aim(f64),
    /// Not less than this share of the floor.
    Least(f64),
}

/// One measured row.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) measured: String,
    pub(crate) floor: String,
    pub(crate) limit: String,
    pub(crate) holds: bool,
    pub(crate) numbers: Value,
}

impl Row {
    /// Times against a floor's times: how many times as long.
    pub(crate) fn against(
        name: &'static str,
        times: &Samples,
        floors: &Samples,
        limit: Limit,
    ) -> Self {
        let factor = times.p50().as_secs_f64() / floors.p50().as_secs_f64();
        let numbers =
            json!({ "ratio": factor, "times": times.numbers(), "floor": floors.numbers() });
        let (limit, holds) = match limit {
            Limit::Most(most) => (format!("{most} x"), factor <= most),
            Limit::Aim(aim) => (format!("aim {aim} x"), true),
            Limit::Least(least) => (format!("{:.0} %", least * 100.0), 1.0 / factor >= least),
        };
        Self {
            name,
            measured: format!("{} ({factor:.2} x)", times.told()),
            floor: floors.told(),
            limit,
            holds,
            numbers,
        }
    }

    /// The rate of a transfer, as a share of the floor's rate.
    pub(crate) fn rate(
        name: &'static str,
        bytes: u64,
        times: &Samples,
        floors: &Samples,
        least: f64,
    ) -> Self {
        let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
        let share = rate(times.p50()) / rate(floors.p50());
        let told = |samples: &Samples| {
            format!(
                "{:.0} / {:.0} MB/s",
                rate(samples.p50()),
                rate(samples.p99())
            )
        };
        Self {
            measured: format!("{} ({:.0} %)", told(times), share * 100.0),
            floor: told(floors),
            ..Self::against(name, times, floors, Limit::Least(least))
        }
    }

    /// As a line for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "measured": self.measured,
            "floor": self.floor,
            "limit": self.limit,
            "holds": self.holds,
            "numbers": self.numbers,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(millis: impl IntoIterator<Item = u64>) -> Samples {
        let mut samples = Samples::default();
        millis
            .into_iter()
            .for_each(|millis| samples.push(Duration::from_millis(millis)));
        samples
    }

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let hundred = samples((1..=100).rev());
        assert_eq!(hundred.p50(), Duration::from_millis(51));
        assert_eq!(hundred.p99(), Duration::from_millis(100));
        assert_eq!(samples([7]).p99(), Duration::from_millis(7));
        assert_eq!(samples([]).p50(), Duration::ZERO);
    }

    #[test]
    fn a_limit_holds_up_to_itself() {
        let holds =
            |millis, limit| Row::against("x", &samples([millis]), &samples([10]), limit).holds;
        assert!(holds(30, Limit::Most(3.0)));
        assert!(!holds(31, Limit::Most(3.0)));
        assert!(holds(1000, Limit::Aim(5.0)));
        // Twice as long is half the rate.
        assert!(holds(20, Limit::Least(0.5)));
        assert!(!holds(21, Limit::Least(0.5)));
    }
}
