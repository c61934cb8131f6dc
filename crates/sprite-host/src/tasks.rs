//! Tasks: what a sprite itself says it must stay awake for.
//!
//! The catalog holds them; the sprite's own task reads there when the last one ends, at its beginning and whenever
//! one was changed, and the lifecycle counts that as a hold. So it does not matter who changed what in which order,
//! nor when the host was killed: what is in the catalog counts.

use std::sync::Arc;
use std::time::Duration;

use sprite_catalog::{IfTaken, Task};
use sprite_lifecycle::Moment;
use sprite_types::{SpriteId, TaskName};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::actor;
use crate::error::{PutTaskError, TaskError};
use crate::registry::Message;
use crate::shared::Shared;

/// Most tasks of one sprite at once.
pub(crate) const MOST: u32 = 64;

/// The longest time from now to a task's end. Source: behaviour reference §1.13.
pub const LONGEST_TASK: Duration = Duration::from_secs(3600);

/// Pause before the catalog is asked again that could not be read.
const AGAIN: Duration = Duration::from_secs(2);

/// The tasks that have not expired, in the order of their names.
pub(crate) async fn list(shared: &Shared, sprite: SpriteId) -> Result<Vec<Task>, TaskError> {
    Ok(shared.catalog.tasks(sprite, shared.time()).await?)
}

/// The task of that name.
pub(crate) async fn find(
    shared: &Shared,
    sprite: SpriteId,
    name: &TaskName,
) -> Result<Task, TaskError> {
    let found = shared.catalog.task(sprite, name, shared.time()).await?;
    found.ok_or(TaskError::NotFound)
}

/// Wakes the sprite, records the task, and returns when it holds the sprite. Goes on if the caller does not wait.
pub(crate) async fn put(
    shared: &Arc<Shared>,
    sprite: SpriteId,
    name: TaskName,
    expire: Duration,
    if_taken: IfTaken,
) -> Result<Task, PutTaskError> {
    if expire.is_zero() || expire > LONGEST_TASK {
        return Err(PutTaskError::Expire);
    }
    let awake = crate::host::awake(shared, sprite).await?;
    let (tell, told) = oneshot::channel();
    let owner = shared.clone();
    let work = async move {
        let started_at = owner.time();
        let task = Task {
            name,
            started_at,
            expires_at: started_at + expire,
        };
        let recorded = owner.catalog.put_task(sprite, &task, if_taken, MOST).await;
        if recorded.is_ok() {
            look_again(&owner, sprite).await;
        }
        // Only now: in between nothing else may hold it.
        drop(awake);
        // Whoever does not wait any more needs no answer.
        let _ = tell.send(recorded.map_err(PutTaskError::from));
    };
    shared.spawn(work.in_current_span());
    told.await.unwrap_or(Err(PutTaskError::Closing))
}

/// Deletes a task; a sprite that sleeps is not woken for it.
pub(crate) async fn delete(
    shared: &Shared,
    sprite: SpriteId,
    name: &TaskName,
) -> Result<(), TaskError> {
    let deleted = shared.catalog.delete_task(sprite, name, shared.time());
    if !deleted.await? {
        return Err(TaskError::NotFound);
    }
    look_again(shared, sprite).await;
    Ok(())
}

/// Has the sprite's task read the catalog again, and waits for that. One that sleeps reads it when it begins.
async fn look_again(shared: &Shared, sprite: SpriteId) {
    let (reply, looked) = oneshot::channel();
    let message = Message::TasksChanged(reply);
    if let Ok(true) = shared.registry.send_if_active(sprite, message) {
        // Dropped if the sprite's task ended meanwhile.
        let _ = looked.await;
    }
}

/// Wakes every sprite that has a task: it was promised to stay awake.
pub(crate) async fn wake_all(shared: &Arc<Shared>) -> Result<(), sprite_catalog::CatalogError> {
    let now = shared.time();
    shared.catalog.forget_expired_tasks(now).await?;
    for sprite in shared.catalog.sprites_with_tasks(now).await? {
        let (reply, _not_waited_for) = oneshot::channel();
        // Refused only when the host closes while it opens.
        let _ = actor::send(shared, sprite, Message::Wake(reply));
    }
    Ok(())
}

type Future<T> = std::pin::Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// How a sprite's task learns when its last task ends: at most one look at the catalog at a time.
#[derive(Default)]
pub(crate) struct Looks {
    under_way: Option<Future<Option<Moment>>>,
    /// Who is told at its end.
    waiting: Vec<oneshot::Sender<()>>,
    /// Something changed after it began: these wait for the next.
    next: Vec<oneshot::Sender<()>>,
}

impl Looks {
    /// Looks now, or again after the look that is under way.
    pub(crate) fn look(
        &mut self,
        shared: &Arc<Shared>,
        sprite: SpriteId,
        reply: Option<oneshot::Sender<()>>,
    ) {
        if self.under_way.is_some() {
            self.next.extend(reply);
        } else {
            self.waiting.extend(reply);
            self.under_way = Some(Box::pin(last_end(shared.clone(), sprite)));
        }
    }

    /// When the last task ends, as soon as that is known anew.
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn seen(&mut self, shared: &Arc<Shared>, sprite: SpriteId) -> Option<Moment> {
        let Some(look) = &mut self.under_way else {
            return std::future::pending().await;
        };
        let until = look.await;
        self.under_way = None;
        // They are told before the lifecycle is, but whatever they do next comes behind it in the mailbox.
        for reply in self.waiting.drain(..) {
            // Whoever does not wait any more needs no answer.
            let _ = reply.send(());
        }
        if !self.next.is_empty() {
            self.waiting = std::mem::take(&mut self.next);
            self.under_way = Some(Box::pin(last_end(shared.clone(), sprite)));
        }
        until
    }
}

async fn last_end(shared: Arc<Shared>, sprite: SpriteId) -> Option<Moment> {
    loop {
        match shared.catalog.last_task_end(sprite).await {
            Ok(end) => return end.map(|at| shared.moment(at)),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "read the tasks of a sprite"
                );
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}
