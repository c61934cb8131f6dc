//! Whether the host is short of memory: something waits for it, by the kernel's pressure stall information, and little
//! is left. Either says too little by itself. What a machine waits for that uses up its own limit counts as the host's
//! pressure too, and nobody else is to pay for that; and a host that uses what it has need not be slow.
//!
//! Source: Documentation/accounting/psi.rst, "Monitoring for pressure thresholds"; proc_meminfo(5).

use std::fs::{File, OpenOptions};
use std::io::{self, Write};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

const HOST: &str = "/proc/pressure/memory";
const MEMORY: &str = "/proc/meminfo";

/// Of so many parts of the host's memory one is left at most, with what is in caches, when it is short.
const PARTS: u64 = 10;

/// Of two seconds something waited for memory for 300 ms, in microseconds. It is told once in that time. Shorter times want a
/// right that root of a container may lack.
const TRIGGER: &[u8] = b"some 300000 2000000\0";

/// What the kernel is asked, from the first time on that somebody wants to know.
#[derive(Debug, Default)]
pub(super) struct Pressure(OnceCell<Option<AsyncFd<File>>>);

impl Pressure {
    /// Returns when the host is short of memory; never where the kernel does not tell.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn told(&self) {
        let trigger = self.0.get_or_init(async || {
            let opened = open();
            let untold = |error: &io::Error| {
                tracing::info!(%error, "the kernel does not tell of short memory");
            };
            opened.inspect_err(untold).ok()
        });
        let Some(trigger) = trigger.await else {
            return std::future::pending().await;
        };
        while let Ok(mut told) = trigger.ready(Interest::PRIORITY).await {
            told.clear_ready();
            let memory = tokio::fs::read_to_string(MEMORY).await;
            if memory.is_ok_and(|memory| is_short(&memory)) {
                return;
            }
        }
        std::future::pending().await
    }
}

/// Whether little is left, by what the kernel tells of its memory.
fn is_short(memory: &str) -> bool {
    let kibibytes = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (Some(all), Some(left)) = (kibibytes("MemTotal:"), kibibytes("MemAvailable:")) else {
        return false;
    };
    left.saturating_mul(PARTS) <= all
}

/// Asks the kernel to tell. Must be called within a tokio runtime.
fn open() -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).write(true).open(HOST)?;
    file.write_all(TRIGGER)?;
    // SAFETY: the file is its own, and is not closed while it is registered.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::PRIORITY) }?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn memory_is_short_when_a_tenth_is_left() {
        let told = |left: u64| {
            format!(
                "MemTotal:       24684308 kB\nMemFree:  1 kB\nMemAvailable:   {left} kB\nBuffers: 7 kB\n"
            )
        };
        assert!(is_short(&told(2_468_430)));
        assert!(!is_short(&told(2_468_431)));
        assert!(!is_short("MemTotal: 5 kB\n"), "an old kernel does not tell");
        let here = std::fs::read_to_string(MEMORY).expect("the kernel tells");
        assert!(here.contains("\nMemAvailable:"));
    }

    /// That memory is really short cannot be brought about on a computer that others use.
    #[tokio::test]
    async fn the_kernel_takes_the_question() {
        match open() {
            Ok(trigger) => {
                let told = tokio::time::timeout(
                    Duration::from_millis(10),
                    trigger.ready(Interest::PRIORITY),
                );
                // Whether it is short is not ours to say; that it can be waited for is.
                if let Ok(told) = told.await {
                    told.expect("the kernel tells").clear_ready();
                }
            }
            Err(error) => {
                let untold = [
                    io::ErrorKind::NotFound,
                    io::ErrorKind::PermissionDenied,
                    io::ErrorKind::Unsupported,
                ];
                assert!(untold.contains(&error.kind()), "{error}");
            }
        }
    }
}
