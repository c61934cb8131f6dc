//! The words of the project as types: ids, names, sizes, limits and statuses.
//!
//! Nothing here does I/O, reads a clock or waits. Text from outside becomes one of these types at the edge
//! (`FromStr`, `TryFrom`, serde) and is trusted from there on.
#![warn(missing_docs)]

mod checkpoint;
mod domain;
mod id;
mod name;
mod policy;
mod resources;
mod service;
mod status;
mod web_url;

pub use checkpoint::{CheckpointId, CheckpointIdError};
pub use domain::{CustomDomain, CustomDomainError};
pub use id::{
    Generation, Incarnation, InstanceId, MachineId, OrgId, ParseIdError, SessionId, SpriteId,
    TokenId,
};
pub use name::{Label, NameError, OrgSlug, ServiceName, SpriteName, TaskName};
pub use policy::{
    Confinement, CountLimit, DomainError, DomainPattern, Egress, MemoryLimit, NetworkPolicy,
    NetworkRule, Policies, Preset, Privileges, Profile, ResourceLimits, RuleAction, UnknownWord,
};
pub use resources::{Resources, ResourcesError};
pub use service::{ServiceRun, ServiceSpec, ServiceSpecError, ServicesError, check_services};
pub use status::{DriverKind, Isolation, SpriteStatus};
pub use web_url::{WebUrl, WebUrlError};

/// The version of the sprite environment that the API reports (`Sprite-Version`, `version`, `/info`).
///
/// Clients compare it: from `0.0.1-rc30` on the Go SDK attaches to sessions by path.
/// Source: behaviour reference §0.3, §1.1.
pub const RUNTIME_VERSION: &str = "0.0.1-rc48";
