//! How much of the host a machine may use.

use serde::{Deserialize, Serialize};

/// CPU, memory, processes and disk of one sprite. All limits, none a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Whole CPUs, 1 to 64.
    pub cpus: u32,
    /// Memory in MiB, 128 to 1,048,576.
    pub memory_mib: u32,
    /// Nominal size of the disk in GB (2^30 bytes), 1 to 4,096. Sparse: only what is written takes space.
    pub storage_gb: u32,
    /// Processes and threads at once, 64 to 1,000,000.
    pub pids: u32,
}

/// A size outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, it must be {min} to {max}")]
pub struct ResourcesError {
    field: &'static str,
    value: u32,
    min: u32,
    max: u32,
}

impl Resources {
    /// What a sprite gets when nothing is asked for, on a host with `host_cpus` CPUs.
    #[must_use]
    pub fn default_for(host_cpus: u32) -> Self {
        Self {
            cpus: host_cpus.clamp(1, 8),
            memory_mib: 4096,
            storage_gb: 100,
            pids: 16_384,
        }
    }

    /// The same sizes, if each is in its range.
    ///
    /// # Errors
    /// Names the first size that is not.
    pub fn checked(self) -> Result<Self, ResourcesError> {
        let ranges = [
            ("cpus", self.cpus, 1, 64),
            ("ram_mb", self.memory_mib, 128, 1 << 20),
            ("storage_gb", self.storage_gb, 1, 4096),
            ("pids", self.pids, 64, 1_000_000),
        ];
        for (field, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ResourcesError {
                    field,
                    value,
                    min,
                    max,
                });
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_checked_at_both_ends() {
        let sizes = Resources::default_for(2);
        assert_eq!(
            (sizes.cpus, sizes.memory_mib, sizes.storage_gb),
            (2, 4096, 100)
        );
        assert_eq!(Resources::default_for(64).cpus, 8);
        assert!(sizes.checked().is_ok());
        assert!(
            Resources {
                memory_mib: 127,
                ..sizes
            }
            .checked()
            .is_err()
        );
        assert!(
            Resources {
                memory_mib: 128,
                ..sizes
            }
            .checked()
            .is_ok()
        );
        assert!(Resources { cpus: 65, ..sizes }.checked().is_err());
        assert!(
            Resources {
                storage_gb: 0,
                ..sizes
            }
            .checked()
            .is_err()
        );
    }
}
