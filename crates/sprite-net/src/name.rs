//! Names on the host. Each carries the instance id, so that recovery and removal touch only their own.

use std::path::{Path, PathBuf};

use sprite_types::InstanceId;

use crate::slot::SlotId;

/// Where namespaces are pinned, as `ip netns` does: they outlive the server and `ip netns list` shows them.
pub(crate) const NETNS_DIR: &str = "/run/netns";

/// One of the two namespaces of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The machine's: `lo` and `eth0`.
    Guest,
    /// Ours, between machine and host.
    Router,
}

impl Role {
    pub(crate) const ALL: [Self; 2] = [Self::Guest, Self::Router];

    /// What it is called in errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Router => "router",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Guest => "g",
            Self::Router => "r",
        }
    }
}

/// What the names of all host interfaces of an instance begin with: 8 of the 15 characters that a name has.
pub(crate) fn link_prefix(instance: &InstanceId) -> String {
    format!("sp{instance}")
}

const _: () = assert!("sp".len() + InstanceId::LEN + "4094".len() < libc::IFNAMSIZ);

/// The host's end of a slot's link.
pub(crate) fn link_name(instance: &InstanceId, slot: SlotId) -> String {
    format!("sp{instance}{slot}")
}

/// Whose end this is: the slot, if the interface is one of the instance.
pub(crate) fn slot_of_link(instance: &InstanceId, name: &str) -> Option<SlotId> {
    name.strip_prefix(&link_prefix(instance))?.parse().ok()
}

/// The interface of the namespace that [`Network::diagnose`](crate::Network::diagnose) reaches for. Outside the
/// prefix of the slots: it plays the outside.
pub(crate) fn probe_link(instance: &InstanceId) -> String {
    format!("so{instance}")
}

/// Whether this is an interface of any instance, not only of one.
pub(crate) fn is_ours(name: &str) -> bool {
    let rest = name.strip_prefix("sp").or_else(|| name.strip_prefix("so"));
    let Some((instance, slot)) = rest.and_then(|rest| rest.split_at_checked(InstanceId::LEN))
    else {
        return false;
    };
    let known = instance.parse::<InstanceId>().is_ok();
    known && (slot.is_empty() || slot.parse::<SlotId>().is_ok())
}

/// The file that pins one of a slot's namespaces.
pub(crate) fn netns_path(instance: &InstanceId, slot: SlotId, role: Role) -> PathBuf {
    Path::new(NETNS_DIR).join(format!("sprited-{instance}-{slot}-{}", role.suffix()))
}

/// The slot of a file in [`NETNS_DIR`], if it is one of the instance.
pub(crate) fn slot_of_netns(instance: &InstanceId, name: &str) -> Option<SlotId> {
    let rest = name
        .strip_prefix("sprited-")?
        .strip_prefix(instance.as_str())?
        .strip_prefix('-')?;
    let (slot, suffix) = rest.split_once('-')?;
    Role::ALL
        .iter()
        .any(|role| role.suffix() == suffix)
        .then_some(())?;
    slot.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_slot_and_instance() {
        let id: InstanceId = "abc234".parse().expect("six characters");
        let other: InstanceId = "abc235".parse().expect("six characters");
        let slot: SlotId = "4094".parse().expect("a slot");
        let link = link_name(&id, slot);
        assert!(link.len() < libc::IFNAMSIZ);
        assert_eq!(slot_of_link(&id, &link), Some(slot));
        assert_eq!(slot_of_link(&other, &link), None);
        assert!(is_ours(&link) && is_ours(&probe_link(&id)));
        for foreign in [
            "eth0",
            "sp",
            "spice0",
            "soabc234x",
            "spabc2344095",
            "docker0",
        ] {
            assert!(!is_ours(foreign), "{foreign}");
        }
        for role in Role::ALL {
            let path = netns_path(&id, slot, role);
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("UTF-8");
            assert_eq!(slot_of_netns(&id, name), Some(slot));
            assert_eq!(slot_of_netns(&other, name), None);
        }
        for foreign in [
            "sprited-abc234-2-x",
            "sprited-abc234-02-g",
            "sprited-abc234-2",
            "x",
        ] {
            assert_eq!(slot_of_netns(&id, foreign), None, "{foreign}");
        }
    }
}
