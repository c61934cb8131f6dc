//! Making a sprite, and changing its settings.

use std::collections::BTreeMap;

use hyper::Method;
use serde::Serialize;

use crate::client::{Call, Client};
use crate::error::Error;
use crate::model::{SpriteInfo, UrlSettings};
use crate::sprite::Sprite;
use crate::url::Target;

#[derive(Debug, Clone, Default, Serialize)]
struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ram_mb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_gb: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_access: Option<bool>,
}

#[derive(Debug, Clone, Serialize)]
struct ForkOf {
    sprite: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
struct CreateBody {
    name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url_settings: Option<UrlSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    environment: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<ForkOf>,
}

/// A sprite that is to be made; [`send`](Self::send) makes it.
#[derive(Debug, Clone)]
#[must_use = "nothing is made before `send`"]
pub struct Create {
    client: Client,
    body: CreateBody,
}

impl Create {
    /// Adds a label.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.body.labels.push(label.into());
        self
    }

    /// Adds a variable to the environment of everything that runs in the sprite.
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.body.environment.insert(key.into(), value.into());
        self
    }

    /// Who may open the sprite's URL.
    pub fn url_settings(mut self, settings: UrlSettings) -> Self {
        self.body.url_settings = Some(settings);
        self
    }

    /// How many CPUs it may use at most.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.body.config.get_or_insert_default().cpus = Some(cpus);
        self
    }

    /// How much memory it may use at most, in MiB.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.body.config.get_or_insert_default().ram_mb = Some(memory_mib);
        self
    }

    /// The size of its disk in GB.
    pub fn storage_gb(mut self, storage_gb: u32) -> Self {
        self.body.config.get_or_insert_default().storage_gb = Some(storage_gb);
        self
    }

    /// Whether programs in it may make sprites of their own, which they alone see; see
    /// [`Update::api_access`].
    pub fn api_access(mut self, allowed: bool) -> Self {
        self.body.config.get_or_insert_default().api_access = Some(allowed);
        self
    }

    /// Makes it a fork of `sprite`, with its disk as it is now; see [`Sprite::fork`].
    pub fn fork_of(mut self, sprite: impl Into<String>) -> Self {
        self.body.from = Some(ForkOf {
            sprite: sprite.into(),
            checkpoint: None,
        });
        self
    }

    /// Makes it a fork of `sprite`, with its disk as it was when the checkpoint `id` was made.
    ///
    /// ```no_run
    /// # async fn example(client: sprite_client::Client) -> Result<(), sprite_client::Error> {
    /// let before = client.sprite("old").create_checkpoint(None).await?.done().await?;
    /// client.create("new").fork_of_checkpoint("old", before).send().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn fork_of_checkpoint(mut self, sprite: impl Into<String>, id: impl Into<String>) -> Self {
        self.body.from = Some(ForkOf {
            sprite: sprite.into(),
            checkpoint: Some(id.into()),
        });
        self
    }

    /// How long the sprite runs on that nobody uses: a duration such as `30s`, `never`, or `server`, as the server says.
    pub fn idle_timeout(mut self, timeout: impl Into<String>) -> Self {
        self.body.config.get_or_insert_default().idle_timeout = Some(timeout.into());
        self
    }

    /// Which connections to the sprite's ports keep it awake: `open`, every one that is open, or `traffic`, only bytes
    /// that go over one.
    pub fn connections(mut self, which: impl Into<String>) -> Self {
        self.body.config.get_or_insert_default().connections = Some(which.into());
        self
    }

    /// Makes the sprite.
    ///
    /// # Errors
    /// A name that is taken is refused with status 409 and code `name_taken`. [`Error::is_not_found`] when there is
    /// nothing of that name to fork.
    ///
    /// # Cancel safety
    /// When the future is dropped, the sprite may have been made all the same.
    pub async fn send(self) -> Result<SpriteInfo, Error> {
        let call = Call::new(Method::POST, Target::new("/v1/sprites")).json(&self.body);
        self.client.json(&call).await
    }
}

