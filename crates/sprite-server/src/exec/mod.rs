//! Exec: start, attach, list, kill. Source: behaviour reference §1.4.

pub(crate) mod attach;
mod chunks;
pub(crate) mod kill;
pub(crate) mod open;
pub(crate) mod params;
pub(crate) mod post;
pub(crate) mod relay;
pub(crate) mod sessions;
pub(crate) mod socket;
pub(crate) mod start;
