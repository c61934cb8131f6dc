//! Whether this host can run machines of namespaces, and if not, why and what a person can do.

use std::fs;
use std::io;

use crate::cgroup::{self, Version};

/// Source: mount_setattr(2): file systems learnt idmapped mounts from this version on, ext4 and XFS among them.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// What the kernel may make of user namespaces. Source: namespaces(7).
const MOST_NAMESPACES: &str = "/proc/sys/user/max_user_namespaces";

/// Each machine has two of its own.
const ENOUGH_NAMESPACES: u64 = 64;

/// Why machines of the `container` driver cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The kernel is too old.
    #[error("the kernel is {release}; machines need {}.{}", OLDEST_KERNEL.0, OLDEST_KERNEL.1)]
    Kernel {
        /// What it calls itself.
        release: String,
    },
    /// The kernel was built without user namespaces.
    #[error("the kernel has no user namespaces")]
    NoUserNamespaces,
    /// They are switched off, or hardly any is allowed.
    #[error("user namespaces are limited to {most}")]
    FewUserNamespaces {
        /// How many are allowed.
        most: u64,
    },
    /// A controller of cgroups that machines need is missing.
    #[error("cgroups have no controller {}", missing.join(", "))]
    Controllers {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The tables of the kernel cannot be read.
    #[error("look at the host's cgroups")]
    Cgroups(#[source] io::Error),
}

impl Unusable {
    /// What a person can do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Kernel { .. } | Self::NoUserNamespaces => {
                "boot a kernel of Debian 12, Ubuntu 24.04 or later".to_owned()
            }
            Self::FewUserNamespaces { .. } => {
                "sysctl user.max_user_namespaces=15000, and the same in /etc/sysctl.d to keep it".to_owned()
            }
            Self::Controllers { .. } => {
                "use cgroup version 2 (systemd.unified_cgroup_hierarchy=1), or mount the controllers of version 1 \
                 below /sys/fs/cgroup"
                    .to_owned()
            }
            Self::Cgroups(_) => "mount /proc and /sys".to_owned(),
        }
    }
}

/// What machines of namespaces would be built of here. Changes nothing, and needs no rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usable {
    /// Version of cgroups, 1 or 2.
    pub cgroups: u8,
}

/// Looks whether machines of namespaces run here.
///
/// # Errors
/// The first thing that stands in the way.
pub fn probe() -> Result<Usable, Unusable> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if !new_enough(&release) {
        return Err(Unusable::Kernel { release });
    }
    let most = fs::read_to_string(MOST_NAMESPACES).map_err(|_| Unusable::NoUserNamespaces)?;
    // What is no number is more than one.
    let most = most.trim().parse().unwrap_or(u64::MAX);
    if most < ENOUGH_NAMESPACES {
        return Err(Unusable::FewUserNamespaces { most });
    }
    let (version, missing) = cgroup::lacking().map_err(Unusable::Cgroups)?;
    if !missing.is_empty() {
        return Err(Unusable::Controllers { missing });
    }
    let cgroups = match version {
        Version::One => 1,
        Version::Two => 2,
    };
    Ok(Usable { cgroups })
}

/// Source: uname(2): the release begins with two numbers.
fn new_enough(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next()?.parse::<u32>().ok();
    matches!((next(), next()), (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart_by_their_first_two_numbers() {
        for (release, enough) in [
            ("6.18.0-cloud-amd64", true),
            ("5.12", true),
            ("5.11.99", false),
            ("4.19.0-27-amd64", false),
            ("10.0", true),
            ("unknown", false),
        ] {
            assert_eq!(new_enough(release), enough, "{release}");
        }
    }

    #[test]
    fn every_obstacle_has_its_remedy() {
        let missing = vec!["pids", "memory"];
        let unusable = Unusable::Controllers { missing };
        assert_eq!(
            unusable.to_string(),
            "cgroups have no controller pids, memory"
        );
        for unusable in [unusable, Unusable::FewUserNamespaces { most: 0 }] {
            assert!(!unusable.remedy().is_empty());
        }
    }
}
