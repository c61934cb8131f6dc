//! Putting stored policies in force on a machine that is there.
//!
//! The network and the limits around a machine are the driver's; how sessions are confined is the agent's. Whatever
//! starts a machine reads the policies right before ([`crate::wake`]); whoever stores one has the sprite's task put
//! it in force on the machine that runs. Where that fails, the machine is ended: its next start has the policy, and
//! until then nothing runs without it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use sprite_agent_api::policy::{EnvironmentLimits, PolicySpec};
use sprite_catalog::{CatalogError, Sprite};
use sprite_machine::{Machine, MachineError};
use sprite_types::{DriverKind, Egress, Policies, Resources, ResourcesError};

use crate::agent::{self, AskError};
use crate::context::describe;
use crate::shared::Shared;

/// A step of putting policies in force that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnforceError {
    /// The policies could not be read.
    #[error("read the policies")]
    Catalog(#[from] CatalogError),
    /// A stored limit is outside its range: a newer version stored it.
    #[error("read the limits")]
    Limits(#[from] ResourcesError),
    /// The driver could not.
    #[error("change the machine's walls")]
    Machine(#[from] MachineError),
    /// The agent could not.
    #[error("tell the agent")]
    Agent(#[from] AskError),
}

/// A policy is stored, and was not put in force on the machine that ran.
#[derive(Debug, Clone)]
pub(crate) struct NotInForce {
    /// Which step, and what was said.
    pub(crate) cause: String,
    /// Whether that machine was ended.
    pub(crate) ended: bool,
}

/// Whether the agent of a machine still has to be told its policies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Untold(Arc<AtomicBool>);

impl Untold {
    pub(crate) fn set(&self, untold: bool) {
        self.0.store(untold, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether the agent can answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Agent {
    /// It runs.
    Listens,
    /// It may stand still: it is told when it is thawed.
    MaySleep,
}

/// The sizes of a sprite: what it was created with, and its limits.
pub(crate) fn sizes(sprite: &Sprite, policies: &Policies) -> Result<Resources, ResourcesError> {
    policies.resources.on(sprite.resources)
}

/// What the agent is told.
pub(crate) fn spec(sprite: &Sprite, policies: &Policies) -> Result<PolicySpec, ResourcesError> {
    let sizes = sizes(sprite, policies)?;
    let limited = policies.resources.memory.is_some() || policies.resources.pids.is_some();
    let limits = match sprite.driver {
        DriverKind::Microvm if limited => Some(EnvironmentLimits {
            memory_mib: sizes.memory_mib,
            pids: sizes.pids,
        }),
        DriverKind::Microvm | DriverKind::Container => None,
    };
    let egress = policies.network.egress();
    let network = match egress {
        Egress::Open => String::new(),
        Egress::Closed => {
            json!({ "rules": policies.network.rules, "enforcement": egress }).to_string()
        }
    };
    Ok(PolicySpec {
        network,
        confinement: policies.privileges.confinement(),
        limits,
    })
}

/// Puts what is stored in force around a machine: its network and its limits. Gives back what that was.
pub(crate) async fn around(
    shared: &Shared,
    sprite: &Sprite,
    machine: &Arc<dyn Machine>,
) -> Result<Policies, EnforceError> {
    let policies = shared.catalog.policies(sprite.id).await?;
    machine.set_egress(policies.network.egress()).await?;
    machine.limit(&sizes(sprite, &policies)?).await?;
    Ok(policies)
}

/// Tells the agent its policies.
pub(crate) async fn tell(
    shared: &Shared,
    sprite: &Sprite,
    machine: &Arc<dyn Machine>,
    policies: &Policies,
) -> Result<(), EnforceError> {
    let spec = spec(sprite, policies)?;
    let within = shared.options.boot_within;
    match agent::tell_policies(machine, shared.epoch, spec, within).await {
        // Whatever comes after it is told anew.
        Err(AskError::Exited(_)) => Ok(()),
        told => Ok(told?),
    }
}

/// Puts what is stored in force on a machine that is there, or ends the machine.
pub(crate) async fn enforce(
    shared: Arc<Shared>,
    sprite: Sprite,
    machine: Arc<dyn Machine>,
    agent: Agent,
    untold: Untold,
) -> Result<(), NotInForce> {
    untold.set(true);
    let in_force = async {
        let policies = around(&shared, &sprite, &machine).await?;
        match agent {
            Agent::Listens => {
                tell(&shared, &sprite, &machine, &policies).await?;
                untold.set(false);
            }
            Agent::MaySleep => {}
        }
        Ok::<_, EnforceError>(())
    };
    let Err(error) = in_force.await else {
        return Ok(());
    };
    let cause = describe("put the policy in force", &error);
    tracing::error!(cause, "end a machine that has not its sprite's policies");
    match machine.destroy().await {
        Ok(()) => Err(NotInForce { cause, ended: true }),
        Err(error) => Err(NotInForce {
            cause: format!("{cause}; then {}", describe("end the machine", &error)),
            ended: false,
        }),
    }
}
