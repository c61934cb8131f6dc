//! Codes by which a login is handed over from one host to another.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sprite_types::{SpriteId, TokenId};
use tokio::time::Instant;

/// How long a code is good: as long as a browser takes from one page to the next.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Most codes at once; the oldest goes for a new one.
const MOST: usize = 1024;

/// What a code stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Code {
    pub(super) sprite: SpriteId,
    /// The token that was shown.
    pub(super) token: TokenId,
    /// The hash of the state of the browser that may use it.
    pub(super) state: String,
    /// Where the browser wanted to go.
    pub(super) path: String,
}

/// The codes that were given and not used.
#[derive(Debug, Default)]
pub(in crate::edge) struct Codes(Mutex<VecDeque<Given>>);

#[derive(Debug)]
struct Given {
    /// Of the code's text, so that its comparison tells nothing by its time.
    hash: blake3::Hash,
    until: Instant,
    code: Code,
}

impl Codes {
    /// A new code.
    pub(super) fn give(&self, code: Code) -> String {
        let text = super::secret();
        let now = Instant::now();
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while given.len() >= MOST || given.front().is_some_and(|first| first.until <= now) {
            given.pop_front();
        }
        given.push_back(Given {
            hash: blake3::hash(text.as_bytes()),
            until: now + GOOD_FOR,
            code,
        });
        text
    }

    /// What a code stands for. It is worth nothing afterwards.
    pub(super) fn take(&self, text: &str) -> Option<Code> {
        let hash = blake3::hash(text.as_bytes());
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = given.iter().position(|given| given.hash == hash)?;
        let taken = given.remove(at)?;
        (Instant::now() < taken.until).then_some(taken.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> Code {
        Code {
            sprite: SpriteId::random(),
            token: TokenId::random(),
            state: "s".to_owned(),
            path: "/".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_is_good_once_and_for_a_minute() {
        let codes = Codes::default();
        let (first, second) = (code(), code());
        let (one, two) = (codes.give(first.clone()), codes.give(second));
        assert_ne!(one, two);
        assert_eq!(codes.take(&one), Some(first));
        assert_eq!(codes.take(&one), None);
        assert_eq!(codes.take("none"), None);
        tokio::time::advance(GOOD_FOR).await;
        assert_eq!(codes.take(&two), None);
    }

    #[tokio::test(start_paused = true)]
    async fn their_number_is_bounded() {
        let codes = Codes::default();
        let first = codes.give(code());
        let rest: Vec<_> = (0..MOST).map(|_| codes.give(code())).collect();
        assert_eq!(codes.take(&first), None);
        assert!(rest.iter().all(|text| codes.take(text).is_some()));
    }
}
