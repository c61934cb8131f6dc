//! Files of a sprite. Source: behaviour reference §1.10.

mod archive;
mod list;
mod model;
mod pull;
mod push;
mod read;
mod watch;
mod write;

use bytes::Bytes;
use hyper::Method;
use serde_json::{Value, json};

pub use archive::{Copied, Moved, TransferError};
pub use list::Entries;
pub use model::{Entry, EntryKind, FsChanged, Owner, Written};
pub use pull::PullDir;
pub use push::PushDir;
pub use read::FileReader;
pub use watch::{FileEvent, FileEventKind, FileNotice, FileWatch, WatchFiles};
pub use write::WriteFile;

use crate::client::Call;
use crate::error::Error;
use crate::sprite::Sprite;
use crate::url::Target;

/// Files of a sprite, read and written as its user `sprite` unless [`as_root`](Self::as_root) says otherwise.
///
/// Paths are absolute, or relative to the working directory (`/home/sprite` unless
/// [`working_dir`](Self::working_dir) says otherwise). They are resolved inside the sprite.
///
/// ```no_run
/// # async fn example(client: sprite_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use tokio::io::AsyncReadExt;
///
/// let fs = client.sprite("scratch").fs();
/// fs.write("notes/today.txt", "hello\n").await?;
/// assert_eq!(fs.read("notes/today.txt").await?, "hello\n");
///
/// let mut entries = fs.list("notes").await?;
/// while let Some(entry) = entries.next().await? {
///     println!("{} {}", entry.size, entry.path);
/// }
/// fs.rename("notes/today.txt", "notes/yesterday.txt").await?;
/// fs.remove_all("notes").await?;
///
/// let mut log = fs.as_root().open("/var/log/dpkg.log").await?;
/// let mut text = String::new();
/// log.read_to_string(&mut text).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Fs {
    sprite: Sprite,
    working_dir: Option<String>,
    as_root: bool,
}

impl Sprite {
    /// Its files. Nothing is sent.
    #[must_use]
    pub fn fs(&self) -> Fs {
        Fs {
            sprite: self.clone(),
            working_dir: None,
            as_root: false,
        }
    }
}

impl Fs {
    /// Relative paths begin here.
    #[must_use]
    pub fn working_dir(mut self, directory: impl Into<String>) -> Self {
        self.working_dir = Some(directory.into());
        self
    }

    /// As root of the sprite.
    #[must_use]
    pub fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    fn target(&self, operation: &str) -> Result<Target, Error> {
        Ok(self.sprite.target()?.path("/fs/").path(operation))
    }

    /// The target of an operation that says all in its query.
    fn query(&self, operation: &str, path: &str) -> Result<Target, Error> {
        let target = self.target(operation)?.param("path", path);
        let target = target.param_opt("workingDir", self.working_dir.as_deref());
        Ok(target.param_opt("asRoot", self.as_root.then_some("true")))
    }

    /// The call of an operation that says all in its body.
    fn body(&self, operation: &str, mut body: Value) -> Result<Call, Error> {
        if let Some(directory) = &self.working_dir {
            body["workingDir"] = json!(directory);
        }
        if self.as_root {
            body["asRoot"] = json!(true);
        }
        Ok(Call::new(Method::POST, self.target(operation)?).json(&body))
    }

    async fn changed(&self, call: &Call) -> Result<FsChanged, Error> {
        self.sprite.client().json(call).await
    }

