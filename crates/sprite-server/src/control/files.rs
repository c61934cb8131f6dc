//! Operations on files over the control socket. Source: behaviour reference §1.5.
//!
//! | operation | says | then |
//! |---|---|---|
//! | `fs.read` | `{"path","size","offset","length","mode"}` | its bytes in binary messages |
//! | `fs.write` | `{"path"}`: the bytes can come, in binary messages up to any text message | `{"path","size","mode"}` |
//! | all others | what they answer over HTTP | |
//!
//! Behind it comes `op.complete`; instead of any of it, `op.error`.

use serde::Serialize;
use sprite_agent_api::fs::{FsReply, FsSpec};
use sprite_api::control::{Envelope, Reading, Writing};
use sprite_api::fs::Listing;
use sprite_api::query::Query;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Control, End};
use crate::fs::{Running, Said, change, list, nonsense, octal, params, write};
use crate::problem::{Answer, Problem};
use crate::ws::{Goodbye, Message, ReadError};

/// Longest listing in one message, in entries; longer ones are for HTTP, which streams them.
const MOST_ENTRIES: usize = 10_000;

/// What can be done to files.
#[derive(Clone, Copy)]
pub(super) enum FileOperation {
    Read,
    Write,
    List,
    Delete,
    Rename,
    Copy,
    Chmod,
    Chown,
}

impl FileOperation {
    /// The one with this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "fs.read" => Self::Read,
            "fs.write" => Self::Write,
            "fs.list" => Self::List,
            "fs.delete" => Self::Delete,
            "fs.rename" => Self::Rename,
            "fs.copy" => Self::Copy,
            "fs.chmod" => Self::Chmod,
            "fs.chown" => Self::Chown,
            _ => return None,
        })
    }
}

/// Why an operation ended early: it is told, or the socket is at its end.
enum Stop {
    Told(Problem),
    End(End),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Told(problem)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Control<S> {
    /// Does one operation on files.
    pub(super) async fn files(
        &mut self,
        operation: FileOperation,
        query: &Query,
        envelope: Envelope,
    ) -> Result<(), End> {
        match self.file_operation(operation, query).await {
            Ok(()) => self.complete(envelope),
            Err(Stop::Told(problem)) => self.error(problem.message().to_owned(), envelope),
            Err(Stop::End(end)) => return Err(end),
        }
        Ok(())
    }

    async fn file_operation(
        &mut self,
        operation: FileOperation,
        query: &Query,
    ) -> Result<(), Stop> {
        match operation {
            FileOperation::Read => return self.read_file(params::read(query, None)?).await,
            FileOperation::Write => return self.write_file(params::write(query)?).await,
            FileOperation::List => {
                let listing = self.list_files(params::list(query)?).await?;
                self.tell(&listing);
            }
            FileOperation::Delete => {
                let changed = self.begin(params::delete(query)?).await?.changed().await?;
                self.tell(&change::deleted(changed));
            }
            FileOperation::Rename => {
                let changed = self.begin(params::rename(query)?).await?.changed().await?;
                self.tell(&change::renamed(changed));
            }
            FileOperation::Copy => {
                let changed = self.begin(params::copy(query)?).await?.changed().await?;
                self.tell(&change::copied(changed));
            }
            FileOperation::Chmod => {
                let (spec, mode) = params::chmod(query)?;
                let changed = self.begin(spec).await?.changed().await?;
                self.tell(&change::modes_changed(changed, mode));
            }
            FileOperation::Chown => {
                let changed = self.begin(params::chown(query)?).await?.changed().await?;
                self.tell(&change::owners_changed(changed));
            }
        }
        Ok(())
    }

    // Of `&mut self`, since a socket's halves cannot be shared between threads.
    async fn begin(&mut self, spec: FsSpec) -> Answer<Running> {
        let sprite = self.app.host.sprite_by_id(self.sprite).await?;
        Running::begin(&self.app, &sprite, spec).await
    }

    fn tell(&mut self, result: &impl Serialize) {
        let json = serde_json::to_string(result).expect("results have string keys");
        self.socket.writer.text(json);
    }

    /// Writes what is queued, at the client's pace.
    async fn deliver(&mut self) -> Result<(), Stop> {
        tokio::select! {
            goodbye = self.socket.deliver() => match goodbye {
                Goodbye::Unsaid => Ok(()),
                Goodbye::Said => Err(Stop::End(End::Closed)),
                Goodbye::Gone => Err(Stop::End(End::Gone)),
            },
            () = self.connection.stop.cancelled() => Err(Stop::End(End::Stopped)),
        }
    }

    async fn list_files(&mut self, spec: FsSpec) -> Answer<Listing> {
        let mut running = self.begin(spec).await?;
        let FsReply::Listing { path } = running.reply().await? else {
            return Err(nonsense());
        };
        let mut entries = Vec::new();
        loop {
            match running.reply().await? {
                FsReply::Entries { entries: more } => {
                    entries.extend(more.into_iter().map(list::shown));
                    if entries.len() > MOST_ENTRIES {
                        let message =
                            format!("more than {MOST_ENTRIES} entries: list them over HTTP");
                        return Err(Problem::field(message));
                    }
                }
                FsReply::Done => {
                    let count = entries.len() as u64;
                    return Ok(Listing {
                        path,
                        entries,
                        count,
                    });
                }
                _other => return Err(nonsense()),
            }
        }
    }

    async fn read_file(&mut self, spec: FsSpec) -> Result<(), Stop> {
        let mut running = self.begin(spec).await?;
        match running.reply().await? {
            FsReply::Reading {
                path,
                size,
                offset,
                length,
                mode,
            } => {
                let mode = octal(mode);
                self.tell(&Reading {
                    path,
                    size,
                    offset,
                    length,
                    mode,
                });
            }
            _other => return Err(nonsense().into()),
        }
        loop {
            self.deliver().await?;
            let said = tokio::select! {
                said = running.next() => said?,
                () = self.connection.stop.cancelled() => return Err(Stop::End(End::Stopped)),
            };
            match said {
                Said::Bytes(bytes) => self.socket.writer.binary(&[], bytes),
                Said::Reply(FsReply::Done) => return Ok(()),
                Said::Reply(_) => return Err(nonsense().into()),
            }
        }
    }

    async fn write_file(&mut self, spec: FsSpec) -> Result<(), Stop> {
        let mut running = self.begin(spec).await?;
        match running.reply().await? {
            FsReply::Writing { path } => self.tell(&Writing { path }),
            _other => return Err(nonsense().into()),
        }
        loop {
            self.socket
                .writer
                .flush()
                .await
                .map_err(|_| Stop::End(End::Gone))?;
            let message = tokio::select! {
                message = self.socket.reader.next() => message,
                () = self.connection.stop.cancelled() => return Err(Stop::End(End::Stopped)),
            };
            match message {
                Ok(Message::Binary(bytes)) => running.give(bytes).await?,
                Ok(Message::Text(_)) => break,
                Ok(Message::Ping(payload)) => self.socket.writer.pong(payload),
                // What came is not whole: dropped, it changes nothing.
                Ok(Message::Close(_)) => return Err(Stop::End(End::Closed)),
                Err(ReadError::Violation(violation)) => {
                    return Err(Stop::End(End::Violation(violation)));
                }
                Err(ReadError::Eof | ReadError::Io(_)) => return Err(Stop::End(End::Gone)),
            }
        }
        running.finish();
        let written = write::written(&mut running).await?;
        self.tell(&written);
        Ok(())
    }
}
