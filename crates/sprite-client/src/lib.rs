//! The Rust SDK of sprites.
//!
//! A *sprite* is a small computer that never loses its state: a Linux environment with a disk, reachable by name.
//! This crate makes sprites, lists them and runs commands in them through the public API, so it works with every
//! server that speaks it.
//!
//! ```no_run
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sprite_client::Client;
//!
//! let client = Client::new("http://127.0.0.1:7774", &std::env::var("SPRITE_TOKEN")?)?;
//! let sprite = client.sprite("scratch");
//! let output = sprite.command("sh").args(["-c", "echo hello; exit 3"]).output().await?;
//! assert_eq!(output.stdout, b"hello\n");
//! assert_eq!(output.status.code(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! A terminal, with its size following and a session that can be left and joined again:
//!
//! ```no_run
//! # async fn example(client: sprite_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use sprite_client::TtySize;
//!
//! let sprite = client.sprite("scratch");
//! let child = sprite.command("bash").arg("-l").tty(24, 80).spawn().await?;
//! let session = child.session().expect("the server tells it").id;
//! child.controls().resize(TtySize { rows: 50, cols: 120 }).await?;
//! child.detach().await;
//!
//! let mut again = sprite.attach(session).spawn().await?;
//! let status = again.wait_with_output().await?.status;
//! # Ok(())
//! # }
//! ```
//!
//! What holds everywhere:
//!
//! * The token goes to the server it was given for; redirects are not followed.
//! * A command's exit status is what the server told. A connection that ends early is [`ExecError::Lost`].
//! * A list, an output or a stream that was cut off never looks whole.
//! * A slow reader slows the command down; nothing is dropped and memory stays bounded.
#![warn(missing_docs)]

mod body;
mod checkpoints;
mod client;
mod connect;
mod create;
mod domains;
mod error;
mod exec;
mod fs;
mod list;
mod model;
mod policy;
mod ports;
mod proxy;
mod raw;
mod services;
mod sessions;
mod sprite;
mod tasks;
mod url;
mod usage;

pub use checkpoints::{
    Checkpoint, CheckpointEvent, CheckpointEventKind, CheckpointStream, ListCheckpoints,
};
pub use client::{BuildError, Client, ClientBuilder};
pub use create::{Create, Update};
pub use domains::Domain;
pub use error::{ApiError, Error};
pub use exec::{
    Attach, Child, ChildOutput, ChildStdin, Command, Controls, ExecError, ExitStatus, Kept, Output,
    PostBody, PostExec, PostFrame, SessionInfo, Stdio, TtySize, UrlRequests,
};
pub use fs::{
    Copied, Entries, Entry, EntryKind, FileEvent, FileEventKind, FileNotice, FileReader, FileWatch,
    Fs, FsChanged, Moved, Owner, PullDir, PushDir, TransferError, WatchFiles, WriteFile, Written,
};
pub use list::{Change, List, Page, Pages, Watch};
pub use model::{
    Counts, Health, Organization, SpriteInfo, Status, Timestamp, Upgraded, UrlSettings,
};
pub use policy::{
    CountLimit, MemoryLimit, NetworkPolicy, NetworkPolicyInfo, NetworkRule, PrivilegesPolicy,
    ResourcesPolicy, ResourcesPolicyInfo,
};
pub use ports::{Port, PortChange, PortChanges, Ports};
pub use proxy::{ConnectError, Connection, Forward, Refused};
pub use raw::{RawRequest, RawResponse};
pub use services::{
    PutService, Service, ServiceEvent, ServiceEventKind, ServiceEvents, ServiceState, ServiceStatus,
};
pub use sessions::{Killed, Session, Signal, SignalError};
pub use sprite::Sprite;
pub use sprite_types::{SessionId, WebUrl};
pub use tasks::Task;
pub use url::{ServerUrl, ServerUrlError};
pub use usage::Usage;
