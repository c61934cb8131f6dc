//! What was read lately, for as long as nobody has written since.
//!
//! A look-up in SQLite is a visit to another thread, and every request begins with some. Here are the answers to those
//! that come with each request of a URL. Any commit makes all of them void: few are written while thousands are read,
//! and so nobody has to know which row is in whose answer.
//!
//! Only this process changes sprites and services. Other ones, such as `sprited token`, write organisations and
//! tokens: of a token everything but its being revoked is for ever, and that is told from process to process.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Sqlite, Transaction};

/// Most answers that are kept of one kind, of a few KiB at most each.
const MOST: usize = 1024;

/// Counts commits twice, when one begins and when it has ended: odd while one is under way.
#[derive(Debug, Default)]
pub(crate) struct Commits(AtomicU64);

/// The catalog as some number of commits left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edition(pub(crate) u64);

/// What tells of changes.
pub(crate) trait Editions {
    /// What the catalog is now; `None` while that is being decided.
    fn edition(&self) -> Option<Edition>;
}

impl Editions for Commits {
    fn edition(&self) -> Option<Edition> {
        let count = self.0.load(Ordering::SeqCst);
        count.is_multiple_of(2).then_some(Edition(count))
    }
}

impl Commits {
    fn begin(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn end(&self, begun: u64) {
        // Unless the next one that writes has seen it end before.
        let _ = self
            .0
            .compare_exchange(begun, begun + 1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// A transaction that writes. Dropped without [`Writing::commit`], it changes nothing.
pub(crate) struct Writing {
    tx: Transaction<'static, Sqlite>,
    commits: Arc<Commits>,
}

impl Writing {
    /// Of a transaction that has the right to write, of which there is one at a time: all commits before it have ended.
    pub(crate) fn new(tx: Transaction<'static, Sqlite>, commits: Arc<Commits>) -> Self {
        let count = commits.0.load(Ordering::SeqCst);
        if !count.is_multiple_of(2) {
            // Somebody did not wait for the end of it.
            commits.end(count);
        }
        Self { tx, commits }
    }

    /// Makes it so.
    ///
    /// # Cancel safety
    /// Cancelled, it may happen all the same; until somebody writes again, all is read anew.
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        let begun = self.commits.begin();
        let committed = self.tx.commit().await;
        self.commits.end(begun);
        committed
    }
}

impl std::ops::Deref for Writing {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        &self.tx
    }
}

impl std::ops::DerefMut for Writing {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }
}

/// Answers to look-ups of one kind.
#[derive(Debug)]
pub(crate) struct Recent<K, V, C = Commits> {
    changes: Arc<C>,
    answers: Mutex<Answers<K, V>>,
}

#[derive(Debug)]
struct Answers<K, V> {
    /// Of which they are.
    edition: Edition,
    by_key: HashMap<K, V>,
}

impl<K: Eq + Hash, V: Clone, C: Editions> Recent<K, V, C> {
    pub(crate) fn new(changes: Arc<C>) -> Self {
        let answers = Answers {
            edition: Edition(0),
            by_key: HashMap::new(),
        };
        Self {
            changes,
            answers: Mutex::new(answers),
        }
    }

    /// The answer to a look-up, which `read` gives if none is kept.
    ///
    /// # Errors
    /// Those of `read`, which are not kept.
    ///
    /// # Cancel safety
    /// As safe as `read`.
    pub(crate) async fn get<E>(
        &self,
        key: K,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let edition = self.changes.edition();
        if let Some(edition) = edition
            && let Some(kept) = self.kept(edition, &key)
        {
            return Ok(kept);
        }
        let answer = read.await?;
        if let Some(edition) = edition {
            self.keep(edition, key, answer.clone());
        }
        Ok(answer)
    }

    fn kept(&self, edition: Edition, key: &K) -> Option<V> {
        let answers = self.answers();
        let there = answers.edition == edition;
        there.then(|| answers.by_key.get(key).cloned()).flatten()
    }

    /// Keeps what was read at that edition or at a later one, which makes it void.
    fn keep(&self, edition: Edition, key: K, answer: V) {
        let mut answers = self.answers();
        if answers.edition > edition {
            return;
        }
        if answers.edition < edition || answers.by_key.len() >= MOST {
            answers.by_key.clear();
            answers.edition = edition;
        }
        answers.by_key.insert(key, answer);
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers<K, V>> {
        // Nothing panics while holding it.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn get(recent: &Recent<u32, u32>, key: u32, now: u32) -> u32 {
        let read = async { Ok::<_, Infallible>(now) };
        recent.get(key, read).await.expect("it cannot fail")
    }

    #[tokio::test]
    async fn an_answer_is_kept_until_somebody_writes() {
        let commits = Arc::new(Commits::default());
        let recent = Recent::new(commits.clone());
        assert_eq!(get(&recent, 1, 10).await, 10);
        assert_eq!(get(&recent, 2, 20).await, 20);
        assert_eq!(get(&recent, 1, 11).await, 10);
        let begun = commits.begin();
        assert_eq!(get(&recent, 1, 12).await, 12, "it may be either");
        commits.end(begun);
        assert_eq!(get(&recent, 1, 13).await, 13);
        assert_eq!(get(&recent, 1, 14).await, 13);
        assert_eq!(get(&recent, 2, 21).await, 21);
    }

    #[tokio::test]
    async fn what_is_written_while_somebody_reads_makes_it_void() {
        let commits = Arc::new(Commits::default());
        let recent = Recent::new(commits.clone());
        let read = async {
            commits.end(commits.begin());
            Ok::<_, Infallible>(10)
        };
        assert_eq!(recent.get(1, read).await, Ok(10));
        assert_eq!(get(&recent, 1, 11).await, 11);
        assert_eq!(get(&recent, 1, 12).await, 11);
    }

    #[tokio::test]
    async fn so_many_are_kept_and_no_error_is() {
        let recent = Recent::new(Arc::<Commits>::default());
        let failed = recent.get(0, async { Err::<u32, _>("unreadable") }).await;
        assert_eq!(failed, Err("unreadable"));
        for key in 0..=MOST {
            let read = async { Ok::<_, Infallible>(0) };
            recent.get(key, read).await.expect("it cannot fail");
        }
        assert_eq!(recent.answers().by_key.len(), 1);
    }
}
