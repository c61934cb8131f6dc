//! What the same work costs with nothing but the kernel: the floors that monitors are measured against.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VmFd};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::failure::{Failure, Outcome, io_failure, kvm_failure};

/// A program that writes to a port: `out 0x80, al`.
const CODE: [u8; 2] = [0xe6, 0x80];
const CODE_AT: usize = 0x1000;

/// Where KVM may keep three pages of its own: below 4 GiB, where no guest has memory. Source: Documentation/virt/kvm/api.rst,
/// `KVM_SET_TSS_ADDR`.
const TSS: usize = 0xfffb_d000;

/// Opens KVM, makes a machine with its interrupt controllers and one CPU over the memory file, and runs it to its
/// first exit.
///
/// # Errors
/// KVM does not do one of these.
pub(crate) fn load(memory: &Path, bytes: usize) -> Outcome<Duration> {
    let begun = Instant::now();
    let kvm = Kvm::new().map_err(kvm_failure("open /dev/kvm"))?;
    let vm = kvm.create_vm().map_err(kvm_failure("make a machine"))?;
    vm.set_tss_address(TSS)
        .map_err(kvm_failure("place the task state"))?;
    vm.create_irq_chip()
        .map_err(kvm_failure("make interrupt controllers"))?;
    let file = File::open(memory).map_err(io_failure("open the memory file"))?;
    let mapping = Mapping::new(&file, bytes)?;
    mapping.write(CODE_AT, &CODE);
    // Declared after the mapping, so gone before it: the guest never has memory that is none.
    let vm = Guest(vm);
    vm.give(&mapping)?;
    let mut vcpu = vm.0.create_vcpu(0).map_err(kvm_failure("make a CPU"))?;
    let step = || kvm_failure("set the CPU's registers");
    let mut special = vcpu.get_sregs().map_err(step())?;
    special.cs.base = 0;
    special.cs.selector = 0;
    vcpu.set_sregs(&special).map_err(step())?;
    let mut registers = vcpu.get_regs().map_err(step())?;
    registers.rip = CODE_AT as u64;
    vcpu.set_regs(&registers).map_err(step())?;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(..)) => return Ok(begun.elapsed()),
            Ok(exit) => {
                let exit = format!("{exit:?}");
                return Err(Failure::Check(format!(
                    "the floor's guest ended with {exit}"
                )));
            }
            Err(error) if error.errno() == rustix::io::Errno::INTR.raw_os_error() => {}
            Err(error) => return Err(kvm_failure("run the CPU")(error)),
        }
    }
}

struct Guest(VmFd);

impl Guest {
    fn give(&self, mapping: &Mapping) -> Outcome {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: mapping.bytes as u64,
            userspace_addr: mapping.start as u64,
        };
        // SAFETY: the mapping is ours alone, has this length, and outlives the machine, see `load`.
        unsafe { self.0.set_user_memory_region(region) }.map_err(kvm_failure("give it memory"))
    }
}

/// A private mapping of a file.
struct Mapping {
    start: *mut core::ffi::c_void,
    bytes: usize,
}

impl Mapping {
    fn new(file: &File, bytes: usize) -> Outcome<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: the kernel chooses where; nothing that exists is changed.
        let start = unsafe { mmap(null_mut(), bytes, access, flags, file, 0) };
        let start = start.map_err(|error| io_failure("map the memory file")(error.into()))?;
        Ok(Self { start, bytes })
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.bytes, "the code lies in memory");
        // SAFETY: in the mapping, as was just looked at, which is writable and of which there is no reference.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.start.cast::<u8>().add(at),
                bytes.len(),
            );
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: ours, whole, and nobody uses it any more. It does not fail for what was mapped.
        let _ = unsafe { munmap(self.start, self.bytes) };
    }
}

/// Starts a program that does nothing and waits for its end.
///
/// # Errors
/// It does not start.
pub(crate) fn start(program: &Path) -> Outcome<Duration> {
    let step = || io_failure(format!("run {}", program.display()));
    let begun = Instant::now();
    let status = Command::new(program).status().map_err(step())?;
    let took = begun.elapsed();
    match status.success() {
        true => Ok(took),
        false => Err(step()(ErrorKind::Other.into())),
    }
}
