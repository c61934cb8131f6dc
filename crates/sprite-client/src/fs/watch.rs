//! What happens to files.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{SinkExt, Stream, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use super::Fs;
use crate::error::Error;
use crate::exec::{Socket, upgrade};
use crate::model::Timestamp;
use crate::ports::text;

/// How long the server may take to look through what is to be watched.
const BEGIN_LIMIT: Duration = Duration::from_secs(60);

/// Most events that are kept while the server looks; they are bounded by what it tells of.
const MOST_EARLY: usize = 1 << 16;

/// Files that are to be watched; made by [`Fs::watch`].
#[derive(Debug, Clone)]
#[must_use = "nothing is watched before `begin`"]
pub struct WatchFiles {
    fs: Fs,
    paths: Vec<String>,
    recursive: bool,
}

/// Something happened to a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct FileEvent {
    /// What.
    pub event: FileEventKind,
    /// To which file: its absolute path.
    pub path: String,
    /// Its new name, of a renaming whose both names are watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dest: Option<String>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Bytes; 0 if it is gone.
    #[serde(default)]
    pub size: u64,
    /// Whether it is a directory.
    #[serde(default)]
    pub is_dir: bool,
}

/// What can happen to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileEventKind {
    /// Its bytes changed.
    Write,
    /// It came to be.
    Create,
    /// It is gone.
    Remove,
    /// It got another name.
    Rename,
    /// Its mode, owner or times changed.
    Chmod,
    /// Something else.
    #[serde(other)]
    Other,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileNotice {
    /// Something happened.
    Happened(FileEvent),
    /// Something cannot be watched, or events were missed because nobody read them (`overflow`). Watching goes on.
    Missed {
        /// For people.
        message: String,
        /// What it is about; empty: everything.
        path: String,
    },
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Text {
    Subscribed {},
    Event(FileEvent),
    Error {
        message: String,
        #[serde(default)]
        path: String,
    },
}

/// Files of a sprite as they change. It keeps no sprite awake, and ends when the sprite falls asleep.
#[derive(Debug)]
pub struct FileWatch {
    socket: Socket,
    early: VecDeque<FileNotice>,
}

impl Fs {
    /// A file or directory to be watched: changes of a directory are those of what it holds.
    ///
    /// ```no_run
    /// # async fn example(client: sprite_client::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use sprite_client::FileNotice;
    ///
    /// let mut watch = client.sprite("scratch").fs().watch("src").recursive().begin().await?;
    /// while let Some(notice) = watch.next().await? {
    ///     match notice {
    ///         FileNotice::Happened(event) => println!("{:?} {}", event.event, event.path),
    ///         FileNotice::Missed { message, .. } => eprintln!("{message}"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self, path: impl Into<String>) -> WatchFiles {
        WatchFiles {
            fs: self.clone(),
            paths: vec![path.into()],
            recursive: false,
        }
    }
}

impl WatchFiles {
    /// This one as well.
    pub fn also(mut self, path: impl Into<String>) -> Self {
        self.paths.push(path.into());
        self
    }

    /// Directories below them too, also those that come to be.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// Begins. When this returns they are watched; those that cannot be are the first that is told.
    ///
    /// # Errors
    /// When there is no such sprite, or it cannot be reached.
    pub async fn begin(self) -> Result<FileWatch, Error> {
        let client = self.fs.sprite.client();
        let target = self.fs.target("watch")?;
        let socket = upgrade::upgrade(client, target).await?.socket;
        let mut watch = FileWatch {
            socket,
            early: VecDeque::new(),
        };
        let mut hello =
            json!({ "type": "subscribe", "paths": self.paths, "recursive": self.recursive });
        if let Some(directory) = &self.fs.working_dir {
            hello["workingDir"] = json!(directory);
        }
        let late = || Error::TimedOut {
            what: "the beginning of a watch",
            after: BEGIN_LIMIT,
        };
        let begin = async {
            let sent = watch.socket.send(Message::text(hello.to_string())).await;
            sent.map_err(|source| Error::Interrupted {
                source: Some(std::sync::Arc::new(source)),
            })?;
            loop {
                match watch.read().await? {
                    None => return Err(Error::Interrupted { source: None }),
                    Some(Told::Begun) => return Ok(()),
                    Some(Told::Notice(notice)) if watch.early.len() < MOST_EARLY => {
                        watch.early.push_back(notice);
                    }
                    Some(Told::Notice(_)) => {
                        return Err(Error::malformed("a watch that does not begin"));
                    }
                }
            }
        };
        timeout(BEGIN_LIMIT, begin).await.map_err(|_| late())??;
        Ok(watch)
    }
}

enum Told {
    Begun,
    Notice(FileNotice),
}

impl FileWatch {
    /// The next thing; `None` when the sprite fell asleep or the server ended the watch.
    ///
    /// # Errors
    /// When the connection broke: changes may have been missed.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<FileNotice>, Error> {
        if let Some(notice) = self.early.pop_front() {
            return Ok(Some(notice));
        }
        loop {
            match self.read().await? {
                Some(Told::Notice(notice)) => return Ok(Some(notice)),
                Some(Told::Begun) => {}
                None => return Ok(None),
            }
        }
    }

    /// What it tells as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<FileNotice, Error>> {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(notice)) => Some((Ok(notice), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn read(&mut self) -> Result<Option<Told>, Error> {
        while let Some(text) = text(&mut self.socket).await? {
            // Texts that are not known are of servers to come.
            if let Some(told) = read(&text) {
                return Ok(Some(told));
            }
        }
        Ok(None)
    }
}

fn read(text: &str) -> Option<Told> {
    match serde_json::from_str(text).ok()? {
        Text::Subscribed {} => Some(Told::Begun),
        Text::Event(event) => Some(Told::Notice(FileNotice::Happened(event))),
        Text::Error { message, path } => Some(Told::Notice(FileNotice::Missed { message, path })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_watch_are_read_and_others_passed_over() {
        let event = r#"{"type":"event","event":"write","path":"/a","timestamp":"2023-11-14T22:13:20.000000Z","size":1,"isDir":false}"#;
        assert!(matches!(
            read(event),
            Some(Told::Notice(FileNotice::Happened(event))) if event.path == "/a" && event.size == 1
        ));
        let later = r#"{"type":"event","event":"frozen","path":"/a"}"#;
        assert!(matches!(
            read(later),
            Some(Told::Notice(FileNotice::Happened(event))) if event.event == FileEventKind::Other
        ));
        let error = r#"{"type":"error","message":"overflow: events were missed","path":""}"#;
        assert!(matches!(
            read(error),
            Some(Told::Notice(FileNotice::Missed { .. }))
        ));
        let begun = r#"{"type":"subscribed","paths":["/a"],"recursive":true}"#;
        assert!(matches!(read(begun), Some(Told::Begun)));
        for other in [
            "",
            "{}",
            r#"{"type":"unsubscribed","paths":[]}"#,
            r#"{"type":"event"}"#,
        ] {
            assert!(read(other).is_none(), "{other}");
        }
    }
}
