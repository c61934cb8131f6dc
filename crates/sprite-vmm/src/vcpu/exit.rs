//! What a vCPU comes out of KVM for.

use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::VcpuExit;

use super::Vcpu;
use super::kick::Kick;
use crate::end::End;

/// What comes after running the guest for a while.
pub(super) enum Next {
    /// Someone kicked.
    Commands,
    /// The guest ended.
    Ended(End),
}

/// Runs the guest until someone kicks or it ends.
pub(super) fn run_until_kicked(vcpu: &mut Vcpu, kick: &Kick) -> Next {
    loop {
        if let Some(end) = vcpu.end.get() {
            // A port just written ended the guest, on this vCPU or on another: it runs no further.
            return Next::Ended(end.clone());
        }
        match vcpu.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => vcpu.memory_bus.read(address, data),
            Ok(VcpuExit::MmioWrite(address, data)) => vcpu.memory_bus.write(address, data),
            Ok(VcpuExit::IoIn(port, data)) => vcpu.port_bus.read(u64::from(port), data),
            Ok(VcpuExit::IoOut(port, data)) => vcpu.port_bus.write(u64::from(port), data),
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::IoapicEoi(_)) => {}
            Ok(VcpuExit::InternalError) => return Next::Ended(internal_error(vcpu)),
            Ok(other) => return Next::Ended(end_of(vcpu.id, &other)),
            Err(error) => match error.errno() {
                // Interrupted: here, with every access to a device finished, commands are looked for.
                libc::EINTR => {
                    kick.clear();
                    return Next::Commands;
                }
                // KVM wants to be entered anew, as when a CPU is started by another one.
                libc::EAGAIN => {}
                _ => {
                    return Next::Ended(End::Broken {
                        vcpu: vcpu.id,
                        what: error.to_string(),
                    });
                }
            },
        }
    }
}

/// KVM cannot go on: which of its reasons, and where the guest was.
fn internal_error(vcpu: &mut Vcpu) -> End {
    // SAFETY: after an exit for an internal error this part of the union is the one that KVM filled.
    let reason = unsafe { vcpu.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
    let at = vcpu.fd.get_regs().map_or(0, |registers| registers.rip);
    End::Broken {
        vcpu: vcpu.id,
        what: format!("KVM cannot emulate what it does at {at:#x} (internal error {reason})"),
    }
}

/// What an exit means after which there is nothing to run.
fn end_of(vcpu: u8, exit: &VcpuExit<'_>) -> End {
    let broken = |what: String| End::Broken { vcpu, what };
    match exit {
        VcpuExit::Shutdown => End::TripleFault,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_RESET, _) => End::Reset,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN, _) => End::PowerOff,
        VcpuExit::SystemEvent(KVM_SYSTEM_EVENT_CRASH, _) => broken("the guest crashed".to_owned()),
        VcpuExit::FailEntry(reason, cpu) => broken(format!(
            "the processor does not enter it (reason {reason:#x} on CPU {cpu})"
        )),
        // KVM's own interrupt controllers handle a halt; the rest was never switched on.
        other => broken(format!("KVM left it with {other:?}")),
    }
}
