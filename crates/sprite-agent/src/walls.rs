//! What stands between an environment and its host.

use std::ffi::CString;
use std::io;

use crate::environment::Memory;
use crate::sys;

/// The two kinds of walls. `run` is told which as its arguments, and tells `spawn` in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walls {
    /// Namespaces of the host's own kernel: the environment is confined, and the agent too.
    Container {
        /// So many descriptors of the environment's cgroups were left open for `run` and `spawn`.
        cgroups: i32,
        memory: Memory,
    },
    /// A virtual machine with a kernel of its own. The environment is root of all that there is; it has
    /// namespaces of its own so that it and the agent do not get in each other's way.
    Guest,
}

const CONTAINER: &str = "container";
const GUEST: &str = "guest";

impl Walls {
    /// The walls that this program's arguments tell, behind its role.
    pub(crate) fn of_arguments() -> Option<Self> {
        Self::parse(std::env::args().skip(2))
    }

    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        match arguments.next()?.as_str() {
            CONTAINER => {
                let mut number = || arguments.next()?.parse().ok();
                Some(Self::Container {
                    cgroups: number()?,
                    memory: Memory::of_mib(number()?),
                })
            }
            GUEST => Some(Self::Guest),
            _ => None,
        }
    }

    /// The arguments that tell these walls.
    pub(crate) fn to_arguments(self) -> Vec<String> {
        match self {
            Self::Container { cgroups, memory } => vec![
                CONTAINER.to_owned(),
                cgroups.to_string(),
                memory.to_mib().to_string(),
            ],
            Self::Guest => vec![GUEST.to_owned()],
        }
    }

    /// The environment's root user as the agent names it. In a container the machine's ids begin with the
    /// agent's own.
    pub(crate) fn environment_root(self) -> u32 {
        match self {
            Self::Container { .. } => 1,
            Self::Guest => 0,
        }
    }

    /// Memory of the environment.
    pub(crate) fn memory(self) -> Memory {
        match self {
            Self::Container { memory, .. } => memory,
            Self::Guest => Memory::of_kernel(),
        }
    }

    /// The namespaces that a process enters to be in the environment, which it was forked into already.
    pub(crate) fn namespaces(self) -> libc::c_int {
        let both =
            libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP;
        match self {
            Self::Container { .. } => both | libc::CLONE_NEWUSER,
            Self::Guest => both,
        }
    }
}

/// Becomes the agent behind these walls; comes back only with an error.
pub(crate) fn execute_run(walls: Walls) -> io::Error {
    let words = ["sprite-agent", "run"].map(str::to_owned);
    let words = words.into_iter().chain(walls.to_arguments());
    let argv: Vec<CString> = words
        .map(|word| CString::new(word).expect("ours have no zero byte"))
        .collect();
    let argv: Vec<_> = argv.iter().map(CString::as_c_str).collect();
    sys::exec(c"/agent", &argv, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walls_are_read_as_they_were_told() {
        for walls in [
            Walls::Guest,
            Walls::Container {
                cgroups: 3,
                memory: Memory::Mib(512),
            },
            Walls::Container {
                cgroups: 0,
                memory: Memory::Whole,
            },
        ] {
            assert_eq!(Walls::parse(walls.to_arguments().into_iter()), Some(walls));
        }
        for wrong in [
            &[][..],
            &["guests"],
            &["container"],
            &["container", "1", "x"],
        ] {
            let wrong = wrong.iter().map(|word| (*word).to_owned());
            assert_eq!(Walls::parse(wrong), None);
        }
    }
}
