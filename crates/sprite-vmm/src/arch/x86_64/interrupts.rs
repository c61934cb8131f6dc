//! Interrupt controllers and lines.
//!
//! KVM keeps the controllers (two PICs, an I/O APIC, the local APICs) and the timer. Lines are the I/O APIC's
//! inputs; a device raises its line by an event descriptor that KVM listens to.
//!
//! The PICs have no inputs. Nobody programs them, for reduced hardware has none; but the first CPU begins with
//! an ear for them, and would take a device's line for one of its own exceptions.

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQCHIP_IOAPIC, KvmIrqRouting, kvm_irq_routing_entry,
    kvm_irq_routing_irqchip, kvm_pit_config,
};
use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::arch::native::layout::{KVM_IDENTITY_MAP, KVM_TSS};

/// The line by which ACPI is told that something happened (a new generation id).
pub const EVENT_LINE: u32 = 5;
/// The first line for a virtio device.
pub const FIRST_VIRTIO_LINE: u32 = 6;
/// The last line of the I/O APIC. Source: `KVM_IOAPIC_NUM_PINS` is 24.
pub const LAST_LINE: u32 = 23;
/// How many virtio devices can have a line of their own.
pub const VIRTIO_LINES: u32 = LAST_LINE - FIRST_VIRTIO_LINE + 1;

const _: () = assert!(crate::serial::INTERRUPT < EVENT_LINE);

/// A failure to make the controllers.
#[derive(Debug, thiserror::Error)]
pub enum InterruptError {
    /// KVM's own pages.
    #[error("give KVM its pages")]
    Pages(#[source] kvm_ioctls::Error),
    /// The controllers.
    #[error("create the interrupt controllers")]
    Controllers(#[source] kvm_ioctls::Error),
    /// The lines.
    #[error("lead the interrupt lines to the I/O APIC")]
    Lines(#[source] kvm_ioctls::Error),
    /// The timer.
    #[error("create the interval timer")]
    Timer(#[source] kvm_ioctls::Error),
    /// The event descriptor.
    #[error("make an event for interrupt line {line}")]
    Event {
        /// Which.
        line: u32,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The connection of both.
    #[error("connect interrupt line {line}")]
    Connect {
        /// Which.
        line: u32,
        /// What KVM said.
        #[source]
        source: kvm_ioctls::Error,
    },
}

/// Makes interrupt controllers and timer. Before the first vCPU.
///
/// # Errors
/// [`InterruptError`].
pub fn create_controllers(vm: &VmFd) -> Result<(), InterruptError> {
    vm.set_identity_map_address(KVM_IDENTITY_MAP)
        .map_err(InterruptError::Pages)?;
    vm.set_tss_address(KVM_TSS).map_err(InterruptError::Pages)?;
    vm.create_irq_chip().map_err(InterruptError::Controllers)?;
    vm.set_gsi_routing(&routing())
        .map_err(InterruptError::Lines)?;
    let timer = kvm_pit_config {
        // The port of the PC's loudspeaker belongs to the timer; without this an access to it would exit.
        flags: kvm_bindings::KVM_PIT_SPEAKER_DUMMY,
        ..kvm_pit_config::default()
    };
    vm.create_pit2(timer).map_err(InterruptError::Timer)
}

/// Every line to the input of the I/O APIC with its number.
fn routing() -> KvmIrqRouting {
    let entries: Vec<kvm_irq_routing_entry> = (0..=LAST_LINE)
        .map(|line| {
            let mut entry = kvm_irq_routing_entry {
                gsi: line,
                type_: KVM_IRQ_ROUTING_IRQCHIP,
                ..kvm_irq_routing_entry::default()
            };
            entry.u.irqchip = kvm_irq_routing_irqchip {
                irqchip: KVM_IRQCHIP_IOAPIC,
                pin: line,
            };
            entry
        })
        .collect();
    KvmIrqRouting::from_entries(&entries).expect("a few entries")
}

/// An event descriptor: each write is one edge on `line`.
///
/// # Errors
/// [`InterruptError`].
pub fn line(vm: &VmFd, line: u32) -> Result<EventFd, InterruptError> {
    let event =
        EventFd::new(EFD_NONBLOCK).map_err(|source| InterruptError::Event { line, source })?;
    vm.register_irqfd(&event, line)
        .map_err(|source| InterruptError::Connect { line, source })?;
    Ok(event)
}
