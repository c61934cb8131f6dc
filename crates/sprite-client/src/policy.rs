//! Policies: what a sprite may.

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Call;
use crate::error::Error;
use crate::sprite::Sprite;
use crate::url::Target;

/// To where a sprite may connect. No rules: to everywhere.
///
/// ```no_run
/// # async fn example(client: sprite_client::Client) -> Result<(), sprite_client::Error> {
/// use sprite_client::{NetworkPolicy, NetworkRule};
///
/// let sprite = client.sprite("scratch");
/// let rules = vec![NetworkRule::include("defaults"), NetworkRule::deny("*")];
/// sprite.set_network_policy(&NetworkPolicy { rules }).await?;
/// let now = sprite.network_policy().await?;
/// assert_eq!(now.enforcement.as_deref(), Some("closed"));
/// sprite.set_network_policy(&NetworkPolicy::open()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// At most 256.
    pub rules: Vec<NetworkRule>,
}

impl NetworkPolicy {
    /// No rules.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }
}

/// One rule: about names, or a list of rules that has a name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRule {
    /// `example.org`, `*.example.org` or `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// `allow` or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// The name of a list of rules, such as `defaults`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
}

impl NetworkRule {
    /// Names that are allowed.
    #[must_use]
    pub fn allow(domain: impl Into<String>) -> Self {
        Self::about(domain.into(), "allow")
    }

    /// Names that are not.
    #[must_use]
    pub fn deny(domain: impl Into<String>) -> Self {
        Self::about(domain.into(), "deny")
    }

    /// A list of rules that has a name.
    #[must_use]
    pub fn include(name: impl Into<String>) -> Self {
        Self {
            include: Some(name.into()),
            ..Self::default()
        }
    }

    fn about(domain: String, action: &str) -> Self {
        Self {
            domain: Some(domain),
            action: Some(action.to_owned()),
            include: None,
        }
    }
}

/// A network policy as the server shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicyInfo {
    /// As they were stored.
    #[serde(default)]
    pub rules: Vec<NetworkRule>,
    /// What holds: `open` or `closed`; `None` if the server does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<String>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What sessions may become that start from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivilegesPolicy {
    /// `minimal`, `standard` or `privileged`; empty: as `standard`.
    #[serde(default)]
    pub profile: String,
    /// Devices that must be there.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Whether no program gets more than the one that started it, so that `sudo` does not work.
    #[serde(default, rename = "noNewPrivileges")]
    pub no_new_privileges: bool,
}

/// How much of its host a sprite may use, where that is not what it was created with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesPolicy {
    /// Of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryLimit>,
    /// Of CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CountLimit>,
    /// Of processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<CountLimit>,
}

/// A limit of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryLimit {
    /// In MiB, 128 to 1,048,576.
    pub limit_mb: u32,
    /// Whether use may grow and shrink below the limit.
    #[serde(default)]
    pub autoscale: bool,
}

/// A limit of whole things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountLimit {
    /// How many at once.
    pub limit: u32,
}

/// A resources policy as the server shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourcesPolicyInfo {
    /// As it was stored.
    #[serde(flatten)]
    pub policy: ResourcesPolicy,
    /// Which limits take effect only when the sprite's next machine boots.
    #[serde(default)]
    pub pending: Vec<String>,
    /// What the machine that runs may use now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<Value>,
}

impl Sprite {
    fn policy(&self, kind: &str) -> Result<Target, Error> {
        Ok(self.target()?.path("/policy/").path(kind))
    }

    async fn set_policy(&self, kind: &str, policy: &impl Serialize) -> Result<(), Error> {
        let call = Call::new(Method::POST, self.policy(kind)?).json(policy);
        self.client().done(&call).await
    }

    async fn delete_policy(&self, kind: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.policy(kind)?);
        self.client().done(&call).await
    }

    async fn get_policy<T: serde::de::DeserializeOwned>(&self, kind: &str) -> Result<T, Error> {
        let call = Call::new(Method::GET, self.policy(kind)?);
        self.client().json(&call).await
    }

    /// To where the sprite may connect. This never wakes it.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn network_policy(&self) -> Result<NetworkPolicyInfo, Error> {
        self.get_policy("network").await
    }

    /// Replaces the network policy. When this returns, it holds, also for connections that there are.
    ///
    /// # Errors
    /// A rule that is wrong is refused with status 400, and nothing is changed.
    ///
    /// # Cancel safety
    /// When the future is dropped, the policy may have been replaced all the same.
    pub async fn set_network_policy(&self, policy: &NetworkPolicy) -> Result<(), Error> {
        self.set_policy("network", policy).await
    }

    /// What sessions may become.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn privileges_policy(&self) -> Result<PrivilegesPolicy, Error> {
        self.get_policy("privileges").await
    }

    /// Replaces the privileges policy. It holds for sessions that start after this returns.
    ///
    /// # Errors
    /// What the sprite's driver cannot give is refused with status 501, and nothing is changed.
    pub async fn set_privileges_policy(&self, policy: &PrivilegesPolicy) -> Result<(), Error> {
        self.set_policy("privileges", policy).await
    }

    /// Makes the privileges policy the default again.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn delete_privileges_policy(&self) -> Result<(), Error> {
        self.delete_policy("privileges").await
    }

    /// How much of its host the sprite may use, and what of it waits for the next boot.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn resources_policy(&self) -> Result<ResourcesPolicyInfo, Error> {
        self.get_policy("resources").await
    }

    /// Replaces the resources policy. Less memory than is in use may end processes.
    ///
    /// # Errors
    /// A limit out of its range is refused with status 400, and nothing is changed.
    pub async fn set_resources_policy(&self, policy: &ResourcesPolicy) -> Result<(), Error> {
        self.set_policy("resources", policy).await
    }

    /// Gives the sprite again what it was created with.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when there is no such sprite.
    pub async fn delete_resources_policy(&self) -> Result<(), Error> {
        self.delete_policy("resources").await
    }
}
