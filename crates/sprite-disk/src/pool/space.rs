//! How much room there is, and when that is too little for another disk.

use std::io;
use std::path::Path;

use super::{Backing, Pool};

/// Room in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Nominal size of the pool.
    pub pool_total: u64,
    /// Free in the pool.
    pub pool_free: u64,
    /// Size of the file system that the pool's file lies on; equal to the pool's where the pool is a directory.
    pub outer_total: u64,
    /// Free there for root.
    pub outer_free: u64,
}

/// Which file system has too little room left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The pool itself.
    #[error(
        "the pool has {free} bytes left and keeps {reserve} for the sprites that exist; delete some sprites"
    )]
    Pool {
        /// Bytes left.
        free: u64,
        /// Bytes below which nothing new is made.
        reserve: u64,
    },
    /// The file system below the pool's file.
    #[error(
        "the file system below the pool has {free} bytes left and keeps {reserve} for the sprites that exist; \
         free some space on it"
    )]
    Outer {
        /// Bytes left.
        free: u64,
        /// Bytes below which nothing new is made.
        reserve: u64,
    },
}

impl Space {
    /// What is too full for another disk, if anything is.
    #[must_use]
    pub fn shortage(&self) -> Option<Shortage> {
        let (pool, outer) = (reserve(self.pool_total), reserve(self.outer_total));
        if self.outer_free < outer {
            return Some(Shortage::Outer {
                free: self.outer_free,
                reserve: outer,
            });
        }
        (self.pool_free < pool).then_some(Shortage::Pool {
            free: self.pool_free,
            reserve: pool,
        })
    }
}

/// What is kept free for the disks that exist: a twentieth, at most 4 GiB so that a large file system is not
/// called full early, at least 256 MiB so that journals and metadata always fit.
fn reserve(total: u64) -> u64 {
    (total / 20).clamp(256 << 20, 4 << 30)
}

impl Pool {
    /// How much room there is now.
    ///
    /// # Errors
    /// The file system does not answer.
    pub fn space(&self) -> io::Result<Space> {
        let (pool_total, pool_free) = measure(&self.inner.root)?;
        let (outer_total, outer_free) = match self.inner.backing {
            Backing::Directory => (pool_total, pool_free),
            Backing::File => measure(&self.inner.data_dir)?,
        };
        Ok(Space {
            pool_total,
            pool_free,
            outer_total,
            outer_free,
        })
    }
}

/// Total and free bytes of the file system of `path`.
pub(super) fn measure(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok((bytes(stat.f_blocks), bytes(stat.f_bavail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: u64 = 1 << 40;

    #[test]
    fn the_reserve_is_the_limit() {
        let full = |pool_free, outer_free| {
            Space {
                pool_total: LARGE,
                pool_free,
                outer_total: LARGE,
                outer_free,
            }
            .shortage()
        };
        let reserve = reserve(LARGE);
        assert_eq!(full(reserve, reserve), None);
        assert_eq!(
            full(reserve - 1, reserve),
            Some(Shortage::Pool {
                free: reserve - 1,
                reserve
            })
        );
        assert_eq!(
            full(reserve, reserve - 1),
            Some(Shortage::Outer {
                free: reserve - 1,
                reserve
            })
        );
    }
}
