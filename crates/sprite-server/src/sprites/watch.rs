//! The live list: `GET /v1/sprites` with `Accept: application/x-ndjson`.
//!
//! First every sprite as it is, then every change. The watch is opened before the list is read, so that nothing
//! between the two is missed; a sprite may be told twice, which is the same truth twice. A reader so slow that
//! events had to be dropped is told to forget what it knows (`reset`) and gets the whole list again.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use sprite_api::sprite::{SpriteEvent, SpriteEventKind};
use sprite_api::{NDJSON, Stamp};
use sprite_host::{ListQuery, Principal, Sprite, Watch, WatchEvent};
use sprite_types::{RUNTIME_VERSION, SpriteStatus};
use time::OffsetDateTime;

use crate::answer;
use crate::connection::Connection;
use crate::problem::Answer;
use crate::routes::App;

/// A line at least this often, so that both ends notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Sprites read at once.
const PAGE: u32 = 100;

/// Where a reader is.
enum Place {
    /// In the list, behind the sprite of this name.
    List { after: Option<String> },
    /// Behind the list.
    Changes,
}

struct Follower {
    app: App,
    caller: Principal,
    prefix: Option<String>,
    connection: Connection,
    watch: Watch,
    place: Place,
    /// Lines that are ready.
    ready: VecDeque<Bytes>,
}

/// The endless answer.
pub(crate) fn stream(
    app: App,
    caller: Principal,
    prefix: Option<String>,
    connection: Connection,
) -> Response {
    let watch = app.host.watch(&caller.org);
    let place = Place::List { after: None };
    let follower = Follower {
        app,
        caller,
        prefix,
        connection,
        watch,
        place,
        ready: VecDeque::new(),
    };
    let lines = stream::try_unfold(follower, |mut follower| async move {
        let line = follower.next().await?;
        Ok::<_, io::Error>(Some((line, follower)))
    });
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response
}

impl Follower {
    /// The next line. An error breaks the answer off: a list that ends short must not look whole.
    async fn next(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Ok(line);
            }
            match &self.place {
                Place::List { after } => {
                    let after = after.clone();
                    self.read_page(after)
                        .await
                        .map_err(|problem| broken(problem.message()))?;
                }
                Place::Changes => return self.change().await,
            }
        }
    }

    async fn read_page(&mut self, after: Option<String>) -> Answer<()> {
        let query = ListQuery {
            scope: self.caller.scope(),
            prefix: self.prefix.clone(),
            after,
            limit: PAGE,
        };
        let page = self.app.host.list(&self.caller.org, query).await?;
        let now = OffsetDateTime::now_utc();
        let empty = self.empty_event(now).await?;
        self.ready.extend(
            page.sprites
                .iter()
                .map(|sprite| answer::line(&about(&empty, sprite))),
        );
        self.place = match page.sprites.last() {
            Some(last) if page.has_more => Place::List {
                after: Some(last.name.to_string()),
            },
            Some(_) => Place::Changes,
            None => {
                // Something at once, so that the client sees that it is connected.
                self.ready.push_back(heartbeat(empty));
                Place::Changes
            }
        };
        Ok(())
    }

    async fn change(&mut self) -> io::Result<Bytes> {
        loop {
            let event = tokio::select! {
                event = tokio::time::timeout(HEARTBEAT, self.watch.next()) => event,
                () = self.connection.stop.cancelled() => return Err(broken("server stops")),
            };
            let (sprite, at, gone) = match event {
                Ok(Some(WatchEvent::Changed { sprite, at })) => (sprite, at, false),
                Ok(Some(WatchEvent::Gone { sprite, at })) => (sprite, at, true),
                Ok(Some(WatchEvent::Missed)) => {
                    self.place = Place::List { after: None };
                    let mut reset = self.event_now().await?;
                    reset.kind = Some(SpriteEventKind::Reset);
                    return Ok(answer::line(&reset));
                }
                Ok(None) => return Err(broken("server stops")),
                Err(_) => return Ok(heartbeat(self.event_now().await?)),
            };
            let prefix = self.prefix.as_deref().unwrap_or_default();
            if !self.caller.sees(&sprite) || !sprite.name.as_str().starts_with(prefix) {
                continue;
            }
            let empty = self
                .empty_event(at)
                .await
                .map_err(|problem| broken(problem.message()))?;
            let mut event = about(&empty, &sprite);
            if gone {
                event.kind = Some(SpriteEventKind::Deleted);
                event.status = Some("deleted".to_owned());
                event.running_version = None;
            }
            return Ok(answer::line(&event));
        }
    }

    async fn event_now(&self) -> io::Result<SpriteEvent> {
        let event = self.empty_event(OffsetDateTime::now_utc()).await;
        event.map_err(|problem| broken(problem.message()))
    }

    /// An event about no sprite.
    async fn empty_event(&self, at: OffsetDateTime) -> Answer<SpriteEvent> {
        let Principal { org, .. } = &self.caller;
        let counts = self.app.host.counts(org, self.caller.scope()).await?;
        Ok(SpriteEvent {
            kind: None,
            name: None,
            id: None,
            status: None,
            running_version: None,
            last_running_at: None,
            last_warming_at: None,
            timestamp: Stamp(at),
            org: super::org_counts(&self.caller.slug, counts),
        })
    }
}

fn heartbeat(mut event: SpriteEvent) -> Bytes {
    event.kind = Some(SpriteEventKind::Heartbeat);
    answer::line(&event)
}

fn about(empty: &SpriteEvent, sprite: &Sprite) -> SpriteEvent {
    SpriteEvent {
        name: Some(sprite.name.to_string()),
        id: Some(sprite.id),
        status: Some(sprite.status.to_string()),
        running_version: (sprite.status == SpriteStatus::Running)
            .then(|| RUNTIME_VERSION.to_owned()),
        last_running_at: sprite.last_running_at.map(Stamp),
        last_warming_at: sprite.last_warming_at.map(Stamp),
        ..empty.clone()
    }
}

fn broken(reason: &str) -> io::Error {
    io::Error::other(reason.to_owned())
}
