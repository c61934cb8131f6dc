//! What each kind of thread may call.
//!
//! A thread takes its filter before it touches anything that a guest or a client says. The main thread takes
//! its own once there is a machine: to make one needs much that is never needed again.
//!
//! A forbidden call does not happen; the program says which it was and ends with status 148, as Firecracker
//! does.

mod rules;
mod trap;

use std::io;

use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::virtio::ThreadKind;

pub use trap::tell_of_forbidden_calls;

/// The kinds of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// Looks after the clients of the control socket.
    Api,
    /// Owns the machine.
    Control,
    /// Runs a vCPU.
    Vcpu,
    /// Runs the devices that never block.
    EventLoop,
    /// Reads and writes a disk.
    BlockWorker,
}

impl From<ThreadKind> for Thread {
    fn from(kind: ThreadKind) -> Thread {
        match kind {
            ThreadKind::Vcpu => Thread::Vcpu,
            ThreadKind::EventLoop => Thread::EventLoop,
            ThreadKind::BlockWorker => Thread::BlockWorker,
        }
    }
}

/// Has all threads take memory from one heap. Before the first thread starts.
///
/// glibc makes further heaps for threads that meet, and opens a file when one of them shrinks, which no filter
/// allows. Source: glibc, `malloc/arena.c`, `shrink_heap`; `mallopt(3)`.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Lets the calling thread, and every thread that it starts, do only what a thread of this kind has to do. There
/// is no way back.
///
/// # Errors
/// The system refuses; the thread is as free as before then.
pub fn restrict(thread: Thread) -> io::Result<()> {
    let program = program(thread).map_err(io::Error::other)?;
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}

fn program(thread: Thread) -> Result<BpfProgram, BackendError> {
    let rules = rules::of(thread)?;
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(
        rules,
        SeccompAction::Trap,
        SeccompAction::Allow,
        architecture,
    )?
    .try_into()
}
