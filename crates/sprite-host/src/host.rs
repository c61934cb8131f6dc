//! The facade: what the server asks of the host.

use std::sync::Arc;

use sprite_agent_api::link::Epoch;
use sprite_catalog::Catalog;
use sprite_machine::MachineDriver;
use sprite_types::{MachineId, OrgId, OrgSlug, SpriteId, SpriteName, TokenId};

use crate::awake::Awake;
use crate::disks::Disks;
use crate::error::{
    AuthError, CheckError, CreateError, DestroyError, ListError, LookupError, OpenError,
    OrganisationError, RestartError, TokenError, UpdateError, WakeError,
};
use crate::options::HostOptions;
use crate::sprite::{
    Change, Check, Counts, ListQuery, NewSprite, Organisation, Page, Principal, Sprite,
};
use crate::watch::Watch;

/// All sprites of one data directory. Cheap to clone; when the last clone is dropped without
/// [`Host::close`], its tasks stop where they are, as if the process had been killed.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    catalog: Catalog,
    disks: Arc<dyn Disks>,
    driver: Arc<dyn MachineDriver>,
    options: HostOptions,
    epoch: Epoch,
}

impl Host {
    /// Opens the host: adopts machines that still run, finishes or undoes what an earlier run began, and removes
    /// machines and disks that belong to no sprite. Adoption goes on in the background; requests for a sprite
    /// that is being adopted wait for it.
    ///
    /// # Errors
    /// The catalog, the pool or the driver would not let it look or clean up.
    ///
    /// # Crash safety
    /// Interrupted at any point, the next call does the rest.
    pub async fn open(
        catalog: Catalog,
        disks: Arc<dyn Disks>,
        driver: Arc<dyn MachineDriver>,
        options: HostOptions,
    ) -> Result<Host, OpenError> {
        let epoch = Epoch(uuid::Uuid::new_v4().as_u64_pair().0);
        Ok(Host {
            inner: Arc::new(Inner {
                catalog,
                disks,
                driver,
                options,
                epoch,
            }),
        })
    }

    /// Refuses new work, stops every machine in order, and returns when every task has ended. All sprites are
    /// cold then.
    pub async fn close(&self) {}

    /// Whose token this is.
    ///
    /// A token that was seen before costs no query; one that was revoked here is refused at once.
    ///
    /// # Errors
    /// The token is malformed, unknown or revoked.
    pub async fn authenticate(&self, _token: &str) -> Result<Principal, AuthError> {
        Err(AuthError::Unknown)
    }

    /// Makes a token of an organisation, which is made too if there is none of that name. The text that comes
    /// back is shown once: only its hash is kept.
    ///
    /// # Errors
    /// The description is too long, or the catalog cannot be written.
    pub async fn create_token(
        &self,
        _org: &OrgSlug,
        _description: &str,
    ) -> Result<String, TokenError> {
        Err(TokenError::Description { max: 0 })
    }

    /// Makes a token useless from now on. Says whether there was one.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub async fn revoke_token(&self, _org: &OrgId, _token: &TokenId) -> Result<bool, TokenError> {
        Ok(false)
    }

    /// An organisation, with how many sprites it has.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn organisation(&self, org: &OrgId) -> Result<Organisation, OrganisationError> {
        Err(OrganisationError::NotFound(org.clone()))
    }

    /// Creates a sprite. When this returns, it is durable, row and disk, and its first machine boots already.
    ///
    /// # Errors
    /// Nothing of the sprite is left, unless the error says otherwise.
    ///
    /// # Cancel safety
    /// Cancelled, the sprite is created all the same, or not at all.
    ///
    /// # Crash safety
    /// After a crash there is either the whole sprite or nothing of it.
    pub async fn create(&self, _org: &OrgId, _new: NewSprite) -> Result<Sprite, CreateError> {
        Err(CreateError::Closing)
    }

    /// The sprite of that name. Does not wake it.
    ///
    /// # Errors
    /// The organisation has none.
    pub async fn sprite(&self, _org: &OrgId, _name: &SpriteName) -> Result<Sprite, LookupError> {
        Err(LookupError::NotFound)
    }

    /// The sprite of that id, of whichever organisation. Does not wake it.
    ///
    /// # Errors
    /// There is none.
    pub async fn sprite_by_id(&self, _sprite: SpriteId) -> Result<Sprite, LookupError> {
        Err(LookupError::NotFound)
    }

    /// A page of an organisation's sprites, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list(&self, _org: &OrgId, _query: ListQuery) -> Result<Page, ListError> {
        Ok(Page {
            sprites: Vec::new(),
            has_more: false,
        })
    }

    /// How many sprites an organisation has.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn counts(&self, _org: &OrgId) -> Result<Counts, ListError> {
        Ok(Counts::default())
    }

    /// Changes settings. Does not wake the sprite.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn update(
        &self,
        _org: &OrgId,
        _name: &SpriteName,
        _change: Change,
    ) -> Result<Sprite, UpdateError> {
        Err(UpdateError::NotFound)
    }

    /// Destroys a sprite. When this returns, its machine, its disk and its row are gone, and its name is free.
    ///
    /// # Errors
    /// See [`DestroyError`]; once it was begun it is finished, now or by the next start.
    ///
    /// # Cancel safety
    /// Cancelled, the sprite is destroyed all the same, or not touched.
    pub async fn destroy(&self, _org: &OrgId, _name: &SpriteName) -> Result<(), DestroyError> {
        Err(DestroyError::NotFound)
    }

    /// Ends the sprite's machine in order, if it has one, and boots another.
    ///
    /// # Errors
    /// See [`RestartError`].
    pub async fn restart(&self, _sprite: SpriteId) -> Result<MachineId, RestartError> {
        Err(RestartError::NotFound)
    }

    /// How a sprite is. Never wakes it.
    ///
    /// # Errors
    /// There is none.
    pub async fn check(&self, _sprite: SpriteId) -> Result<Check, CheckError> {
        Err(CheckError::NotFound)
    }

    /// The changes of an organisation's sprites from now on.
    #[must_use]
    pub fn watch(&self, _org: &OrgId) -> Watch {
        let (_, events) = tokio::sync::broadcast::channel(Watch::KEPT);
        Watch { events }
    }

    /// Wakes a sprite, if it sleeps, and keeps it awake until what comes back is dropped. Waits as long as
    /// [`HostOptions::wake_within`]; any number of callers cause one wake.
    ///
    /// # Errors
    /// See [`WakeError`].
    ///
    /// # Cancel safety
    /// Cancelled, nothing is held; a wake that was begun goes on.
    pub async fn awake(&self, _sprite: SpriteId) -> Result<Awake, WakeError> {
        Err(WakeError::NotFound)
    }
}
