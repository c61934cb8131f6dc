//! How a guest ends, and who is told.

use std::io;
use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Why a guest runs no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It restarted itself: reset by the keyboard controller or by ACPI. The program ends, as with a reboot.
    Reset,
    /// It switched itself off.
    PowerOff,
    /// A fault while handling a fault while handling a fault: the CPU's own reset.
    TripleFault,
    /// KVM could not go on with it.
    Broken {
        /// On which vCPU.
        vcpu: u8,
        /// What KVM said.
        what: String,
    },
}

impl End {
    /// Whether the guest wanted this.
    #[must_use]
    pub fn is_orderly(&self) -> bool {
        match self {
            End::Reset | End::PowerOff => true,
            End::TripleFault | End::Broken { .. } => false,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Reset => out.write_str("the guest restarted"),
            End::PowerOff => out.write_str("the guest switched itself off"),
            End::TripleFault => out.write_str("the guest's CPU met a triple fault"),
            End::Broken { vcpu, what } => write!(out, "vCPU {vcpu} cannot go on: {what}"),
        }
    }
}

/// The end of one guest: told once, the first reason counts.
#[derive(Debug)]
pub struct EndSignal {
    end: OnceLock<End>,
    event: EventFd,
}

impl EndSignal {
    /// A guest that has not ended.
    ///
    /// # Errors
    /// The system gives no event descriptor.
    pub fn new() -> io::Result<EndSignal> {
        Ok(EndSignal {
            end: OnceLock::new(),
            event: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Tells the end. Later ones change nothing.
    pub fn tell(&self, end: End) {
        if self.end.set(end).is_ok() {
            self.event
                .write(1)
                .expect("a counter that is written once does not overflow");
        }
    }

    /// Why the guest ended, once it has.
    #[must_use]
    pub fn get(&self) -> Option<&End> {
        self.end.get()
    }

    /// Readable from the end on.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts_and_is_told_once() {
        let signal = EndSignal::new().expect("an event descriptor");
        assert_eq!(signal.get(), None);
        assert!(signal.event().read().is_err());
        signal.tell(End::Reset);
        signal.tell(End::TripleFault);
        assert_eq!(signal.get(), Some(&End::Reset));
        assert_eq!(signal.event().read().ok(), Some(1));
    }

    #[test]
    fn only_what_the_guest_asked_for_is_orderly() {
        assert!(End::Reset.is_orderly() && End::PowerOff.is_orderly());
        assert!(!End::TripleFault.is_orderly());
    }
}
