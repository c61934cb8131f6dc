//! The virtual machine monitor: one process runs one machine on KVM.
#![warn(missing_docs)]

pub mod config;
