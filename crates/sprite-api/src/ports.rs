//! The ports on which a sprite's programs listen. Source: behaviour reference §1.4.3, §1.7, §11.10.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A port, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PortInfo {
    /// 1 to 65,535.
    pub port: u16,
    /// The address that it is bound to, as an IP address; `0.0.0.0` and `::` are all addresses.
    pub address: String,
    /// The process that has it, by its id in the sprite; 0 where that is not known.
    pub pid: u32,
}

/// A message about ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PortMessage {
    /// The ports that there are; the first message of a watch.
    PortList {
        /// Each as a [`PortMessage::PortOpened`].
        #[schema(no_recursion)]
        ports: Vec<PortMessage>,
    },
    /// A program listens on it.
    PortOpened(PortInfo),
    /// It does not any more.
    PortClosed(PortInfo),
}

impl PortMessage {
    /// The message as JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("messages have string keys and no failing impls")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.7.
    #[test]
    fn messages_are_as_documented() {
        let opened = PortMessage::PortOpened(PortInfo {
            port: 3000,
            address: "0.0.0.0".to_owned(),
            pid: 1847,
        });
        let text = r#"{"type":"port_opened","port":3000,"address":"0.0.0.0","pid":1847}"#;
        assert_eq!(opened.to_json(), text);
        let list = PortMessage::PortList {
            ports: vec![opened],
        };
        assert_eq!(
            list.to_json(),
            format!(r#"{{"type":"port_list","ports":[{text}]}}"#)
        );
    }
}
