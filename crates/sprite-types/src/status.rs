//! What a sprite is doing, and what keeps it apart from its host.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A sprite's status on the wire. Source: behaviour reference §1.3, §4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpriteStatus {
    /// A machine runs.
    Running,
    /// Asleep, its memory kept.
    Warm,
    /// Asleep, only its disk kept.
    Cold,
}

impl fmt::Display for SpriteStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Warm => "warm",
            Self::Cold => "cold",
        })
    }
}

/// Which driver makes a sprite's machines; fixed when the sprite is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverKind {
    /// A virtual machine on KVM.
    Microvm,
    /// Namespaces, cgroups and seccomp on the host's kernel.
    Container,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Microvm => "microvm",
            Self::Container => "container",
        })
    }
}

/// What stands between a sprite and its host, as told in every sprite's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// A hardware virtual machine with its own kernel.
    Hardware,
    /// The host's kernel: user namespace, seccomp, cgroups. Weaker.
    Kernel,
}

impl From<DriverKind> for Isolation {
    fn from(driver: DriverKind) -> Self {
        match driver {
            DriverKind::Microvm => Self::Hardware,
            DriverKind::Container => Self::Kernel,
        }
    }
}
