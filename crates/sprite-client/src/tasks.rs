//! Tasks: keeping a sprite awake while work goes on.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::Call;
use crate::error::Error;
use crate::model::Timestamp;
use crate::sessions::duration;
use crate::sprite::Sprite;
use crate::url::Target;

/// A reason for a sprite to stay awake, which ends by itself.
///
/// Source: behaviour reference §1.13.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its name, unique in its sprite.
    pub name: String,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Sprite {
    /// The tasks that have not ended, in the order of their names. This never wakes the sprite.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn tasks(&self) -> Result<Vec<Task>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            tasks: Vec<Task>,
        }
        let call = Call::new(Method::GET, self.target()?.path("/tasks"));
        let answer: Answer = self.client().json(&call).await?;
        Ok(answer.tasks)
    }

    /// The task of that name. This never wakes the sprite.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none, or it has ended.
    pub async fn task(&self, name: &str) -> Result<Task, Error> {
        let call = Call::new(Method::GET, self.task_target(name)?);
        self.client().json(&call).await
    }

    /// Wakes the sprite and keeps it awake for `expire`, at most an hour, or until the task is deleted. `name` holds
    /// lowercase letters, digits and `-`.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// use std::time::Duration;
    ///
    /// sprite.create_task("build", Duration::from_secs(1800)).await?;
    /// // … work that must not be interrupted …
    /// sprite.delete_task("build").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The sprite has a task of that name (status 409), or the name or the time is not allowed.
    pub async fn create_task(&self, name: &str, expire: Duration) -> Result<Task, Error> {
        let body = json!({ "name": name, "expire": duration(expire) });
        let call = Call::new(Method::POST, self.target()?.path("/tasks"));
        self.client().json(&call.json(&body)).await
    }

    /// Like [`Sprite::create_task`]; a task of that name that there is gets the new end.
    ///
    /// # Errors
    /// The name or the time is not allowed, or the call fails.
    pub async fn put_task(&self, name: &str, expire: Duration) -> Result<Task, Error> {
        let body = json!({ "expire": duration(expire) });
        let call = Call::new(Method::PUT, self.task_target(name)?);
        self.client().json(&call.json(&body)).await
    }

    /// Ends a task: the sprite may sleep when it is idle. Nothing that runs is ended.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none, or it has ended.
    pub async fn delete_task(&self, name: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.task_target(name)?);
        self.client().done(&call).await
    }

    fn task_target(&self, name: &str) -> Result<Target, Error> {
        self.target()?.path("/tasks").segment(name)
    }
}
