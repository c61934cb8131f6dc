//! Checkpoints: states of a sprite's disk that it can go back to.
//!
//! Source: behaviour reference §1.8, §4.2.

use std::time::Duration;

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::body::Lines;
use crate::client::Call;
use crate::error::{Error, shown};
use crate::model::{Timestamp, null_is_default};
use crate::sprite::Sprite;
use crate::url::Target;

/// How long a stream may be silent before the connection counts as lost. A machine that restarts may take its time; the
/// official SDKs wait as long.
const SILENCE: Duration = Duration::from_secs(300);

/// What the entry of a list is called that stands for the sprite as it is now.
const CURRENT: &str = "Current";

/// A state of a sprite's disk, or in a list also the sprite as it is now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Checkpoint {
    /// `v1`, `v2`, … where somebody asked for it, `auto-1`, … where it was made by itself, or `Current`.
    pub id: String,
    /// Of what time the state is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_time: Option<Timestamp>,
    /// The checkpoint that this state goes back to; empty if there is none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub source_id: String,
    /// What it is for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub comment: String,
    /// Whether nobody asked for it.
    #[serde(default)]
    pub is_auto: bool,
    /// Empty while nothing is known to be wrong with it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub health: String,
    /// The checkpoints that it goes back to, the oldest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub history: Vec<String>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Checkpoint {
    /// Whether this is no checkpoint, but the sprite as it is now.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.id == CURRENT
    }
}

/// Something that happened while a checkpoint was made or gone back to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointEvent {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// What.
    #[serde(flatten)]
    pub what: CheckpointEventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum CheckpointEventKind {
    /// How far it is.
    Info {
        /// For people.
        data: String,
    },
    /// It could not be done.
    Error {
        /// For people.
        error: String,
    },
    /// It is done.
    Complete {
        /// For people; names the checkpoint.
        data: String,
    },
    /// Something that this version does not know.
    #[serde(other)]
    Unknown,
}

/// What is told while a checkpoint is made or gone back to, event by event.
#[derive(Debug)]
pub struct CheckpointStream {
    lines: Lines,
    /// The checkpoint, once it is known.
    id: Option<String>,
    end: Option<End>,
}

/// What the last event said.
#[derive(Debug)]
enum End {
    Complete,
    Failed { message: String },
}

impl CheckpointStream {
    /// The next event; `None` after [`CheckpointEventKind::Complete`] and after [`CheckpointEventKind::Error`].
    ///
    /// # Errors
    /// When the stream breaks or ends early: what was cut off never looks done.
    ///
    /// # Cancel safety
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Result<Option<CheckpointEvent>, Error> {
        if self.end.is_some() {
            return Ok(None);
        }
        let event: Option<CheckpointEvent> = self.lines.next().await?;
        let event = event.ok_or(Error::Interrupted { source: None })?;
        match &event.what {
            CheckpointEventKind::Info { data } => {
                if self.id.is_none() {
                    self.id = id_in(data);
                }
            }
            CheckpointEventKind::Error { error } => {
                self.end = Some(End::Failed {
                    message: shown(error),
                });
            }
            CheckpointEventKind::Complete { data } => {
                self.id = id_in(data).or_else(|| self.id.take());
                self.end = Some(End::Complete);
            }
            CheckpointEventKind::Unknown => {}
        }
        Ok(Some(event))
    }

    /// Waits for the end, and gives the id of the checkpoint that was made or gone back to.
    ///
    /// # Errors
    /// [`Error::Failed`] when the server says that it could not be done, else as [`next`](Self::next).
    ///
    /// # Cancel safety
    /// Safe: it can be called again.
    pub async fn done(&mut self) -> Result<String, Error> {
        while self.next().await?.is_some() {}
        if let Some(End::Failed { message }) = &self.end {
            let message = message.clone();
            return Err(Error::Failed { message });
        }
        let id = self.id.clone();
        id.ok_or_else(|| Error::malformed("no line names the checkpoint"))
    }
}

/// The first word that is the id of a checkpoint. Servers tell the id of a new one in their sentences only.
fn id_in(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let found = words.find(|word| {
        word.strip_prefix('v').is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
    });
    found.map(str::to_owned)
}

/// Which checkpoints to list; [`send`](Self::send) lists them.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before `send`"]
pub struct ListCheckpoints {
    sprite: Sprite,
    automatic: Option<&'static str>,
    history: Option<String>,
}

