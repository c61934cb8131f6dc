//! A machine's network.
//!
//! Every machine, of processes or virtual, sees the same: `eth0` with 10.0.0.1, gateway and name server 10.0.0.2, the internet behind.
//! It does not see the host, its neighbours on private networks, metadata services, or any other machine.
//!
//! [`Network`] is the door: it hands out [`Slot`]s. Behind it, one file each: making a slot (`build`), what a
//! virtual machine holds of it (`tap`), the host's side (`site`), rules (`nft`), the name server (`dns`), what others change on the host (`watch`), packets for machines that sleep (`knock`),
//! why there is no network (`diagnose`). Only this crate speaks netlink.
//!
//! What must always hold:
//! * Two walls, either of which is enough against private addresses: rules in a namespace of the slot that no
//!   one but us touches, and rules on the host.
//! * Every name and mark on the host carries the instance id; two instances never share an address.
//! * A slot is given to one machine and then removed; nothing of it is used again.
//! * No process is started, ever.
#![warn(missing_docs)]

mod address;
mod build;
mod conntrack;
mod diagnose;
mod dns;
mod error;
mod forwarding;
mod inward;
mod knock;
mod ledger;
mod name;
mod netlink;
mod netns;
mod network;
mod nft;
mod probe;
mod route;
mod site;
mod slot;
mod slots;
mod tap;
mod watch;

pub use address::{GATEWAY, GUEST_IP, GUEST_PREFIX, Subnet};
pub use diagnose::Finding;
pub use error::NetError;
pub use inward::SpareSockets;
pub use network::{NetOptions, Network};
pub use slot::{Attachment, ParseSlotError, Slot, SlotId, Traffic};
pub use tap::TapOwner;
