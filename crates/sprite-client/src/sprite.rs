//! A handle on one sprite.

use std::io;

use hyper::Method;
use sprite_types::SessionId;
use tokio::net::ToSocketAddrs;

use crate::client::{Call, Client};
use crate::create::Update;
use crate::error::Error;
use crate::exec::{Attach, Command};
use crate::model::{Health, SpriteInfo, Upgraded};
use crate::ports::Ports;
use crate::proxy::{self, ConnectError, Connection, Forward};
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

    /// Brings the sprite to the server's agent and kernel: restarts it if it has older ones, which `restarted` says.
    ///
    /// # Errors
    /// When there is no such sprite or it does not come back.
    pub async fn upgrade(&self) -> Result<Upgraded, Error> {
        let call = Call::new(Method::POST, self.target()?.path("/upgrade"));
        self.client.json(&call).await
    }

    /// Puts the sprite to sleep now, whoever is connected: sessions and connections stand still with it, stay open,
    /// and wake it with the first byte. Waits a few seconds for requests that are under way.
    ///
    /// # Errors
    /// When there is no such sprite, a task or a request keeps it awake, or it cannot fall asleep.
    ///
    /// # Cancel safety
    /// When the future is dropped, the sprite may fall asleep all the same.
    pub async fn sleep(&self) -> Result<(), Error> {
        self.client
            .done(&Call::new(Method::POST, self.target()?.path("/sleep")))
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

    /// Connects to a TCP port of the sprite. `host` is `localhost` or an address of the sprite itself. The sprite wakes
    /// for it, and stays awake while the connection is open.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), Box<dyn std::error::Error>> {
    /// use tokio::io::{AsyncReadExt, AsyncWriteExt};
    ///
    /// let mut connection = sprite.connect("localhost", 8080).await?;
    /// connection.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    /// connection.shutdown().await?;
    /// let mut answer = String::new();
    /// connection.read_to_string(&mut answer).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ConnectError::Refused`] when nobody listens there.
    ///
    /// # Cancel safety
    /// Dropping the future gives the connection up.
    pub async fn connect(&self, host: &str, port: u16) -> Result<Connection, ConnectError> {
        proxy::connect(self, host, port).await
    }

    /// Listens here and passes every connection on to a port of the sprite, until what is returned is dropped.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> std::io::Result<()> {
    /// let forward = sprite.forward("127.0.0.1:0", "localhost", 5432).await?;
    /// println!("the sprite's database is at {}", forward.local_addr());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the local address cannot be listened on. The sprite is not asked before somebody connects.
    pub async fn forward(
        &self,
        local: impl ToSocketAddrs,
        host: &str,
        port: u16,
    ) -> io::Result<Forward> {
        Forward::start(self.clone(), local, host.to_owned(), port).await
    }

    /// Watches the ports on which the sprite's programs listen. The sprite wakes for it, and may sleep again.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let mut ports = sprite.ports().await?;
    /// println!("{:?}", ports.at_first());
    /// while let Some(change) = ports.next().await? {
    ///     println!("{change:?}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn ports(&self) -> Result<Ports, Error> {
        Ports::open(self).await
    }

    /// Joins a session that runs, or that ended a short while ago, by its id.
    pub fn attach(&self, session: SessionId) -> Attach {
        Attach::new(self.clone(), session)
    }
}