impl ListCheckpoints {
    /// Those too that nobody asked for.
    pub fn with_automatic(mut self) -> Self {
        self.automatic = Some("true");
        self
    }

    /// Only checkpoint `id` and those that it goes back to.
    pub fn history(mut self, id: impl Into<String>) -> Self {
        self.history = Some(id.into());
        self
    }

    /// The checkpoints, the newest first; before them the sprite as it is now, unless a history is asked for. This never
    /// wakes the sprite.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn send(self) -> Result<Vec<Checkpoint>, Error> {
        let target = self.sprite.target()?.path("/checkpoints");
        let target = target
            .param_opt("includeAuto", self.automatic)
            .param_opt("history", self.history.as_deref());
        let call = Call::new(Method::GET, target);
        self.sprite.client().json(&call).await
    }
}

impl Sprite {
    /// Keeps the state of the sprite's disk as a checkpoint, while the sprite runs on. Processes and memory are not
    /// part of it.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let before = sprite.create_checkpoint(Some("before the upgrade")).await?.done().await?;
    /// // … something that may go wrong …
    /// sprite.restore(&before).await?.done().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no such sprite, or the comment is longer than 1024 bytes (status 400).
    ///
    /// # Cancel safety
    /// When the future or the stream is dropped, the checkpoint may be made all the same.
    pub async fn create_checkpoint(
        &self,
        comment: Option<&str>,
    ) -> Result<CheckpointStream, Error> {
        let body = comment.map_or_else(|| json!({}), |comment| json!({ "comment": comment }));
        let call = Call::new(Method::POST, self.target()?.path("/checkpoint"));
        self.checkpoint_stream(&call.json(&body), None).await
    }

    /// The sprite's checkpoints, to be told apart further.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// for checkpoint in sprite.checkpoints().with_automatic().send().await? {
    ///     println!("{}  {}", checkpoint.id, checkpoint.comment);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn checkpoints(&self) -> ListCheckpoints {
        ListCheckpoints {
            sprite: self.clone(),
            automatic: None,
            history: None,
        }
    }

    /// The checkpoint of that id. This never wakes the sprite.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none.
    pub async fn checkpoint_info(&self, id: &str) -> Result<Checkpoint, Error> {
        let call = Call::new(Method::GET, self.checkpoint_target(id)?);
        self.client().json(&call).await
    }

    /// Deletes a checkpoint. Its id is never given to another.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is none; status 409 when it is the one that was made or restored last, to
    /// which the sprite goes back.
    ///
    /// # Cancel safety
    /// When the future is dropped, the checkpoint may be deleted all the same.
    pub async fn delete_checkpoint(&self, id: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.checkpoint_target(id)?);
        self.client().done(&call).await
    }

    /// Takes the sprite's disk back to a checkpoint. The sprite's machine restarts, and its sessions end; the state
    /// that is replaced is kept as an automatic checkpoint.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let mut events = sprite.restore("v1").await?;
    /// while let Some(event) = events.next().await? {
    ///     println!("{event:?}");
    /// }
    /// assert_eq!(events.done().await?, "v1");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such checkpoint; status 409 while the sprite is being restored.
    ///
    /// # Cancel safety
    /// When the future or the stream is dropped, the sprite may be restored all the same.
    pub async fn restore(&self, id: &str) -> Result<CheckpointStream, Error> {
        let target = self.checkpoint_target(id)?.path("/restore");
        let call = Call::new(Method::POST, target);
        self.checkpoint_stream(&call, Some(id.to_owned())).await
    }

    fn checkpoint_target(&self, id: &str) -> Result<Target, Error> {
        self.target()?.path("/checkpoints").segment(id)
    }

    async fn checkpoint_stream(
        &self,
        call: &Call,
        id: Option<String>,
    ) -> Result<CheckpointStream, Error> {
        let response = self.client().accepted(call).await?;
        Ok(CheckpointStream {
            lines: Lines::new(response.into_body(), SILENCE),
            id,
            end: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_out_of_the_sentences_that_servers_write() {
        for (text, id) in [
            ("  ID: v1", Some("v1")),
            ("Checkpoint v12 created", Some("v12")),
            ("Checkpoint v0 created successfully", Some("v0")),
            ("Restored to v7.", Some("v7")),
            ("Creating checkpoint...", None),
            ("Saving everything of v", None),
            ("vmm v1a, rev2", None),
        ] {
            assert_eq!(id_in(text).as_deref(), id, "{text}");
        }
    }
}
