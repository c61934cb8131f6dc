//! The tests on this computer's own KVM.

use std::fs::{self, OpenOptions};
use std::path::Path;

use crate::failure::Outcome;
use crate::host::{Consent, Host, Privilege, target_directory, workspace};
use crate::kvm_test::suite::{self, Built, Selection, Tried};
use crate::program::Program;

/// The test program that makes a virtual machine, runs a few instructions in it, and fails where that does not do.
const PROOF: &str = "kvm_usable-";

/// Why this computer's own KVM does not do; nothing if it does.
pub fn obstacle(built: &Built) -> Option<String> {
    if let Some(why) = reluctance() {
        return Some(why);
    }
    let proof = built.programs.iter().find(|program| {
        program
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(PROOF))
    })?;
    match Program::new(proof).read() {
        Ok(_) => None,
        Err(failure) => Some(failure.to_string()),
    }
}

/// What already keeps this computer from lending its virtualization; nothing if it is worth a try.
pub fn reluctance() -> Option<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // There are computers on which it opens although the processor has nothing to lend.
    if !virtualizes(&processor) {
        return Some("the processor shows neither vmx nor svm".to_owned());
    }
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.err().map(|error| format!("open /dev/kvm: {error}"))
}

fn virtualizes(processor: &str) -> bool {
    processor
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

/// Runs those of the parts that are of use here.
///
/// # Errors
/// They cannot be run to their end.
pub fn test(
    host: &Host,
    selection: Selection<'_>,
    vmm: Option<&Path>,
    consent: Consent,
) -> Outcome<Tried> {
    host.agree(
        &["tests set up machines, networks, mounts and loop devices, and remove them".to_owned()],
        consent,
    )?;
    let mut all = Tried::default();
    for part in selection.parts().filter(|part| part.everywhere()) {
        let mut program = Program::cargo()
            .args(["nextest", "run", "--locked"])
            .args(suite::selection())
            .args(suite::words(part, selection))
            .dir(workspace());
        for (name, value) in part.environment(vmm) {
            program = program.env(name, value);
        }
        if host.privilege == Privilege::Sudo {
            let target = std::env::consts::ARCH.to_uppercase();
            let runner = format!("CARGO_TARGET_{target}_UNKNOWN_LINUX_GNU_RUNNER");
            program = program.env(runner, "sudo -n -E");
        }
        // How it ended is in the report.
        program.tee()?;
        all.add(part, &target_directory().join(suite::report()))?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::virtualizes;

    #[test]
    fn a_processor_is_asked_for_what_it_lends() {
        assert!(virtualizes("flags\t\t: fpu vmx sse\n"));
        assert!(virtualizes("flags\t\t: fpu svm\n"));
        assert!(!virtualizes("model name\t: vmx\nflags\t\t: fpu svm_lock\n"));
        assert!(!virtualizes(""));
    }
}
