//! Waiting for a state, not for a time.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::time::Instant;

/// Looks again and again until `look` breaks, and returns what it broke with. The pauses grow from 1 ms to 50 ms.
///
/// # Panics
/// `look` did not break within `limit`; the last state is told.
pub async fn eventually<B, S: Debug>(
    limit: Duration,
    mut look: impl AsyncFnMut() -> ControlFlow<B, S>,
) -> B {
    let began = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match look().await {
            ControlFlow::Break(seen) => return seen,
            ControlFlow::Continue(state) => {
                assert!(
                    began.elapsed() < limit,
                    "not within {limit:?}; last state: {state:?}"
                );
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
