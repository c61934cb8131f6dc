//! How long to wait before a service is started again that ended by itself.

use std::time::Duration;

/// The first pause: short, since most ends are single ones.
const FIRST: Duration = Duration::from_millis(500);

/// The longest one: a service that is mended runs again within a minute.
const LONGEST: Duration = Duration::from_secs(60);

/// A service that ran so long is well: its next end is the first of a row again.
const WELL_AFTER: Duration = Duration::from_secs(60);

/// Ends in a row.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Backoff {
    ends: u32,
}

impl Backoff {
    /// The pause after an end, which came when the service had run for `ran`.
    pub(super) fn ended_after(&mut self, ran: Duration) -> Duration {
        if ran >= WELL_AFTER {
            self.ends = 0;
        }
        let pause = FIRST.saturating_mul(1_u32.checked_shl(self.ends).unwrap_or(u32::MAX));
        self.ends = self.ends.saturating_add(1);
        pause.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_begin_anew_when_it_was_well() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10)
            .map(|_| backoff.ended_after(Duration::from_millis(5)).as_millis())
            .collect();
        assert_eq!(
            pauses,
            [
                500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000
            ]
        );
        for _ in 0..100 {
            assert_eq!(backoff.ended_after(Duration::ZERO), LONGEST);
        }
        assert_eq!(backoff.ended_after(WELL_AFTER), FIRST);
        assert_eq!(backoff.ended_after(Duration::ZERO), FIRST * 2);
    }
}
