//! Policies: what a sprite may. Source: behaviour reference §1.11.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/sprites/{name}/policy/network`: replaces all rules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkPolicy {
    /// At most 256; none: the sprite may connect to everywhere.
    #[schema(required, nullable = false, max_items = 256)]
    pub rules: Option<Vec<NetworkRule>>,
}

/// One rule: about names (`domain` and `action`), or a list of rules that has a name (`include`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkRule {
    /// `example.org`, `*.example.org` or `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "*.example.org")]
    pub domain: Option<String>,
    /// `allow` or `deny`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "allow")]
    pub action: Option<String>,
    /// `defaults`: what developers commonly need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include: Option<String>,
}

/// `GET /v1/sprites/{name}/policy/network`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NetworkPolicyShown {
    /// As they were stored.
    pub rules: Vec<NetworkRule>,
    /// What holds.
    pub enforcement: Enforcement,
}

/// How a network policy is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// The sprite may connect to everywhere but private networks.
    Open,
    /// The sprite connects to nothing and looks up no name, whatever its rules allow: names are not told apart yet.
    Closed,
}

/// `GET` and `POST /v1/sprites/{name}/policy/privileges`: what sessions may become that start from now on. What is
/// absent is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrivilegesPolicy {
    /// `minimal`: no capability, not as root either; `standard` or empty: what the driver's environments have;
    /// `privileged`: all of a kernel of the sprite's own, on the driver `microvm` alone.
    #[serde(default)]
    pub profile: Option<String>,
    /// Devices that must be there; one that the driver's environments lack is refused.
    #[serde(default)]
    pub devices: Option<Vec<String>>,
    /// Whether no program gets more than the one that started it, so that `sudo` does not work.
    #[serde(default, rename = "noNewPrivileges")]
    pub no_new_privileges: Option<bool>,
}

/// `POST /v1/sprites/{name}/policy/resources`: limits in place of those that the sprite was created with. What is
/// absent is as the sprite was created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryLimit {
    /// In MiB, 128 to 1,048,576.
    #[schema(required, nullable = false, minimum = 128, maximum = 1_048_576)]
    pub limit_mb: Option<u32>,
    /// Whether use may grow and shrink below the limit. It always may: memory is taken when it is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<bool>,
}

/// A limit of whole things.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CountLimit {
    /// CPUs: 1 to 64. Processes and threads: 64 to 1,000,000.
    #[schema(required, nullable = false, minimum = 1, maximum = 1_000_000)]
    pub limit: Option<u32>,
}

/// `GET /v1/sprites/{name}/policy/resources`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResourcesPolicyShown {
    /// As it was stored.
    #[serde(flatten)]
    pub policy: ResourcesPolicy,
    /// What the machine that runs may use now; absent while none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedLimits>,
    /// Which limits (`memory`, `cpu`, `pids`) take effect only when the sprite's next machine boots.
    pub pending: Vec<String>,
}

/// What a machine may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppliedLimits {
    /// Memory in MiB.
    pub memory_mb: u32,
    /// CPUs.
    pub cpus: u32,
    /// Processes and threads.
    pub pids: u32,
}
