//! A handle on one sprite.

use hyper::Method;
use sprite_types::SessionId;

use crate::client::{Call, Client};
use crate::create::Update;
use crate::error::Error;
use crate::exec::{Attach, Command};
use crate::model::{Health, SpriteInfo};
use crate::url::Target;

/// A handle on a sprite by its name. It costs nothing, and nothing is sent before an operation is called.
#[derive(Debug, Clone)]
pub struct Sprite {
    client: Client,
    name: String,
}

impl Sprite {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name }
    }

    /// The sprite's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client below this handle.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn target(&self) -> Result<Target, Error> {
        Target::new("/v1/sprites").segment(&self.name)
    }

    /// What the server knows about the sprite. This never wakes it.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn info(&self) -> Result<SpriteInfo, Error> {
        self.client
            .json(&Call::new(Method::GET, self.target()?))
            .await
    }

    /// A change of its settings.
    pub fn update(&self) -> Update {
        Update::new(self.clone())
    }

    /// Destroys the sprite and everything on its disk. There is no way back.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    ///
    /// # Cancel safety
    /// When the future is dropped, the sprite may be destroyed all the same.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.client
            .done(&Call::new(Method::DELETE, self.target()?))
            .await
    }

    /// Ends everything that runs in the sprite and starts it anew. Its disk stays.
    ///
    /// # Errors
    /// When there is no such sprite or it does not come back.
    pub async fn restart(&self) -> Result<(), Error> {
        self.client
            .done(&Call::new(Method::POST, self.target()?.path("/restart")))
            .await
    }

    /// Looks whether the sprite is well.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails; a sprite that is not well is an answer.
    pub async fn check(&self) -> Result<Health, Error> {
        self.client
            .json(&Call::new(Method::GET, self.target()?.path("/check")))
            .await
    }

    /// A command to run in the sprite, as [`std::process::Command`].
    pub fn command(&self, program: impl Into<String>) -> Command {
        Command::new(self.clone(), program.into())
    }

    /// Joins a session that runs, or that ended a short while ago, by its id.
    pub fn attach(&self, session: SessionId) -> Attach {
        Attach::new(self.clone(), session)
    }
}
