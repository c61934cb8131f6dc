//! Network devices.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::{ConfigError, DeviceId, InterfaceName, MacAddress, absent};

/// A tap of the host that the guest sees as a network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire")]
pub struct NetworkInterface {
    /// Its name on the control socket.
    pub iface_id: DeviceId,
    /// The card's address; without one the guest chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<MacAddress>,
    /// The tap, which exists already.
    pub host_dev_name: InterfaceName,
}

/// Another tap for a card of a machine that is loaded from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkOverride {
    /// Which card.
    pub iface_id: DeviceId,
    /// Its tap.
    pub host_dev_name: InterfaceName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    iface_id: DeviceId,
    guest_mac: Option<MacAddress>,
    host_dev_name: InterfaceName,
    mtu: Option<IgnoredAny>,
    rx_rate_limiter: Option<IgnoredAny>,
    tx_rate_limiter: Option<IgnoredAny>,
}

impl TryFrom<Wire> for NetworkInterface {
    type Error = ConfigError;

    fn try_from(wire: Wire) -> Result<NetworkInterface, ConfigError> {
        absent(
            wire.mtu.as_ref(),
            "mtu",
            "set it on the interface inside the guest",
        )?;
        let limits = "shape the traffic of the tap on the host instead";
        absent(wire.rx_rate_limiter.as_ref(), "rx_rate_limiter", limits)?;
        absent(wire.tx_rate_limiter.as_ref(), "tx_rate_limiter", limits)?;
        Ok(NetworkInterface {
            iface_id: wire.iface_id,
            guest_mac: wire.guest_mac,
            host_dev_name: wire.host_dev_name,
        })
    }
}
