//! A whole host on fakes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sprite_host::{Catalog, Host, HostOptions, NewSprite, OpenError, Principal, Sprite};
use tempfile::TempDir;

use crate::disks::FakeDisks;
use crate::driver::FakeDriver;

/// A host on fakes, in a directory of its own. [`TestHost::reopen`] is a restart of the process.
pub struct TestHost {
    /// The host.
    pub host: Host,
    /// Its driver, which outlives it.
    pub driver: Arc<FakeDriver>,
    /// Its disks, which outlive it.
    pub disks: Arc<FakeDisks>,
    /// A principal of the organisation `personal`.
    pub principal: Principal,
    /// The text of that principal's token.
    pub token: String,
    dir: TempDir,
}

impl TestHost {
    /// The options of tests: two CPUs, no sleep, and deadlines that a test can wait for.
    #[must_use]
    pub fn options() -> HostOptions {
        HostOptions {
            boot_within: Duration::from_secs(5),
            stop_within: Duration::from_secs(1),
            sync_within: Duration::from_secs(1),
            ..HostOptions::new(2, "base")
        }
    }

    /// A host with [`TestHost::options`].
    ///
    /// # Panics
    /// It cannot be opened.
    pub async fn new() -> Self {
        Self::with(Self::options()).await
    }

    /// A host with these options.
    ///
    /// # Panics
    /// It cannot be opened.
    pub async fn with(options: HostOptions) -> Self {
        let dir = tempfile::tempdir_in(quick()).expect("make a data directory");
        let (driver, disks) = (
            Arc::new(FakeDriver::default()),
            Arc::new(FakeDisks::default()),
        );
        let host = open(&dir, &driver, &disks, options)
            .await
            .expect("open a new host");
        let slug = "personal".parse().expect("a legal slug");
        let token = host
            .create_token(&slug, "test")
            .await
            .expect("make a token");
        let principal = host.authenticate(&token).await.expect("use the token");
        Self {
            host,
            driver,
            disks,
            principal,
            token,
            dir,
        }
    }

    /// Opens a host on what is there, in place of the one that there is, which is killed.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub async fn reopen(&mut self, options: HostOptions) -> Result<(), OpenError> {
        self.host.clone().kill().await;
        self.host = open(&self.dir, &self.driver, &self.disks, options).await?;
        Ok(())
    }

    /// A second host on what is there. For a host that is killed while it opens.
    ///
    /// # Errors
    /// As [`Host::open`].
    pub async fn open_another(&self, options: HostOptions) -> Result<Host, OpenError> {
        open(&self.dir, &self.driver, &self.disks, options).await
    }

    /// The catalog's file, for tests that do to it what a full disk or a person would.
    #[must_use]
    pub fn catalog_file(&self) -> PathBuf {
        self.dir.path().join("catalog.db")
    }

    /// Creates a sprite of that name with every setting at its default.
    ///
    /// # Panics
    /// It cannot be created.
    pub async fn create(&self, name: &str) -> Sprite {
        let new = NewSprite::named(name.parse().expect("a legal name"));
        self.host
            .create(&self.principal.org, new)
            .await
            .expect("create a sprite")
    }
}

/// Where files of tests are that need not outlive a power cut: in memory, where there is such a place.
#[must_use]
pub fn quick() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let writable = tempfile::tempfile_in(&memory).is_ok();
    if writable {
        memory
    } else {
        std::env::temp_dir()
    }
}

async fn open(
    dir: &TempDir,
    driver: &Arc<FakeDriver>,
    disks: &Arc<FakeDisks>,
    options: HostOptions,
) -> Result<Host, OpenError> {
    let catalog = Catalog::open(&dir.path().join("catalog.db")).await?;
    Host::open(catalog, disks.clone(), driver.clone(), options).await
}
