//! KVM as this host has it: a virtual machine of a few instructions, run to its halt.
//!
//! Everything else of this crate rests on it, and `cargo xtask kvm-test` takes it as the proof that a host's KVM
//! is of use. A host whose `/dev/kvm` opens but whose processor lends nothing may well pass it; the processor is
//! asked too.

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::VolatileMemory;

/// Where the instructions lie in the guest.
const CODE: u64 = 0x1000;
const MEMORY_BYTES: usize = 0x4000;

/// The port that the instructions write to.
const PORT: u16 = 0x217;

/// 2 + 40, written to [`PORT`], and then nothing more. Source: Intel SDM, volume 2, in 16-bit mode.
const INSTRUCTIONS: [u8; 9] = [
    0xba, 0x17, 0x02, // mov $0x217, %dx
    0xb0, 0x02, // mov $2, %al
    0x04, 0x28, // add $40, %al
    0xee, // out %al, (%dx)
    0xf4, // hlt
];

#[test]
fn a_machine_of_a_few_instructions_runs_to_its_halt() {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: /dev/kvm does not open ({error}); run cargo xtask kvm-test");
            return;
        }
    };
    assert_eq!(kvm.get_api_version(), 12);
    let vm = kvm.create_vm().expect("KVM makes a virtual machine");
    let memory = vm_memory::MmapRegion::<()>::new(MEMORY_BYTES).expect("memory can be mapped");
    let region = kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: CODE,
        memory_size: MEMORY_BYTES as u64,
        userspace_addr: memory.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the mapping is of this size, and lives longer than the machine.
    unsafe { vm.set_user_memory_region(region) }.expect("the machine takes the memory");
    memory.as_volatile_slice().copy_from(&INSTRUCTIONS);
    let mut vcpu = vm.create_vcpu(0).expect("KVM makes a processor");
    let mut special = vcpu.get_sregs().expect("the registers can be read");
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special)
        .expect("the registers can be written");
    let mut registers = vcpu.get_regs().expect("the registers can be read");
    registers.rip = CODE;
    registers.rflags = 2;
    vcpu.set_regs(&registers)
        .expect("the registers can be written");
    match vcpu.run().expect("the processor runs") {
        VcpuExit::IoOut(port, data) => assert_eq!((port, data), (PORT, &[42][..])),
        other => panic!("instead of writing to a port: {other:?}"),
    }
    match vcpu.run().expect("the processor runs on") {
        VcpuExit::Hlt => {}
        other => panic!("instead of halting: {other:?}"),
    }
}
