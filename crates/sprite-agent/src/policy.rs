//! Policies, as far as the agent keeps them: shown inside, and in force for what starts from now on.

use sprite_agent_api::message::{Failure, FailureKind};
use sprite_agent_api::policy::{MAX_NETWORK, PolicySpec};
use tokio::sync::watch;

use crate::init;
use crate::operation::failure;
use crate::step::Step;
use crate::walls::Walls;

/// What the host told last.
#[derive(Debug)]
pub(crate) struct Policies {
    told: watch::Sender<PolicySpec>,
}

impl Policies {
    pub(crate) fn new() -> Self {
        Self {
            told: watch::Sender::new(PolicySpec::default()),
        }
    }

    /// The policies as they are now.
    pub(crate) fn current(&self) -> PolicySpec {
        self.told.borrow().clone()
    }

    /// Makes policies hold. On a failure those before are shown, and limits may be partly changed.
    pub(crate) fn apply(&self, walls: Walls, spec: PolicySpec) -> Result<(), Failure> {
        if spec.network.len() > MAX_NETWORK {
            let message = format!("the network policy is longer than {MAX_NETWORK} bytes");
            return Err(failure(FailureKind::Invalid, message));
        }
        match walls {
            // The host's own cgroups are around it.
            Walls::Container { .. } => {}
            Walls::Guest => init::limit_environment(spec.limits).step("limit the environment")?,
        }
        self.told.send_replace(spec);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sprite_types::Confinement;

    use super::*;
    use crate::environment::Memory;

    #[test]
    fn what_was_told_last_holds_and_what_is_too_long_changes_nothing() {
        let walls = Walls::Container {
            cgroups: 0,
            memory: Memory::Whole,
        };
        let policies = Policies::new();
        assert_eq!(policies.current(), PolicySpec::default());
        let spec = |length| PolicySpec {
            network: " ".repeat(length),
            confinement: Confinement::NoNewPrivileges,
            limits: None,
        };
        policies
            .apply(walls, spec(MAX_NETWORK))
            .expect("not too long");
        let refused = policies.apply(walls, spec(MAX_NETWORK + 1));
        assert_eq!(
            refused.map_err(|failure| failure.kind),
            Err(FailureKind::Invalid)
        );
        assert_eq!(policies.current(), spec(MAX_NETWORK));
    }
}
