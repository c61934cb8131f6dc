//! What machines are made of: virtualization, namespaces, the driver that follows from it, the guest's kernel.

use sprite_disk::guest::{self, Guest};
use sprite_machine::kvm::{self, Virtualization};
use sprite_machine::{container, microvm};
use sprite_types::DriverKind;

use super::check::{Check, told};
use super::data::Data;
use crate::cli::DriverChoice;
use crate::config::Config;
use crate::drivers;

/// What there is, and what is chosen of it. Also tells the driver that a server would use.
pub(super) async fn look(config: &Config, data: &Data) -> (DriverKind, Vec<Check>) {
    let kvm = kvm::probe();
    let chosen = Chosen {
        kind: drivers::follows(config.driver, kvm.is_ok()),
        by: config.driver,
    };
    let mut checks = vec![virtualization(chosen, kvm), namespaces(), driver(chosen)];
    match chosen.kind {
        DriverKind::Microvm => {
            checks.push(monitor(config).await);
            checks.push(guest_kernel(data));
        }
        DriverKind::Container => {}
    }
    (chosen.kind, checks)
}

/// What the server would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chosen {
    kind: DriverKind,
    by: DriverChoice,
}

fn virtualization(chosen: Chosen, kvm: Result<Virtualization, kvm::Unusable>) -> Check {
    const NAME: &str = "kvm";
    match (kvm, chosen.by) {
        (Ok(flag), _) => Check::ok(NAME, format!("usable ({})", flag.name())),
        (Err(error), DriverChoice::Microvm) => Check::problem(NAME, told(&error), error.remedy()),
        (Err(error), DriverChoice::Auto) => Check::warning(NAME, told(&error), error.remedy()),
        (Err(error), DriverChoice::Container) => Check::ok(
            NAME,
            format!("not asked for, and not usable: {}", told(&error)),
        ),
    }
}

fn namespaces() -> Check {
    const NAME: &str = "namespaces";
    match container::probe() {
        Ok(usable) => Check::ok(
            NAME,
            format!("user namespaces, cgroups of version {}", usable.cgroups),
        ),
        Err(error) => Check::problem(NAME, told(&error), error.remedy()),
    }
}

fn driver(chosen: Chosen) -> Check {
    const NAME: &str = "driver";
    let weaker = "container: machines share this host's kernel, isolation is \"kernel\"";
    match (chosen.kind, chosen.by) {
        (DriverKind::Microvm, _) => {
            Check::ok(NAME, "microvm: each machine has a kernel of its own")
        }
        (DriverKind::Container, DriverChoice::Container) => {
            Check::warning(NAME, weaker, "choose --driver auto where kvm is usable")
        }
        (DriverKind::Container, DriverChoice::Auto | DriverChoice::Microvm) => Check::warning(
            NAME,
            weaker,
            "make kvm usable, see above; until then, code that nobody trusts belongs on a host that holds \
             nothing else",
        ),
    }
}

/// The program that runs virtual machines.
async fn monitor(config: &Config) -> Check {
    const NAME: &str = "monitor";
    let Some(given) = &config.vmm else {
        return Check::ok(NAME, "the built-in one");
    };
    let shown = given.display();
    match microvm::examine(given).await {
        Ok(monitor) => Check::ok(
            NAME,
            format!("{} {} ({shown})", monitor.name, monitor.version),
        ),
        Err(unfit) => Check::problem(NAME, format!("{shown}: {}", told(&unfit)), unfit.remedy()),
    }
}

fn guest_kernel(data: &Data) -> Check {
    const NAME: &str = "guest kernel";
    let directory = match data {
        Data::Hidden => return Check::unseen(NAME),
        Data::Absent => None,
        Data::There { data, .. } => Some(data.guest()),
    };
    let recorded = directory.map(|directory| Guest::recorded(&directory));
    match recorded {
        Some(Ok(Some(guest))) => return Check::ok(NAME, format!("Linux {}", guest.version)),
        Some(Err(error)) => {
            return Check::problem(NAME, told(&error), "remove it to have it made anew");
        }
        Some(Ok(None)) | None => {}
    }
    const INDEX: &str = "run apt-get update; Debian 12 or later and Ubuntu 24.04 or later have one";
    match guest::available() {
        Ok(Some(packages)) => {
            let version = packages
                .first()
                .map_or("", |package| package.version.as_str());
            Check::ok(
                NAME,
                format!("Linux {version} of this distribution, fetched at the first start"),
            )
        }
        Ok(None) => Check::problem(NAME, "apt knows no kernel that is new enough", INDEX),
        Err(error) => Check::problem(NAME, told(&error), INDEX),
    }
}
