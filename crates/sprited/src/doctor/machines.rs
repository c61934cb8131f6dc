//! What machines are made of: virtualization, namespaces, the driver that follows from it, the guest's kernel.

use sprite_disk::guest::{self, Guest};
use sprite_machine::container;
use sprite_machine::kvm::{self, Virtualization};

use super::check::{Check, told};
use super::data::Data;
use crate::cli::DriverChoice;

/// What a monitor of a virtual machine holds its network by.
const TUN: &str = "/dev/net/tun";

/// What there is, and what is chosen of it.
pub(super) fn look(choice: DriverChoice, data: &Data) -> Vec<Check> {
    let kvm = kvm::probe();
    let chosen = Chosen::of(choice, kvm.is_ok());
    let mut checks = vec![virtualization(chosen, kvm), namespaces(), driver(chosen)];
    match chosen {
        Chosen::Microvm => checks.extend([taps(), guest_kernel(data)]),
        Chosen::Container { .. } => {}
    }
    checks
}

/// What the server would take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chosen {
    Microvm,
    Container {
        /// A person said so.
        on_purpose: bool,
    },
}

impl Chosen {
    fn of(choice: DriverChoice, usable: bool) -> Self {
        match choice {
            DriverChoice::Microvm => Self::Microvm,
            DriverChoice::Auto if usable => Self::Microvm,
            DriverChoice::Auto => Self::Container { on_purpose: false },
            DriverChoice::Container => Self::Container { on_purpose: true },
        }
    }
}

fn virtualization(chosen: Chosen, kvm: Result<Virtualization, kvm::Unusable>) -> Check {
    const NAME: &str = "kvm";
    match (kvm, chosen) {
        (Ok(flag), _) => Check::ok(NAME, format!("usable ({})", flag.name())),
        (Err(error), Chosen::Microvm) => Check::problem(NAME, told(&error), error.remedy()),
        (Err(error), Chosen::Container { on_purpose: false }) => {
            Check::warning(NAME, told(&error), error.remedy())
        }
        (Err(error), Chosen::Container { on_purpose: true }) => Check::ok(
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
    match chosen {
        Chosen::Microvm => Check::ok(NAME, "microvm: each machine has a kernel of its own"),
        Chosen::Container { on_purpose: false } => Check::warning(
            NAME,
            weaker,
            "make kvm usable, see above; until then, code that nobody trusts belongs on a host that holds \
             nothing else",
        ),
        Chosen::Container { on_purpose: true } => {
            Check::warning(NAME, weaker, "choose --driver auto where kvm is usable")
        }
    }
}

fn taps() -> Check {
    const NAME: &str = "taps";
    if std::path::Path::new(TUN).exists() {
        Check::ok(NAME, format!("{TUN} is there"))
    } else {
        Check::problem(
            NAME,
            format!("there is no {TUN}"),
            "load the module: modprobe tun",
        )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_follows_from_the_flag_and_the_host() {
        let weaker = |on_purpose| Chosen::Container { on_purpose };
        for (choice, usable, chosen) in [
            (DriverChoice::Auto, true, Chosen::Microvm),
            (DriverChoice::Auto, false, weaker(false)),
            (DriverChoice::Container, true, weaker(true)),
            (DriverChoice::Microvm, false, Chosen::Microvm),
        ] {
            assert_eq!(Chosen::of(choice, usable), chosen);
        }
    }
}
