//! What differs between processor architectures: memory layout, boot, tables, CPU state.
//!
//! Everything outside this module names `arch::…` and not the architecture.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64 as native;
