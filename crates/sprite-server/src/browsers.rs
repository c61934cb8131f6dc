//! Who of those attached to a sprite opens URLs for the programs in it.
//!
//! A program inside cannot tell from which session it comes, and somebody may be attached more than once. So of all
//! clients that said that they take URLs the one is asked that typed last: whoever starts a login has just typed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sprite_api::exec::OpenUrl;
use sprite_types::SpriteId;
use tokio::sync::mpsc;

/// Most clients of a sprite that may be asked; more are attached all the same.
const MOST: usize = 64;

/// URLs that wait for a client that is slow to read.
const WAITING: usize = 4;

/// All clients that take URLs, by sprite. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Browsers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    clients: Mutex<HashMap<SpriteId, Vec<Client>>>,
    /// Counts what clients do, so that the last can be told.
    turn: AtomicU64,
}

#[derive(Debug)]
struct Client {
    urls: mpsc::Sender<OpenUrl>,
    typed: Arc<AtomicU64>,
}

/// A client that is asked, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) urls: Urls,
    pub(crate) presence: Presence,
}

/// What a client is asked to open.
#[derive(Debug)]
pub(crate) struct Urls(mpsc::Receiver<OpenUrl>);

/// That a client is there, and when it was last heard of.
#[derive(Debug)]
pub(crate) struct Presence {
    shared: Arc<Shared>,
    sprite: SpriteId,
    typed: Arc<AtomicU64>,
}

/// Why nobody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// No client that takes URLs is attached.
    Nobody,
    /// All that are have not read earlier ones yet.
    Busy,
}

impl Browsers {
    /// Makes a client one that is asked; `None` if there are too many.
    pub(crate) fn listen(&self, sprite: SpriteId) -> Option<Listener> {
        let (urls, asked) = mpsc::channel(WAITING);
        let typed = Arc::new(AtomicU64::new(self.0.next_turn()));
        let mut clients = self.0.clients();
        let of_sprite = clients.entry(sprite).or_default();
        if of_sprite.len() >= MOST {
            return None;
        }
        of_sprite.push(Client {
            urls,
            typed: typed.clone(),
        });
        drop(clients);
        let shared = self.0.clone();
        Some(Listener {
            urls: Urls(asked),
            presence: Presence {
                shared,
                sprite,
                typed,
            },
        })
    }

    /// Asks the client that typed last, or the one before it if that one does not read.
    ///
    /// # Errors
    /// Nobody was asked.
    pub(crate) fn ask(&self, sprite: SpriteId, url: &OpenUrl) -> Result<(), Unasked> {
        let clients = self.0.clients();
        let of_sprite = clients.get(&sprite).ok_or(Unasked::Nobody)?;
        let mut by_turn: Vec<&Client> = of_sprite.iter().collect();
        by_turn.sort_by_key(|client| std::cmp::Reverse(client.typed.load(Ordering::Relaxed)));
        let asked = by_turn
            .into_iter()
            .any(|client| client.urls.try_send(url.clone()).is_ok());
        if asked { Ok(()) } else { Err(Unasked::Busy) }
    }
}

impl Shared {
    fn clients(&self) -> MutexGuard<'_, HashMap<SpriteId, Vec<Client>>> {
        // Nothing panics while holding it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

impl Presence {
    /// The person at the client did something.
    pub(crate) fn typed(&self) {
        self.typed.store(self.shared.next_turn(), Ordering::Relaxed);
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut clients = self.shared.clients();
        if let Some(of_sprite) = clients.get_mut(&self.sprite) {
            of_sprite.retain(|client| !Arc::ptr_eq(&client.typed, &self.typed));
            if of_sprite.is_empty() {
                clients.remove(&self.sprite);
            }
        }
    }
}

impl Urls {
    /// The next URL.
    ///
    /// # Cancel safety
    /// Safe: no URL is lost.
    pub(crate) async fn next(&mut self) -> OpenUrl {
        match self.0.recv().await {
            Some(url) => url,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use sprite_types::WebUrl;

    use super::*;

    fn url(number: usize) -> OpenUrl {
        let url: WebUrl = format!("http://a/{number}").parse().expect("a URL");
        url.into()
    }

    fn heard(listener: &mut Listener) -> Option<OpenUrl> {
        listener.urls.next().now_or_never()
    }

    #[test]
    fn whoever_typed_last_is_asked_and_nobody_else() {
        let (browsers, sprite) = (Browsers::default(), SpriteId::random());
        assert_eq!(browsers.ask(sprite, &url(0)), Err(Unasked::Nobody));
        let mut first = browsers.listen(sprite).expect("room");
        let mut second = browsers.listen(sprite).expect("room");
        let mut other = browsers.listen(SpriteId::random()).expect("room");
        browsers.ask(sprite, &url(1)).expect("the newest");
        assert_eq!(
            (heard(&mut first), heard(&mut second)),
            (None, Some(url(1)))
        );
        first.presence.typed();
        browsers.ask(sprite, &url(2)).expect("who typed");
        assert_eq!(
            (heard(&mut first), heard(&mut second)),
            (Some(url(2)), None)
        );
        drop(first);
        browsers.ask(sprite, &url(3)).expect("who is left");
        assert_eq!(heard(&mut second), Some(url(3)));
        drop(second);
        assert_eq!(browsers.ask(sprite, &url(4)), Err(Unasked::Nobody));
        assert_eq!(heard(&mut other), None);
        drop(other);
        assert!(browsers.0.clients().is_empty());
    }

    #[test]
    fn clients_that_do_not_read_and_clients_without_number_cost_little() {
        let (browsers, sprite) = (Browsers::default(), SpriteId::random());
        let mut slow = browsers.listen(sprite).expect("room");
        for number in 0..WAITING {
            browsers.ask(sprite, &url(number)).expect("room");
        }
        assert_eq!(browsers.ask(sprite, &url(9)), Err(Unasked::Busy));
        assert_eq!(heard(&mut slow), Some(url(0)));
        let more: Vec<_> = (1..MOST).map(|_| browsers.listen(sprite)).collect();
        assert!(more.iter().all(Option::is_some));
        assert!(browsers.listen(sprite).is_none());
        drop(more);
        assert!(browsers.listen(sprite).is_some());
    }
}
