//! The source of randomness: the host kernel's, handed on.

mod device;
mod metrics;
mod queue;

#[cfg(test)]
mod tests;

pub use device::Rng;
pub use metrics::RngMetrics;
