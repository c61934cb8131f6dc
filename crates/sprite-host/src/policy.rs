//! Policies of a sprite: looked at, and stored and put in force.
//!
//! Stored first, then in force, then answered: a policy that was accepted holds, and a crash between the two leaves
//! a row from which the next start puts it in force. A sprite without a task has no machine, and its next one is
//! started from what is stored.

use std::sync::Arc;

use sprite_catalog::{Policy, Sprite};
use sprite_types::{DriverKind, Policies, Privileges, Profile, Resources, SpriteId};
use tokio::sync::oneshot;
use tracing::Instrument;

use crate::check::look;
use crate::enforce::{self, NotInForce};
use crate::error::{LookupError, PolicyError};
use crate::fault::FaultPoint;
use crate::registry::{Look, Message, Undelivered};
use crate::shared::Shared;

/// A sprite's policies, and what holds of its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyView {
    /// As they are stored.
    pub policies: Policies,
    /// How much of the host its next machine may use.
    pub wanted: Resources,
    /// How much of the host the one that runs may use; `None` if none does.
    pub allowed: Option<Resources>,
}

/// Devices of every environment of a driver.
fn devices(driver: DriverKind) -> &'static [&'static str] {
    match driver {
        DriverKind::Container => &[
            "/dev/full",
            "/dev/null",
            "/dev/ptmx",
            "/dev/random",
            "/dev/tty",
            "/dev/urandom",
            "/dev/zero",
        ],
        DriverKind::Microvm => &[
            "/dev/full",
            "/dev/fuse",
            "/dev/net/tun",
            "/dev/null",
            "/dev/ptmx",
            "/dev/random",
            "/dev/tty",
            "/dev/urandom",
            "/dev/zero",
        ],
    }
}

pub(crate) async fn show(shared: &Shared, sprite: &Sprite) -> Result<PolicyView, LookupError> {
    let policies = shared.catalog.policies(sprite.id).await?;
    // Checked when it was stored.
    let wanted = enforce::sizes(sprite, &policies).unwrap_or(sprite.resources);
    let allowed = match look(shared, sprite.id).await {
        Some(Look::Awake(machine)) => machine.resources(),
        Some(Look::Asleep | Look::Busy | Look::Failed(_)) | None => None,
    };
    Ok(PolicyView {
        policies,
        wanted,
        allowed,
    })
}

/// Checks that a policy can be put in force on this sprite; nothing is changed by this.
fn check(sprite: &Sprite, policy: &Policy) -> Result<(), PolicyError> {
    match policy {
        Policy::Network(_) => Ok(()),
        Policy::Resources(limits) => {
            limits.on(sprite.resources)?;
            Ok(())
        }
        Policy::Privileges(privileges) => check_privileges(sprite.driver, privileges),
    }
}

fn check_privileges(driver: DriverKind, privileges: &Privileges) -> Result<(), PolicyError> {
    match (privileges.profile, driver) {
        (Profile::Privileged, DriverKind::Container) => {
            return Err(PolicyError::Privileged { driver });
        }
        (Profile::Privileged, DriverKind::Microvm)
        | (Profile::Unset | Profile::Minimal | Profile::Standard, _) => {}
    }
    let there = devices(driver);
    let missing = |device: &&String| !there.contains(&device.as_str());
    match privileges.devices.iter().find(missing) {
        Some(device) => Err(PolicyError::Device {
            device: device.chars().take(80).collect(),
            driver,
            there,
        }),
        None => Ok(()),
    }
}

/// Stores a policy and puts it in force.
pub(crate) async fn set(
    shared: &Arc<Shared>,
    sprite: &Sprite,
    policy: Policy,
) -> Result<(), PolicyError> {
    check(sprite, &policy)?;
    let (reply, done) = oneshot::channel();
    let (owner, sprite) = (shared.clone(), sprite.id);
    // What is stored is put in force, whether or not its caller waits for it.
    let set = async move {
        let set = store_and_enforce(&owner, sprite, &policy).await;
        let _ = reply.send(set);
    };
    shared.spawn(set.in_current_span());
    done.await.unwrap_or(Err(PolicyError::Closing))
}

async fn store_and_enforce(
    shared: &Shared,
    sprite: SpriteId,
    policy: &Policy,
) -> Result<(), PolicyError> {
    let catalog = &shared.catalog;
    if !catalog.set_policy(sprite, policy, shared.time()).await? {
        return Err(PolicyError::NotFound);
    }
    shared.fault(FaultPoint::PolicyStored).await;
    let (reply, enforced) = oneshot::channel();
    let message = Message::Enforce(reply);
    match shared.registry.send_if_active(sprite, message) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        Err(Undelivered::Busy) => return Err(PolicyError::Busy),
        Err(Undelivered::Closing) => return Err(PolicyError::Closing),
    }
    let enforced = enforced.await.map_err(|_| PolicyError::Closing)?;
    shared.fault(FaultPoint::PolicyEnforced).await;
    enforced.map_err(|NotInForce { cause, ended }| PolicyError::NotInForce { cause, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privileges(profile: Profile, devices: &[&str]) -> Privileges {
        Privileges {
            profile,
            devices: devices.iter().map(|name| (*name).to_owned()).collect(),
            no_new_privileges: false,
        }
    }

    #[test]
    fn what_the_walls_of_a_driver_do_not_give_is_refused() {
        for (driver, profile, device, allowed) in [
            (DriverKind::Container, Profile::Minimal, "/dev/null", true),
            (
                DriverKind::Container,
                Profile::Privileged,
                "/dev/null",
                false,
            ),
            (DriverKind::Container, Profile::Standard, "/dev/fuse", false),
            (DriverKind::Microvm, Profile::Privileged, "/dev/fuse", true),
            (DriverKind::Microvm, Profile::Unset, "/dev/kvm", false),
            (
                DriverKind::Microvm,
                Profile::Unset,
                "/dev/../dev/null",
                false,
            ),
        ] {
            let checked = check_privileges(driver, &privileges(profile, &[device]));
            assert_eq!(checked.is_ok(), allowed, "{driver} {profile:?} {device}");
        }
    }
}
