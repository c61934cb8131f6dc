//! Breaking out: hostile code runs in real sprites, as their user, as their root, and in the agent's place, and
//! everything that it tries must fail, seen from inside and from outside.
//!
//! What is tried in `containers` is particular to machines that share the host's kernel, and in `monitors` to virtual
//! machines; all else holds for every driver.
//!
//! The hostile program is `attacker/`, built alone and statically. Nothing outside of this host is contacted.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../harness/mod.rs"]
mod harness;

mod attack;

mod containers;
mod disk;
mod egress;
mod files;
mod monitors;
mod network;
mod outside;
mod processes;
mod resources;
