//! Requests: writable buffers to be filled.

use std::io;

use super::metrics::RngMetrics;
use crate::virtio::{BrokenQueue, Interrupt, VirtQueue};

/// Most bytes for one request. Drivers ask for 64 at a time; a buffer need not be filled to its end.
const MAX_BYTES: usize = 256;
/// Requests answered before other devices get their turn.
const BUDGET: usize = 32;

/// Whether the queue was emptied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    MoreToDo,
}

/// Answers requests, a bounded number of them.
pub(super) fn serve(
    queue: &mut VirtQueue,
    interrupt: &Interrupt,
    metrics: &RngMetrics,
) -> Result<Progress, BrokenQueue> {
    let memory = queue.memory();
    let mut returned = false;
    let mut progress = Progress::MoreToDo;
    for _ in 0..BUDGET {
        let Some(chain) = queue.pop(&memory)? else {
            if queue.ask_for_notification()? {
                continue;
            }
            progress = Progress::Done;
            break;
        };
        let mut bytes = [0; MAX_BYTES];
        let wanted = chain.writable.len().min(MAX_BYTES);
        let written = match fill(&mut bytes[..wanted]) {
            Ok(count) => chain.writable.copy_from(&bytes[..count]),
            Err(_refused) => {
                metrics.failures.inc();
                0
            }
        };
        metrics.requests.inc();
        metrics.bytes.add(written as u64);
        let written = u32::try_from(written).expect("at most MAX_BYTES");
        queue.add_used(chain.head, written)?;
        returned = true;
    }
    if returned && queue.wants_interrupt()? {
        interrupt.used_buffers();
    }
    Ok(progress)
}

/// Random bytes of the host's kernel; how many. Never waits: its generator is ready long before we run.
fn fill(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the pointer and the length are those of one slice that is ours alone; the kernel writes no more.
    let count =
        unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    usize::try_from(count).map_err(|_negative| io::Error::last_os_error())
}
