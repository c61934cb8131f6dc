//! Measured times and what is said of them.

use std::time::Duration;

/// Times of the same work, sorted.
#[derive(Debug, Clone)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// Sorts them.
    pub fn new(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    /// The time that half of them stay below.
    pub fn p50(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that 99 of 100 stay below.
    pub fn p99(&self) -> Duration {
        self.percentile(99)
    }

    fn percentile(&self, percent: usize) -> Duration {
        let last = self.0.len().saturating_sub(1);
        self.0
            .get((last * percent).div_ceil(100))
            .copied()
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_from_the_sorted_times() {
        let samples = Samples::new((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!(samples.p50(), Duration::from_millis(51));
        assert_eq!(samples.p99(), Duration::from_millis(100));
        assert_eq!(
            Samples::new(vec![Duration::from_secs(1)]).p99(),
            Duration::from_secs(1)
        );
        assert_eq!(Samples::new(Vec::new()).p50(), Duration::ZERO);
    }
}
