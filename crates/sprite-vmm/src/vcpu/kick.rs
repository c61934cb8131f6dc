//! How a vCPU is got out of KVM.
//!
//! Two things together leave no gap: a byte shared with KVM that keeps the vCPU from entering the guest the
//! next time, and a signal that interrupts it if it is in there now. Whoever kicks sets the byte first; the
//! vCPU clears it before it looks for commands.

use std::os::unix::thread::RawPthread;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Where the thread is, and the byte it shares with KVM.
struct Target {
    thread: RawPthread,
    immediate_exit: NonNull<AtomicU8>,
}

// SAFETY: the pointer is used only under the lock of `Kick` and only while the thread is registered, during
// which the mapping behind it stays; the byte is accessed atomically.
unsafe impl Send for Target {}

/// Gets one vCPU out of KVM.
#[derive(Default)]
pub(super) struct Kick(Mutex<Option<Target>>);

/// A registration. It ends before the vCPU does.
pub(super) struct Registered<'a>(&'a Kick);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        *self.0.target() = None;
    }
}

impl Kick {
    /// Called by the vCPU's own thread before it enters KVM. `fd` must outlive what comes back.
    pub(super) fn register(&self, fd: &mut VcpuFd) -> Registered<'_> {
        let byte = NonNull::from(&mut fd.get_kvm_run().immediate_exit);
        *self.target() = Some(Target {
            // SAFETY: it only returns the caller's own id.
            thread: unsafe { libc::pthread_self() },
            immediate_exit: byte.cast(),
        });
        Registered(self)
    }

    /// Makes the vCPU leave KVM, now or when it enters next. A thread that has not registered yet, or no
    /// longer, looks for commands by itself.
    pub(super) fn kick(&self) {
        if let Some(target) = &*self.target() {
            target.byte().store(1, Ordering::SeqCst);
            // SAFETY: the thread is registered, so it has not ended; the signal has a handler
            // (`install_handler`), so it ends nothing.
            let sent = unsafe { libc::pthread_kill(target.thread, SIGRTMIN()) };
            assert_eq!(sent, 0, "a living thread takes a signal that exists");
        }
    }

    /// Called by the vCPU's own thread, before it looks for commands.
    pub(super) fn clear(&self) {
        if let Some(target) = &*self.target() {
            target.byte().store(0, Ordering::SeqCst);
        }
    }

    fn target(&self) -> MutexGuard<'_, Option<Target>> {
        // A target is replaced whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target {
    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the byte is in a mapping that stays as long as the thread is registered, is aligned as
        // every byte is, and KVM only reads it.
        unsafe { self.immediate_exit.as_ref() }
    }
}

extern "C" fn interrupt(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Gives the signal that interrupts KVM a handler that does nothing. Once, before the first vCPU runs.
///
/// # Errors
/// The system refuses.
pub fn install_handler() -> Result<(), errno::Error> {
    register_signal_handler(SIGRTMIN(), interrupt)
}
