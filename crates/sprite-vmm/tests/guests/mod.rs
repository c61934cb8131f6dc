//! Guests of a few instructions, each in an ELF file with a PVH entry as a kernel has it.
#![allow(dead_code, reason = "each test file uses its part of it")]

mod code;
mod elf;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sprite_vmm::config::VmConfig;
use sprite_vmm::end::End;
use sprite_vmm::virtio::unrestricted;
use sprite_vmm::vm::{LoadError, Vm, VmState};
use tempfile::TempDir;
use vm_memory::{Bytes, GuestAddress};

pub use code::Program;

/// Where guests and tests tell each other something: an address each, of 32 bits.
pub const COUNTER: GuestAddress = GuestAddress(0x20_0000);
pub const SIGNAL: GuestAddress = GuestAddress(0x20_0004);
pub const RESULT: GuestAddress = GuestAddress(0x20_0008);

/// Guests have this much memory.
pub const MEMORY_MIB: u64 = 4;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether machines can be made here. If not, the test says so in one line and passes.
pub fn kvm_opens() -> bool {
    match kvm_ioctls::Kvm::new() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("skipped: /dev/kvm does not open ({error}); run cargo xtask kvm-test");
            false
        }
    }
}

/// A directory with a program and a console, and what machines of it are configured with.
pub struct Setting {
    directory: TempDir,
    config: Value,
}

impl Setting {
    /// One for a machine that runs `program`.
    pub fn of(program: Program) -> Setting {
        let directory = tempfile::tempdir().expect("a directory");
        let kernel = directory.path().join("kernel");
        std::fs::write(&kernel, elf::kernel(program.code())).expect("written");
        let config = json!({
            "machine-config": { "vcpu_count": 1, "mem_size_mib": MEMORY_MIB },
            "cpu-config": {},
            "boot-source": { "kernel_image_path": kernel, "boot_args": "" },
            "drives": [],
            "network-interfaces": [],
            "vsock": null,
            "entropy": null,
            "serial": { "serial_out_path": directory.path().join("console") },
        });
        Setting { directory, config }
    }

    /// With another number of vCPUs.
    pub fn vcpus(mut self, count: u8) -> Setting {
        self.config["machine-config"]["vcpu_count"] = json!(count);
        self
    }

    /// With a source of randomness as first device.
    pub fn entropy(mut self) -> Setting {
        self.config["entropy"] = json!({});
        self
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What machines are made of.
    pub fn config(&self) -> VmConfig {
        serde_json::from_value(self.config.clone()).expect("a valid configuration")
    }

    /// A running machine.
    pub fn boot(&self) -> Vm {
        Vm::boot(&self.config(), &unrestricted()).expect("it boots")
    }

    /// What the guest printed.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.path("console")).expect("a console of text")
    }

    /// Saves a paused machine, state and memory, and ends it.
    pub fn save(&self, mut vm: Vm) -> Saved {
        let state = vm.save().expect("saved");
        let text = serde_json::to_string(&state).expect("a state is serializable");
        let memory = self.path("memory");
        write_memory(&vm, &memory);
        Saved { text, memory }
    }

    /// A paused machine of what was saved.
    pub fn load(&self, saved: &Saved) -> Vm {
        self.try_to_load(saved).expect("it loads")
    }

    /// The same, if it is taken.
    pub fn try_to_load(&self, saved: &Saved) -> Result<Vm, LoadError> {
        let file = std::fs::File::open(&saved.memory).expect("opened");
        let memory = sprite_vmm::memory::from_file(file, MEMORY_MIB << 20).expect("mapped");
        Vm::load(&self.config(), &saved.state(), memory, &unrestricted())
    }
}

/// A machine on disk, as simple as can be.
pub struct Saved {
    text: String,
    memory: PathBuf,
}

impl Saved {
    pub fn state(&self) -> VmState {
        serde_json::from_str(&self.text).expect("what was serialized")
    }

    /// The state as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same, changed.
    pub fn edit(self, edit: impl FnOnce(&mut Value)) -> Saved {
        let mut state = serde_json::from_str(&self.text).expect("what was serialized");
        edit(&mut state);
        Saved {
            text: state.to_string(),
            ..self
        }
    }
}

fn write_memory(vm: &Vm, path: &Path) {
    let mut bytes = vec![0; usize::try_from(MEMORY_MIB << 20).expect("small")];
    vm.memory()
        .read_slice(&mut bytes, GuestAddress(0))
        .expect("all of it");
    std::fs::write(path, bytes).expect("written");
}

/// What the guest has at an address.
pub fn peek(vm: &Vm, address: GuestAddress) -> u32 {
    vm.memory().read_obj(address).expect("in memory")
}

/// Tells the guest something.
pub fn poke(vm: &Vm, address: GuestAddress, value: u32) {
    vm.memory().write_obj(value, address).expect("in memory");
}

/// Waits until the guest's memory is as wanted. There is no event to wait for: the guest writes memory alone.
pub fn eventually(vm: &Vm, address: GuestAddress, wanted: impl Fn(u32) -> bool) -> u32 {
    let begin = Instant::now();
    loop {
        let value = peek(vm, address);
        if wanted(value) {
            return value;
        }
        assert!(
            begin.elapsed() < LIMIT,
            "still {value:#x} at {:#x}; end: {:?}; console: {}",
            address.0,
            vm.end().get(),
            String::from_utf8_lossy(&vm.console())
        );
        std::thread::yield_now();
    }
}

/// Waits for the guest's end.
pub fn end_of(vm: &Vm) -> End {
    use std::os::fd::AsRawFd;
    let end = vm.end();
    let mut poll = libc::pollfd {
        fd: end.event().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = i32::try_from(LIMIT.as_millis()).expect("small");
    // SAFETY: one pollfd that lives until the call is over.
    let ready = unsafe { libc::poll(&raw mut poll, 1, limit) };
    assert_eq!(ready, 1, "the guest does not end");
    end.get().cloned().expect("told before the event")
}
