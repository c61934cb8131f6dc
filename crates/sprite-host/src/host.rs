//! The facade: what the server asks of the host.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use sprite_catalog::{
    Catalog, Checkpoint, Checkpoints, IfTaken, Policy, Scope, Settings, Sprite, StatusCounts, Task,
};
use sprite_machine::MachineDriver;
use sprite_types::{
    CheckpointId, Label, MachineId, OrgId, OrgSlug, SpriteId, SpriteName, TaskName, TokenId,
};
use tokio::sync::oneshot;

use crate::actor;
use crate::awake::Awake;
use crate::calls::Calls;
use crate::check;
use crate::checkpoints::{self, Restoring};
use crate::create;
use crate::disks::Disks;
use crate::error::{
    AuthError, CheckError, CheckpointError, CreateError, DeleteCheckpointError, DestroyError,
    ListError, LookupError, OpenError, OrganisationError, PolicyError, PutTaskError, RestartError,
    RestoreError, SleepError, TaskError, TokenError, UpdateError, UsageError, WakeError,
};
use crate::options::HostOptions;
use crate::policy::{self, PolicyView};
use crate::recover;
use crate::registry::{Message, Undelivered};
use crate::shared::Shared;
use crate::sprite::{Check, ForkOf, ListQuery, NewSprite, Organisation, Page, Principal};
use crate::tasks;
use crate::tokens;
use crate::upgrade;
use crate::usage::{self, SpriteUsage};
use crate::watch::Watch;

