//! Whether this host can run hardware virtual machines, and if not, why and what a person can do.
//!
//! That `/dev/kvm` opens is not enough: there are hosts on which it does although the processor has no
//! virtualization to lend, and an ordinary guest kernel runs thousands of times too slowly there. So the
//! processor is asked too.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

const DEVICE: &str = "/dev/kvm";
const PROCESSOR: &str = "/proc/cpuinfo";

/// Source: linux/kvm.h, `_IO(KVMIO, 0x00)` and `_IO(KVMIO, 0x01)`.
const KVM_GET_API_VERSION: libc::c_ulong = 0xAE00;
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;

/// Source: Documentation/virt/kvm/api.rst, section 4.1: other versions are not to be used.
const API_VERSION: libc::c_int = 12;

/// Why machines of the `microvm` driver cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The kernel offers no KVM, and the processor shows no virtualization either.
    #[error("there is no /dev/kvm, and the processor shows neither vmx nor svm")]
    NoVirtualization,
    /// The processor could, but nobody loaded the module.
    #[error("there is no /dev/kvm, although the processor has {}", flag.name())]
    NoModule {
        /// What the processor shows.
        flag: Virtualization,
    },
    /// The device is there, but not for this user.
    #[error("/dev/kvm may not be opened by this user")]
    Denied,
    /// The device is there and does not open.
    #[error("open /dev/kvm")]
    Open(#[source] io::Error),
    /// What opened does not answer as KVM does.
    #[error("ask /dev/kvm for its version")]
    NotKvm(#[source] io::Error),
    /// A version of the interface that nobody knows.
    #[error("/dev/kvm has version {found} of its interface, not 12")]
    Version {
        /// What it answered.
        found: i32,
    },
    /// KVM makes no virtual machine.
    #[error("make a virtual machine")]
    CreateVm(#[source] io::Error),
    /// KVM makes virtual machines, but the processor does not run them.
    #[error("/dev/kvm opens, but the processor shows neither vmx nor svm")]
    NoProcessor,
}

/// What x86 processors call their hardware virtualization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// Intel's VMX.
    Vmx,
    /// AMD's SVM.
    Svm,
}

impl Virtualization {
    /// The flag as `/proc/cpuinfo` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmx => "vmx",
            Self::Svm => "svm",
        }
    }

    /// The kernel's module for it.
    fn module(self) -> &'static str {
        match self {
            Self::Vmx => "kvm_intel",
            Self::Svm => "kvm_amd",
        }
    }
}

impl Unusable {
    /// What a person can do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoVirtualization | Self::NoProcessor => {
                "turn virtualization on in the firmware (VT-x, AMD-V); on a virtual machine, turn nested \
                 virtualization on in its host or rent one that has it"
                    .to_owned()
            }
            Self::NoModule { flag } => format!(
                "load the module: modprobe {}; if it refuses, turn virtualization on in the firmware",
                flag.module()
            ),
            Self::Denied => "run as root, or join the group that owns /dev/kvm".to_owned(),
            Self::Open(_) | Self::NotKvm(_) | Self::CreateVm(_) => {
                "look for kvm in the output of dmesg; another hypervisor may hold the processor".to_owned()
            }
            Self::Version { .. } => "use a mainline kernel: all since 2.6.22 have version 12".to_owned(),
        }
    }
}

/// Whether hardware virtual machines run here, and by what. Makes one virtual machine and drops it at once;
/// takes less than a millisecond and changes nothing.
///
/// # Errors
/// The first thing that stands in the way.
pub fn probe() -> Result<Virtualization, Unusable> {
    // A host whose processor cannot be read about is treated as one without virtualization.
    let processor = fs::read_to_string(PROCESSOR).unwrap_or_default();
    probe_at(Path::new(DEVICE), virtualization(&processor))
}

fn probe_at(device: &Path, flag: Option<Virtualization>) -> Result<Virtualization, Unusable> {
    let opened = OpenOptions::new().read(true).write(true).open(device);
    let kvm = opened.map_err(|error| match (error.kind(), flag) {
        // The node may stay when its module is gone: opening it then says ENODEV or ENXIO.
        (io::ErrorKind::NotFound, _) => missing(flag),
        _ if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO)) => missing(flag),
        (io::ErrorKind::PermissionDenied, _) => Unusable::Denied,
        _ => Unusable::Open(error),
    })?;
    let found = ioctl(&kvm, KVM_GET_API_VERSION).map_err(Unusable::NotKvm)?;
    if found != API_VERSION {
        return Err(Unusable::Version { found });
    }
    let machine = ioctl(&kvm, KVM_CREATE_VM).map_err(Unusable::CreateVm)?;
    // SAFETY: KVM_CREATE_VM returned a descriptor that nobody else knows.
    drop(unsafe { OwnedFd::from_raw_fd(machine) });
    flag.ok_or(Unusable::NoProcessor)
}

fn missing(flag: Option<Virtualization>) -> Unusable {
    flag.map_or(Unusable::NoVirtualization, |flag| Unusable::NoModule {
        flag,
    })
}

/// One of KVM's requests whose argument is a zero: machine type 0 for a new machine, none for the version.
fn ioctl(device: &impl AsRawFd, request: libc::c_ulong) -> io::Result<libc::c_int> {
    // SAFETY: the descriptor is open for the whole call; both requests take a number and no pointer.
    let answer = unsafe { libc::ioctl(device.as_raw_fd(), request, 0) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// What the processor shows. Source: proc_cpuinfo(5), one line `flags` for each processor.
fn virtualization(cpuinfo: &str) -> Option<Virtualization> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    let (_, flags) = line.split_once(':')?;
    flags.split_whitespace().find_map(|flag| match flag {
        "vmx" => Some(Virtualization::Vmx),
        "svm" => Some(Virtualization::Svm),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_flags_are_read_as_words() {
        let of = |flags: &str| virtualization(&format!("processor\t: 0\nflags\t\t: {flags}\n"));
        assert_eq!(of("fpu vmx sse"), Some(Virtualization::Vmx));
        assert_eq!(of("fpu svm"), Some(Virtualization::Svm));
        assert_eq!(of("fpu svm_lock vmx_tsc"), None);
        assert_eq!(virtualization("vmx flags\t\t: vmx\n"), None);
        assert_eq!(virtualization(""), None);
    }

    #[test]
    fn a_missing_device_is_told_by_what_the_processor_can() {
        let none = Path::new("/nonexistent/kvm");
        let unusable = probe_at(none, None).expect_err("there is none");
        assert!(matches!(unusable, Unusable::NoVirtualization));
        let unusable = probe_at(none, Some(Virtualization::Svm)).expect_err("there is none");
        assert!(unusable.to_string().contains("svm"), "{unusable}");
        assert!(unusable.remedy().contains("modprobe kvm_amd"));
    }

    #[test]
    fn another_device_is_not_taken_for_kvm() {
        let unusable = probe_at(Path::new("/dev/null"), Some(Virtualization::Vmx));
        assert!(matches!(unusable, Err(Unusable::NotKvm(_))), "{unusable:?}");
    }

    #[test]
    fn a_device_that_opens_is_not_enough_without_the_processor() {
        // Wherever the device works, a processor without the flags makes it unusable; elsewhere it is
        // unusable for another reason.
        let unusable = probe_at(Path::new(DEVICE), None).expect_err("no flag, no use");
        assert!(!unusable.remedy().is_empty());
    }
}
