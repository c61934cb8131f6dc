//! The virtual machine monitor: one process runs one machine on KVM.
//!
//! [`memory`] is the guest's memory, [`arch`] what differs between processor architectures.
#![warn(missing_docs)]

pub mod api;
pub mod arch;
pub mod bus;
pub mod command;
pub mod config;
pub mod console;
pub mod control;
pub mod end;
pub mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod power;
pub mod seccomp;
pub mod serial;
pub mod snapshot;
pub mod vcpu;
pub mod virtio;
pub mod vm;