/// All sprites of one data directory. Cheap to clone; when the last clone is dropped without
/// [`Host::close`], its tasks stop where they are, as if the process had been killed.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The tasks hold what they share, so nothing else would end them.
        self.shared.abort();
    }
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
        let shared = Arc::new(Shared::new(catalog, disks, driver, options));
        let host = Self {
            inner: Arc::new(Inner {
                shared: shared.clone(),
            }),
        };
        recover::recover(&shared).await?;
        Ok(host)
    }

    /// Refuses new work, stops every machine in order, and returns when every task has ended. All sprites are
    /// cold then.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.closing.cancel();
        let closing = shared.registry.close().into_iter().map(|mailbox| {
            let (reply, closed) = oneshot::channel();
            async move {
                // Fails if the task has ended already.
                if mailbox.send(Message::Close(reply)).await.is_ok() {
                    let _ = closed.await;
                }
            }
        });
        futures_util::future::join_all(closing).await;
        shared.join().await;
        shared.watchers.close();
    }

    /// Whose token this is.
    ///
    /// A token that was revoked, by this process or another, is refused at once.
    ///
    /// # Errors
    /// The token is malformed, unknown or revoked.
    pub async fn authenticate(&self, token: &str) -> Result<Principal, AuthError> {
        tokens::authenticate(&self.shared().catalog, token).await
    }

    /// Whom the token of that id stands for. Only for callers that know by other means that its secret was shown.
    ///
    /// # Errors
    /// It is unknown or revoked.
    pub async fn holder(&self, token: &TokenId) -> Result<Principal, AuthError> {
        tokens::holder(&self.shared().catalog, token).await
    }

    /// Makes a token of an organisation, which is made too if there is none of that name. The text that comes
    /// back is shown once: only its hash is kept.
    ///
    /// # Errors
    /// The description is too long, or the catalog cannot be written.
    pub async fn create_token(
        &self,
        org: &OrgSlug,
        description: &str,
    ) -> Result<String, TokenError> {
        tokens::create(&self.shared().catalog, org, description).await
    }

    /// Makes a token useless from now on. Says whether there was one.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub async fn revoke_token(&self, org: &OrgId, token: &TokenId) -> Result<bool, TokenError> {
        tokens::revoke(&self.shared().catalog, org, token).await
    }

    /// An organisation, with how many sprites it has.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn organisation(&self, org: &OrgId) -> Result<Organisation, OrganisationError> {
        let shared = self.shared();
        let found = shared.catalog.organisation(org).await?;
        let found = found.ok_or_else(|| OrganisationError::NotFound(org.clone()))?;
        Ok(Organisation {
            id: found.id,
            slug: found.slug,
            counts: shared.catalog.counts(org, Scope::Organisation).await?,
            max_sprites: shared.options.max_sprites,
        })
    }

    /// Creates a sprite, or [forks](NewSprite::from) one. When this returns, it is durable, row and disk, and its first machine boots already. What a
    /// [sprite makes](NewSprite::made_by) is no larger than itself, begins under its policies, and is not given
    /// [`api_access`](NewSprite::api_access).
    ///
    /// # Errors
    /// Nothing of the sprite is left, unless the error says otherwise.
    ///
    /// # Cancel safety
    /// Cancelled, the sprite is created all the same, or not at all.
    ///
    /// # Crash safety
    /// After a crash there is either the whole sprite or nothing of it.
    pub async fn create(&self, org: &OrgId, new: NewSprite) -> Result<Sprite, CreateError> {
        let from = new.from;
        let new = create::check(self.shared(), org, new).await?;
        // Held until it is cloned.
        let _awake = match from {
            Some(ForkOf {
                sprite,
                checkpoint: None,
            }) => checkpoints::write_out(self.shared(), sprite)
                .await
                .map_err(CreateError::WriteOut)?,
            Some(_) | None => None,
        };
        let (reply, created) = oneshot::channel();
        match actor::create(self.shared(), new, from, reply) {
            Ok(()) => created.await.unwrap_or(Err(CreateError::Closing)),
            Err(Undelivered::Busy | Undelivered::Closing) => Err(CreateError::Closing),
        }
    }

    /// The sprite of that name. Does not wake it.
    ///
    /// # Errors
    /// The organisation has none.
    pub async fn sprite(&self, org: &OrgId, name: &SpriteName) -> Result<Sprite, LookupError> {
        self.shared()
            .catalog
            .sprite_named(org, name)
            .await?
            .ok_or(LookupError::NotFound)
    }

    /// The sprite of that id, of whichever organisation. Does not wake it.
    ///
    /// # Errors
    /// There is none.
    pub async fn sprite_by_id(&self, sprite: SpriteId) -> Result<Sprite, LookupError> {
        self.shared()
            .catalog
            .sprite(sprite)
            .await?
            .ok_or(LookupError::NotFound)
    }

    /// A page of an organisation's sprites, in the order of their names.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn list(&self, org: &OrgId, query: ListQuery) -> Result<Page, ListError> {
        let limit = query.limit.min(ListQuery::MOST);
        let (prefix, after) = (
            query.prefix.unwrap_or_default(),
            query.after.unwrap_or_default(),
        );
        // One more than is given tells whether there are more.
        let mut sprites = self
            .shared()
            .catalog
            .sprites(org, query.scope, &prefix, &after, limit + 1)
            .await?;
        let has_more = sprites.len() > limit as usize;
        sprites.truncate(limit as usize);
        Ok(Page { sprites, has_more })
    }

    /// How many sprites an organisation, or a scope of it, has.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn counts(&self, org: &OrgId, scope: Scope) -> Result<StatusCounts, ListError> {
        Ok(self.shared().catalog.counts(org, scope).await?)
    }

    /// How many sprites all organisations have. Walks over them: some milliseconds with 100,000.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn all_counts(&self) -> Result<StatusCounts, ListError> {
        Ok(self.shared().catalog.all_counts().await?)
    }

    /// Adds what the host counts of itself to what monitoring is told.
    pub fn register_metrics(&self, registry: &mut Registry) {
        self.shared().metrics.register(registry);
    }

    /// Changes settings. Does not wake the sprite.
    ///
    /// # Errors
    /// Nothing was changed.
    pub async fn update(&self, sprite: SpriteId, change: Settings) -> Result<Sprite, UpdateError> {
        if let Some(labels) = &change.labels
            && labels.len() > Label::MOST
        {
            return Err(UpdateError::Labels {
                count: labels.len(),
            });
        }
        let shared = self.shared();
        let updated = shared
            .catalog
            .update_sprite(sprite, &change, shared.time())
            .await?;
        let sprite = updated.ok_or(UpdateError::NotFound)?;
        let message = Message::Idleness(sprite.updated_at, sprite.idleness);
        // A mailbox that is full is a sprite in use: it reads the row when it wakes the next time.
        let _ = shared.registry.send_if_active(sprite.id, message);
        shared.watchers.changed(sprite.clone());
        Ok(sprite)
    }

    /// Destroys a sprite. When this returns, its machine, its disk and its row are gone, and its name is free.
    ///
    /// # Errors
    /// See [`DestroyError`]; once it was begun it is finished, now or by the next start.
    ///
    /// # Cancel safety
    /// Cancelled, the sprite is destroyed all the same, or not touched.
    pub async fn destroy(&self, sprite: SpriteId) -> Result<(), DestroyError> {
        let (reply, destroyed) = oneshot::channel();
        match actor::send(self.shared(), sprite, Message::Destroy(reply)) {
            Ok(()) => destroyed.await.unwrap_or(Err(DestroyError::Closing)),
            Err(Undelivered::Busy) => Err(DestroyError::Busy),
            Err(Undelivered::Closing) => Err(DestroyError::Closing),
        }
    }

    /// Ends the sprite's machine in order, if it has one, and boots another.
    ///
    /// # Errors
    /// See [`RestartError`].
    pub async fn restart(&self, sprite: SpriteId) -> Result<MachineId, RestartError> {
        let (reply, restarted) = oneshot::channel();
        match actor::send(self.shared(), sprite, Message::Restart(reply)) {
            Ok(()) => restarted.await.unwrap_or(Err(RestartError::Closing)),
            Err(Undelivered::Busy) => Err(RestartError::Busy),
            Err(Undelivered::Closing) => Err(RestartError::Closing),
        }
    }

    /// Brings a sprite to the agent and the kernel of this server: restarts it if its machine, or its memory, has
    /// others. Says whether that was so. A sprite without memory has them when it boots.
    ///
    /// # Errors
    /// See [`RestartError`].
    pub async fn upgrade(&self, sprite: SpriteId) -> Result<bool, RestartError> {
        upgrade::upgrade(self, sprite).await
    }

    /// Keeps the state of a sprite's disk, running or not, as a checkpoint. Stops nothing and wakes nothing. What was
    /// written before it began is in it.
    ///
    /// # Errors
    /// There is no checkpoint, unless the error says otherwise.
    ///
    /// # Cancel safety
    /// Cancelled, it is made all the same.
    ///
    /// # Crash safety
    /// After a crash it is there complete or not at all.
    pub async fn checkpoint(
        &self,
        sprite: SpriteId,
        comment: String,
    ) -> Result<Checkpoint, CheckpointError> {
        checkpoints::create(self.shared(), sprite, comment).await
    }

    /// The checkpoints of a sprite. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn checkpoints(&self, sprite: SpriteId) -> Result<Checkpoints, LookupError> {
        checkpoints::list(self.shared(), sprite).await
    }

    /// Deletes a checkpoint. Does not wake the sprite.
    ///
    /// # Errors
    /// See [`DeleteCheckpointError`].
    pub async fn delete_checkpoint(
        &self,
        sprite: SpriteId,
        id: CheckpointId,
    ) -> Result<(), DeleteCheckpointError> {
        checkpoints::delete(self.shared(), sprite, id).await
    }

    /// Begins to bring a sprite back to a checkpoint: its machine is ended in order, the state of its disk kept as an
    /// automatic checkpoint, and a machine booted with that of the checkpoint. Memory of a sprite that sleeps is gone.
    ///
    /// # Errors
    /// See [`RestoreError`].
    ///
    /// # Cancel safety
    /// Cancelled, the restore goes on.
    ///
    /// # Crash safety
    /// Once announced it is carried out, by this process or the next.
    pub async fn restore(
        &self,
        sprite: SpriteId,
        to: CheckpointId,
    ) -> Result<Restoring, RestoreError> {
        checkpoints::restore(self.shared(), sprite, to).await
    }

    /// How a sprite is. Never wakes it.
    ///
    /// # Errors
    /// There is none.
    pub async fn check(&self, sprite: SpriteId) -> Result<Check, CheckError> {
        check::check(self.shared(), sprite).await
    }

    /// What a sprite has used until now, and what it takes of the pool. Never wakes it.
    ///
    /// # Errors
    /// See [`UsageError`].
    pub async fn usage(&self, sprite: &Sprite) -> Result<SpriteUsage, UsageError> {
        usage::show(self.shared(), sprite).await
    }

    /// The policies of a sprite, and what holds of its limits now. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn policies(&self, sprite: &Sprite) -> Result<PolicyView, LookupError> {
        policy::show(self.shared(), sprite).await
    }

    /// Stores a policy of a sprite and puts it in force, on a machine that runs too; does not wake it. When this
    /// returns, whatever the sprite does is under it.
    ///
    /// # Errors
    /// See [`PolicyError`].
    ///
    /// # Cancel safety
    /// Cancelled, it is stored and put in force all the same, or nothing is changed.
    ///
    /// # Crash safety
    /// After a crash either nothing has changed, or the next start puts it in force before anything else.
    pub async fn set_policy(&self, sprite: &Sprite, policy: Policy) -> Result<(), PolicyError> {
        policy::set(self.shared(), sprite, policy).await
    }

    /// The changes of an organisation's sprites from now on.
    #[must_use]
    pub fn watch(&self, org: &OrgId) -> Watch {
        self.shared().watchers.watch(org)
    }

    /// Wakes a sprite, if it sleeps, and keeps it awake until what comes back is dropped. Waits as long as
    /// [`HostOptions::wake_within`]; any number of callers cause one wake.
    ///
    /// # Errors
    /// See [`WakeError`].
    ///
    /// # Cancel safety
    /// Cancelled, nothing is held; a wake that was begun goes on.
    pub async fn awake(&self, sprite: SpriteId) -> Result<Awake, WakeError> {
        awake(self.shared(), sprite).await
    }

    /// Puts a sprite to sleep, whoever is connected to it: connections stand still, and what comes on one of them
    /// wakes it again. Waits for calls in flight, at most `within`. One that sleeps sleeps on.
    ///
    /// # Errors
    /// See [`SleepError`].
    ///
    /// # Cancel safety
    /// Cancelled, it may fall asleep all the same.
    pub async fn sleep(&self, sprite: SpriteId, within: Duration) -> Result<(), SleepError> {
        let shared = self.shared();
        let until = shared.now().after(within);
        let (reply, asleep) = oneshot::channel();
        match actor::send(shared, sprite, Message::Sleep(reply, until)) {
            Ok(()) => asleep.await.unwrap_or(Err(SleepError::Closing)),
            Err(Undelivered::Busy) => Err(SleepError::Busy),
            Err(Undelivered::Closing) => Err(SleepError::Closing),
        }
    }

    /// The sprite's own tasks, in the order of their names. Does not wake it.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn tasks(&self, sprite: SpriteId) -> Result<Vec<Task>, TaskError> {
        tasks::list(self.shared(), sprite).await
    }

    /// The sprite's task of that name. Does not wake it.
    ///
    /// # Errors
    /// There is none, or it has expired.
    pub async fn task(&self, sprite: SpriteId, name: &TaskName) -> Result<Task, TaskError> {
        tasks::find(self.shared(), sprite, name).await
    }

    /// Wakes the sprite, and keeps it awake for `expire` from now, at most [`LONGEST_TASK`](crate::LONGEST_TASK), or
    /// until the task is deleted. Survives a restart of this process.
    ///
    /// # Errors
    /// See [`PutTaskError`]; nothing was recorded.
    ///
    /// # Cancel safety
    /// Cancelled, the task is recorded all the same, or not at all.
    pub async fn put_task(
        &self,
        sprite: SpriteId,
        name: TaskName,
        expire: Duration,
        if_taken: IfTaken,
    ) -> Result<Task, PutTaskError> {
        tasks::put(self.shared(), sprite, name, expire, if_taken).await
    }

    /// Ends a task. Does not wake the sprite.
    ///
    /// # Errors
    /// There is none of that name, or it has expired.
    pub async fn delete_task(&self, sprite: SpriteId, name: &TaskName) -> Result<(), TaskError> {
        tasks::delete(self.shared(), sprite, name).await
    }

    /// The connections that processes of sprites make to their environments' own socket. `None` for every caller
    /// but the first.
    #[must_use]
    pub fn calls(&self) -> Option<Calls> {
        let incoming = self.shared().incoming_calls.lock();
        incoming.unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How many sprites have a task now: those that run, sleep with their memory kept, or are on their way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared().registry.active()
    }

    /// Stops where it is, as a killed process would, and returns when nothing of it runs any more. For tests of
    /// what the next [`Host::open`] makes of it.
    pub async fn kill(self) {
        self.shared().kill().await;
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }
}

/// Wakes a sprite, and holds it; see [`Host::awake`].
pub(crate) async fn awake(shared: &Arc<Shared>, sprite: SpriteId) -> Result<Awake, WakeError> {
    let (reply, awake) = oneshot::channel();
    match actor::send(shared, sprite, Message::Wake(reply)) {
        Ok(()) => {}
        Err(Undelivered::Busy) => return Err(WakeError::Busy),
        Err(Undelivered::Closing) => return Err(WakeError::Closing),
    }
    let within = shared.options.wake_within;
    match tokio::time::timeout(within, awake).await {
        Ok(answer) => answer.unwrap_or(Err(WakeError::Closing)),
        Err(_) => Err(WakeError::Starting { within }),
    }
}