impl Client {
    /// A sprite called `name` that is to be made.
    pub fn create(&self, name: impl Into<String>) -> Create {
        let body = CreateBody {
            name: name.into(),
            labels: Vec::new(),
            url_settings: None,
            config: None,
            environment: BTreeMap::new(),
            from: None,
        };
        Create {
            client: self.clone(),
            body,
        }
    }
}

impl Sprite {
    /// Another sprite, called `name`, that is to be made with this one's disk as it is now.
    ///
    /// Everything that was written before is in it. This one runs on, or sleeps on. The new one has its environment
    /// variables, services and policies too, and its sizes where nothing else is asked for.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// sprite.fork("experiment").label("experiment").send().await?;
    /// let other = sprite.client().sprite("experiment");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fork(&self, name: impl Into<String>) -> Create {
        self.client().create(name).fork_of(self.name())
    }
}

#[derive(Debug, Clone, Default, Serialize)]
struct UpdateBody {
    #[serde(skip_serializing_if = "Option::is_none")]
    url_settings: Option<UrlSettings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    clear_labels: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
}

/// A change of a sprite's settings; what is not named stays. [`send`](Self::send) makes it.
#[derive(Debug, Clone)]
#[must_use = "nothing is changed before `send`"]
pub struct Update {
    sprite: Sprite,
    body: UpdateBody,
}

impl Update {
    pub(crate) fn new(sprite: Sprite) -> Self {
        Self {
            sprite,
            body: UpdateBody::default(),
        }
    }

    /// Replaces the labels by these; none at all removes every label.
    pub fn labels(mut self, labels: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let labels: Vec<String> = labels.into_iter().map(Into::into).collect();
        // An empty list may be read as "not named"; the API has a key of its own for it.
        self.body.clear_labels = labels.is_empty();
        self.body.labels = (!labels.is_empty()).then_some(labels);
        self
    }

    /// Who may open the sprite's URL.
    pub fn url_settings(mut self, settings: UrlSettings) -> Self {
        self.body.url_settings = Some(settings);
        self
    }

    /// Whether programs in the sprite may make sprites of their own, through its socket `/.sprite/api.sock`. They see
    /// and touch those alone. Switched off, it holds at once, for connections that there are too.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let info = sprite.update().api_access(true).send().await?;
    /// assert_eq!(info.other["config"]["api_access"], true);
    /// # Ok(())
    /// # }
    /// ```
    pub fn api_access(mut self, allowed: bool) -> Self {
        self.body.config.get_or_insert_default().api_access = Some(allowed);
        self
    }

    /// How long the sprite runs on that nobody uses: a duration such as `30s`, `never`, or `server`, as the server says.
    pub fn idle_timeout(mut self, timeout: impl Into<String>) -> Self {
        self.body.config.get_or_insert_default().idle_timeout = Some(timeout.into());
        self
    }

    /// Which connections to the sprite's ports keep it awake: `open`, every one that is open, or `traffic`, only bytes
    /// that go over one.
    pub fn connections(mut self, which: impl Into<String>) -> Self {
        self.body.config.get_or_insert_default().connections = Some(which.into());
        self
    }

    /// Makes the change.
    ///
    /// # Errors
    /// When there is no such sprite or the server refuses a setting.
    pub async fn send(self) -> Result<SpriteInfo, Error> {
        let call = Call::new(Method::PUT, self.sprite.target()?).json(&self.body);
        self.sprite.client().json(&call).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fork_says_of_what_and_a_create_does_not() {
        let client = Client::new("http://127.0.0.1:1", "org/orgid/tokid/secret").expect("usable");
        let plain = client.create("new");
        let now = client.sprite("old").fork("new").label("x");
        let then = client.create("new").fork_of_checkpoint("old", "v1");
        for (create, body) in [
            (plain, json!({"name": "new"})),
            (
                now,
                json!({"name": "new", "labels": ["x"], "from": {"sprite": "old"}}),
            ),
            (
                then,
                json!({"name": "new", "from": {"sprite": "old", "checkpoint": "v1"}}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&create.body).expect("JSON"), body);
        }
    }
}
