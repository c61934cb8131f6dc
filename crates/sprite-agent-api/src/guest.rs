//! What the microvm driver and the agent agree on before their first frame: the kernel's command line, the
//! devices, and the ports between host and guest.
//!
//! The agent is the guest's `/init`. It finds the sprite's disk and the kernel's modules as the first and the
//! second block device, its address on the command line, and listens on [`AGENT_PORT`] of its vsock. A guest
//! ends by a reset of the machine; there is no other way out but the host's.

use std::fmt;
use std::net::Ipv4Addr;

/// Vsock port on which the agent accepts the host's connections.
pub const AGENT_PORT: u32 = 1024;

/// Vsock port of the host to which the agent connects once, and closes at once, as soon as it accepts
/// connections. A host that does not listen there loses nothing but the moment.
pub const READY_PORT: u32 = 1025;

/// The sprite's disk in the guest: the first block device of the machine.
pub const DISK_DEVICE: &str = "vda";

/// The image with the kernel's modules: the second block device, read-only.
pub const MODULES_DEVICE: &str = "vdb";

/// What every guest's kernel is told. The machine ends by the keyboard controller's reset line, after a panic at
/// once; there is no PCI; the controller has no mouse (whether it has a keyboard, ACPI says), and looking for one
/// costs seconds; the CPU's randomness is trusted because the host is.
/// Source: Linux Documentation/admin-guide/kernel-parameters.txt.
pub const KERNEL_PARAMETERS: &str = "console=ttyS0 quiet reboot=k panic=-1 pci=off rdinit=/init \
    random.trust_cpu=on i8042.noaux i8042.nomux i8042.dumbkbd 8250.nr_uarts=1";

const ADDRESS: &str = "sprite.address";
const GATEWAY: &str = "sprite.gateway";

/// The guest's place in the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestNetwork {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Bits of the network that address and gateway are in, 0 to 32.
    pub prefix: u8,
    /// Where everything else is reached.
    pub gateway: Ipv4Addr,
}

/// As parameters of the kernel's command line.
impl fmt::Display for GuestNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            address,
            prefix,
            gateway,
        } = self;
        write!(f, "{ADDRESS}={address}/{prefix} {GATEWAY}={gateway}")
    }
}

/// A command line whose network cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("read {ADDRESS} and {GATEWAY} of the kernel's command line")]
pub struct GuestNetworkError;

impl GuestNetwork {
    /// The network that a command line tells; `None` where it tells none, and the guest has only itself.
    ///
    /// # Errors
    /// It tells half of it, or something else than addresses.
    pub fn of_command_line(line: &str) -> Result<Option<Self>, GuestNetworkError> {
        let value = |name: &str| {
            let mut words = line.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let (address, gateway) = match (value(ADDRESS), value(GATEWAY)) {
            (None, None) => return Ok(None),
            (Some(address), Some(gateway)) => (address, gateway),
            (Some(_), None) | (None, Some(_)) => return Err(GuestNetworkError),
        };
        let parse = || {
            let (address, prefix) = address.split_once('/')?;
            Some(Self {
                address: address.parse().ok()?,
                prefix: prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
                gateway: gateway.parse().ok()?,
            })
        };
        parse().map(Some).ok_or(GuestNetworkError)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_guest_reads_the_network_that_the_driver_wrote(
            address: u32, gateway: u32, prefix in 0u8..=32, before in "[a-z. =]{0,40}",
        ) {
            let network = GuestNetwork { address: address.into(), prefix, gateway: gateway.into() };
            let line = format!("{before} {KERNEL_PARAMETERS} {network}\n");
            prop_assert_eq!(GuestNetwork::of_command_line(&line), Ok(Some(network)));
        }

        #[test]
        fn no_command_line_is_too_strange(line: String) {
            let _ = GuestNetwork::of_command_line(&line);
        }
    }

    #[test]
    fn half_a_network_is_none() {
        assert_eq!(GuestNetwork::of_command_line(KERNEL_PARAMETERS), Ok(None));
        for line in [
            "sprite.address=10.0.0.1/24",
            "sprite.gateway=10.0.0.2",
            "sprite.address=10.0.0.1 sprite.gateway=10.0.0.2",
            "sprite.address=10.0.0.1/33 sprite.gateway=10.0.0.2",
            "sprite.address=10.0.0.1/24 sprite.gateway=x",
        ] {
            let read = GuestNetwork::of_command_line(line);
            assert_eq!(read, Err(GuestNetworkError), "{line}");
        }
    }
}