    /// The whole of a file of at most 16 MiB; for larger ones there is [`open`](Self::open).
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such file; [`ApiError::file_code`](crate::ApiError) has the
    /// kernel's word for it.
    pub async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let client = self.sprite.client();
        let call = Call::new(Method::GET, self.query("read", path)?);
        let response = client.accepted(&call).await?;
        crate::body::whole(response.into_body(), client.answer_timeout()).await
    }

    /// Opens a file for reading, however large it is.
    ///
    /// # Errors
    /// As of [`read`](Self::read).
    pub async fn open(&self, path: &str) -> Result<FileReader, Error> {
        read::open(self, path, None).await
    }

    /// Opens a file for reading from its byte `offset` on.
    ///
    /// # Errors
    /// As of [`read`](Self::read), and when the file ends before.
    pub async fn open_at(&self, path: &str, offset: u64) -> Result<FileReader, Error> {
        read::open(self, path, Some(offset)).await
    }

    /// Writes a file: when this returns it is on the sprite's disk, and until then the old one is there. Directories
    /// on the way are made.
    ///
    /// # Errors
    /// When it cannot be written; then nothing has changed.
    pub async fn write(&self, path: &str, bytes: impl Into<Bytes>) -> Result<Written, Error> {
        self.write_file(path).bytes(bytes).await
    }

    /// A file to be written, with its mode, from bytes or from a reader.
    pub fn write_file(&self, path: impl Into<String>) -> WriteFile {
        WriteFile::new(self.clone(), path.into())
    }

    /// What a directory holds; a file lists itself.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such file or directory.
    pub async fn list(&self, path: &str) -> Result<Entries, Error> {
        list::list(self, path, false).await
    }

    /// What a directory holds, and all directories below it. Links are not followed.
    ///
    /// # Errors
    /// As of [`list`](Self::list).
    pub async fn list_all(&self, path: &str) -> Result<Entries, Error> {
        list::list(self, path, true).await
    }

    /// Removes a file, a link or an empty directory.
    ///
    /// # Errors
    /// When it is not there, or is a directory that holds something.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.query("delete", path)?);
        self.sprite.client().done(&call).await
    }

    /// Removes a file, or a directory with all it holds.
    ///
    /// # Errors
    /// When it is not there, or something in it cannot be removed.
    pub async fn remove_all(&self, path: &str) -> Result<(), Error> {
        let target = self.query("delete", path)?.param("recursive", "true");
        self.sprite
            .client()
            .done(&Call::new(Method::DELETE, target))
            .await
    }

    /// Gives a file or directory another name; a file that has it is replaced.
    ///
    /// # Errors
    /// When it is not there, or the new name is on another file system.
    pub async fn rename(&self, source: &str, dest: &str) -> Result<(), Error> {
        let body = json!({ "source": source, "dest": dest });
        self.sprite.client().done(&self.body("rename", body)?).await
    }

    /// Copies a file. `dest` is the copy's own name.
    ///
    /// # Errors
    /// When it is not there or is a directory.
    pub async fn copy(&self, source: &str, dest: &str) -> Result<FsChanged, Error> {
        let body = json!({ "source": source, "dest": dest });
        self.changed(&self.body("copy", body)?).await
    }

    /// Copies a file, or a directory with all it holds, with owners and times.
    ///
    /// # Errors
    /// When it is not there, or something in it cannot be copied.
    pub async fn copy_all(&self, source: &str, dest: &str) -> Result<FsChanged, Error> {
        let body =
            json!({ "source": source, "dest": dest, "recursive": true, "preserveAttrs": true });
        self.changed(&self.body("copy", body)?).await
    }

    /// Sets the mode of a file or directory.
    ///
    /// # Errors
    /// When it is not there or is somebody else's.
    pub async fn chmod(&self, path: &str, mode: u32) -> Result<FsChanged, Error> {
        let body = json!({ "path": path, "mode": format!("{mode:04o}") });
        self.changed(&self.body("chmod", body)?).await
    }

    /// Sets the mode of a directory and of all it holds, links excepted.
    ///
    /// # Errors
    /// As of [`chmod`](Self::chmod).
    pub async fn chmod_all(&self, path: &str, mode: u32) -> Result<FsChanged, Error> {
        let body = json!({ "path": path, "mode": format!("{mode:04o}"), "recursive": true });
        self.changed(&self.body("chmod", body)?).await
    }

    /// Sets owner and group of a file or directory; only root can.
    ///
    /// # Errors
    /// When it is not there, or the sprite knows no such user or group.
    pub async fn chown(
        &self,
        path: &str,
        user: Option<Owner>,
        group: Option<Owner>,
    ) -> Result<FsChanged, Error> {
        let body = json!({ "path": path, "uid": user, "gid": group });
        self.changed(&self.body("chown", body)?).await
    }

    /// Sets owner and group of a directory and of all it holds; only root can.
    ///
    /// # Errors
    /// As of [`chown`](Self::chown).
    pub async fn chown_all(
        &self,
        path: &str,
        user: Option<Owner>,
        group: Option<Owner>,
    ) -> Result<FsChanged, Error> {
        let body = json!({ "path": path, "uid": user, "gid": group, "recursive": true });
        self.changed(&self.body("chown", body)?).await
    }
}
