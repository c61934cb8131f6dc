//! A machine's cgroups, one for each [`Part`] of it, in version 1 and 2.
//!
//! Agent and environment are apart so that an environment that uses up its memory or its processes takes nothing
//! from the agent, and so that it can be frozen while the agent still answers. A virtual machine is one part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sprite_types::InstanceId;

use crate::failure::step;
use crate::process::DIES_WITHIN;
use crate::{MachineError, Statistics};

const ROOT: &str = "/sys/fs/cgroup";

/// Controllers of version 1 that are needed, and one that only counts.
const V1: [&str; 5] = ["cpu", "memory", "pids", "freezer", "cpuacct"];

/// Controllers of version 2 that are needed.
const V2: [&str; 3] = ["cpu", "memory", "pids"];

/// Period of the CPU limit. Source: Documentation/admin-guide/cgroup-v2.rst, default of `cpu.max`.
const PERIOD_USEC: u64 = 100_000;

/// How long processes may take to stop.
const FREEZES_WITHIN: Duration = Duration::from_secs(2);

/// Pauses between tries that take this long together; each is twice as long as the one before, up to a fifth of a
/// second.
///
/// The kernel stops processes, and takes ended ones out of a group, a moment after it was asked to, and says so by no
/// event that both versions have.
fn pauses(within: Duration) -> impl Iterator<Item = Duration> {
    let longest = Duration::from_millis(200);
    let doubled = std::iter::successors(Some(Duration::from_millis(1)), move |pause| {
        Some((*pause * 2).min(longest))
    });
    let mut left = within;
    std::iter::once(Duration::ZERO).chain(doubled.map_while(move |pause| {
        left = left.checked_sub(pause)?;
        Some(pause)
    }))
}

/// A part of a machine that has limits of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The agent of a machine of namespaces.
    Agent,
    /// Its environment.
    Environment,
    /// The monitor of a virtual machine, which is all of it on the host.
    Monitor,
}

impl Part {
    const ALL: [Self; 3] = [Self::Agent, Self::Environment, Self::Monitor];

    fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Environment => "env",
            Self::Monitor => "vmm",
        }
    }
}

/// What a part may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// In bytes.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) pids: u32,
    /// CPUs; `None`: as the host gives.
    pub(crate) cpus: Option<u32>,
}

/// Which cgroups a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy for all.
    Two,
}

/// Which cgroups this host has, and which controllers that machines need are not there. Changes nothing.
pub(crate) fn lacking() -> io::Result<(Version, Vec<&'static str>)> {
    let unified = Path::new(ROOT).join("cgroup.controllers");
    if unified.exists() {
        let there = fs::read_to_string(unified)?;
        let missing = |name: &&str| !there.split_whitespace().any(|word| word == *name);
        return Ok((Version::Two, V2.into_iter().filter(missing).collect()));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let missing = |name: &&str| {
        let mut hierarchies = mounts.lines().filter_map(v1_mount);
        !hierarchies.any(|(_, options)| options.split(',').any(|option| option == *name))
    };
    Ok((Version::One, V1.into_iter().filter(missing).collect()))
}

/// A cgroup hierarchy, and the controllers that are ours in it.
#[derive(Debug, Clone)]
struct Hierarchy {
    /// Our parent group in it.
    parent: PathBuf,
    controllers: Vec<&'static str>,
}

/// The host's cgroups, as far as an instance uses them.
#[derive(Debug)]
pub(crate) struct Cgroups {
    unified: bool,
    hierarchies: Vec<Hierarchy>,
}

impl Cgroups {
    /// Finds what the host has.
    pub(crate) fn find(instance: &InstanceId) -> Result<Self, MachineError> {
        let parent = format!("sprited-{instance}");
        let root = Path::new(ROOT);
        if root.join("cgroup.controllers").exists() {
            let controllers = V2.to_vec();
            return Ok(Self {
                unified: true,
                hierarchies: vec![Hierarchy {
                    parent: root.join(parent),
                    controllers,
                }],
            });
        }
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").map_err(step("read the mount table"))?;
        let mut hierarchies: Vec<Hierarchy> = Vec::new();
        for (point, options) in mounts.lines().filter_map(v1_mount) {
            let of_mount = |c: &&str| options.split(',').any(|option| option == *c);
            let controllers: Vec<_> = V1.into_iter().filter(of_mount).collect();
            let known = hierarchies.iter().any(|h| h.controllers == controllers);
            if !controllers.is_empty() && !known {
                hierarchies.push(Hierarchy {
                    parent: Path::new(point).join(&parent),
                    controllers,
                });
            }
        }
        let found = Self {
            unified: false,
            hierarchies,
        };
        for controller in V1 {
            if found.hierarchy(controller).is_none() {
                return Err(MachineError::Exhausted {
                    what: "cgroup controller",
                    remedy: format!(
                        "machines need the controller {controller}; mount it, or use cgroup v2"
                    ),
                });
            }
        }
        Ok(found)
    }

    fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.hierarchies
            .iter()
            .find(|h| self.unified || h.controllers.contains(&controller))
    }

    fn file(&self, group: &str, part: Part, controller: &str, file: &str) -> PathBuf {
        let hierarchy = self
            .hierarchy(controller)
            .expect("all controllers were found at the start");
        hierarchy.parent.join(group).join(part.name()).join(file)
    }

    /// `cgroup.procs` of one part of a machine, in each hierarchy.
    pub(crate) fn procs(&self, group: &str, part: Part) -> Vec<PathBuf> {
        let each = self.hierarchies.iter();
        each.map(|h| h.parent.join(group).join(part.name()).join("cgroup.procs"))
            .collect()
    }

    /// Makes a machine's groups with their limits.
    pub(crate) fn create(&self, group: &str, parts: &[(Part, Limits)]) -> Result<(), MachineError> {
        for hierarchy in &self.hierarchies {
            for (part, _) in parts {
                let path = hierarchy.parent.join(group).join(part.name());
                fs::create_dir_all(&path).map_err(step(format!("make {}", path.display())))?;
            }
            if self.unified {
                let above = hierarchy
                    .parent
                    .parent()
                    .expect("below the root of the hierarchy");
                for path in [above, &hierarchy.parent, &hierarchy.parent.join(group)] {
                    write(&path.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
                }
            }
        }
        parts
            .iter()
            .try_for_each(|(part, limits)| self.limit(group, *part, limits))
    }

    fn limit(&self, group: &str, part: Part, limits: &Limits) -> Result<(), MachineError> {
        let limit = if self.unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        write(
            &self.file(group, part, "memory", limit),
            &limits.memory.to_string(),
        )?;
        // Where the host swaps, the limit is one on memory and swap together.
        let swap = self.file(group, part, "memory", "memory.swap.max");
        if self.unified && swap.exists() {
            write(&swap, "0")?;
        }
        write(
            &self.file(group, part, "pids", "pids.max"),
            &limits.pids.to_string(),
        )?;
        match limits.cpus {
            Some(cpus) => self.limit_cpus(group, part, cpus),
            None => Ok(()),
        }
    }

    /// Limits how much CPU time a part may use, before it runs or while it does.
    pub(crate) fn limit_cpus(
        &self,
        group: &str,
        part: Part,
        cpus: u32,
    ) -> Result<(), MachineError> {
        let quota = u64::from(cpus) * PERIOD_USEC;
        if self.unified {
            let file = self.file(group, part, "cpu", "cpu.max");
            return write(&file, &format!("{quota} {PERIOD_USEC}"));
        }
        write(
            &self.file(group, part, "cpu", "cpu.cfs_period_us"),
            &PERIOD_USEC.to_string(),
        )?;
        write(
            &self.file(group, part, "cpu", "cpu.cfs_quota_us"),
            &quota.to_string(),
        )
    }

    /// Changes a part's limits while it runs; the memory that it may use then, in bytes, which is more than was
    /// asked for where the kernel cannot take back what is in use (version 1 refuses that).
    pub(crate) fn change(
        &self,
        group: &str,
        part: Part,
        limits: &Limits,
    ) -> Result<u64, MachineError> {
        match self.limit(group, part, limits) {
            Ok(()) => Ok(limits.memory),
            Err(MachineError::Step { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && !self.unified =>
            {
                let file = self.file(group, part, "memory", "memory.limit_in_bytes");
                let memory = read_number(&file)?;
                let others = Limits { memory, ..*limits };
                self.limit(group, part, &others)?;
                Ok(memory)
            }
            Err(error) => Err(error),
        }
    }

    /// What a part uses of CPUs and memory.
    pub(crate) fn statistics(&self, group: &str, part: Part) -> Result<Statistics, MachineError> {
        let number = |controller, file| read_number(&self.file(group, part, controller, file));
        let memory = if self.unified {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        };
        let cpu_usec = if self.unified {
            let path = self.file(group, part, "cpu", "cpu.stat");
            let stat =
                fs::read_to_string(&path).map_err(step(format!("read {}", path.display())))?;
            let usage = stat
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "));
            usage.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
        } else {
            number("cpuacct", "cpuacct.usage")? / 1000
        };
        Ok(Statistics {
            cpu_usec,
            memory_bytes: number("memory", memory)?,
            pids: number("pids", "pids.current")?,
            ..Statistics::default()
        })
    }

    /// Stops or continues every process of a part; returns when they have stopped.
    pub(crate) async fn freeze(
        &self,
        group: &str,
        part: Part,
        frozen: bool,
    ) -> Result<(), MachineError> {
        let (file, on, off) = if self.unified {
            (self.file(group, part, "freezer", "cgroup.freeze"), "1", "0")
        } else {
            (
                self.file(group, part, "freezer", "freezer.state"),
                "FROZEN",
                "THAWED",
            )
        };
        write(&file, if frozen { on } else { off })?;
        if !frozen {
            return Ok(());
        }
        for pause in pauses(FREEZES_WITHIN) {
            tokio::time::sleep(pause).await;
            if self.is_frozen(group, part, &file)? {
                return Ok(());
            }
        }
        // A half-frozen machine helps nobody.
        write(&file, off)?;
        Err(MachineError::Timeout {
            step: "freeze the machine".to_owned(),
            seconds: FREEZES_WITHIN.as_secs(),
        })
    }

    fn is_frozen(&self, group: &str, part: Part, state: &Path) -> Result<bool, MachineError> {
        let read = |path: &Path| {
            fs::read_to_string(path).map_err(step(format!("read {}", path.display())))
        };
        if self.unified {
            let events = read(&self.file(group, part, "freezer", "cgroup.events"))?;
            return Ok(events.lines().any(|line| line == "frozen 1"));
        }
        Ok(read(state)?.trim() == "FROZEN")
    }

    /// The machines that have groups.
    pub(crate) fn all(&self) -> Result<Vec<String>, MachineError> {
        let mut all = Vec::new();
        for hierarchy in &self.hierarchies {
            let entries = match fs::read_dir(&hierarchy.parent) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(step("list our cgroups")(error)),
            };
            for entry in entries {
                let entry = entry.map_err(step("list our cgroups"))?;
                if entry.path().is_dir()
                    && let Ok(name) = entry.file_name().into_string()
                {
                    all.push(name);
                }
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Kills whatever is in a machine's groups, and removes them. Idempotent.
    pub(crate) async fn remove(&self, group: &str) -> Result<(), MachineError> {
        for pause in pauses(DIES_WITHIN) {
            tokio::time::sleep(pause).await;
            for part in Part::ALL {
                self.procs(group, part)
                    .iter()
                    .for_each(|procs| kill_all(procs));
            }
            if self.remove_empty(group)? {
                return Ok(());
            }
        }
        Err(MachineError::Timeout {
            step: format!("remove the cgroups of machine {group}"),
            seconds: DIES_WITHIN.as_secs(),
        })
    }

    /// Whether all groups of a machine are gone.
    fn remove_empty(&self, group: &str) -> Result<bool, MachineError> {
        for hierarchy in &self.hierarchies {
            let own = hierarchy.parent.join(group);
            let parts = Part::ALL.map(|part| own.join(part.name()));
            for path in parts.into_iter().chain([own]) {
                match fs::remove_dir(&path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                    Err(error) => return Err(step(format!("remove {}", path.display()))(error)),
                }
            }
        }
        Ok(true)
    }

    /// Removes our parent groups, once no machine has any.
    pub(crate) fn remove_parent(&self) -> Result<(), MachineError> {
        for hierarchy in &self.hierarchies {
            match fs::remove_dir(&hierarchy.parent) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(step("remove our cgroup")(error)),
            }
        }
        Ok(())
    }
}

/// Kills every process of a group, frozen ones too; those that are gone already are gone.
fn kill_all(procs: &Path) {
    let thawed = procs.with_file_name("freezer.state");
    if thawed.exists() {
        // Without it the signal waits. If it cannot be written, the removal says that it took too long.
        let _ = fs::write(thawed, "THAWED");
    }
    for pid in fs::read_to_string(procs).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse::<i32>() {
            // SAFETY: takes numbers. The id was just read from a group that only we put processes into.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), MachineError> {
    fs::write(path, text).map_err(step(format!("write {text:?} to {}", path.display())))
}

fn read_number(path: &Path) -> Result<u64, MachineError> {
    let text = fs::read_to_string(path).map_err(step(format!("read {}", path.display())))?;
    Ok(text.trim().parse().unwrap_or(0))
}

/// Mount point and controllers of a line of mountinfo that is a version 1 hierarchy. Source: proc(5).
fn v1_mount(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split(' ');
    (after.next()? == "cgroup").then_some(())?;
    let options = after.nth(1)?;
    Some((before.split(' ').nth(4)?, options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mount_table() {
        let line = "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct";
        assert_eq!(
            v1_mount(line),
            Some(("/sys/fs/cgroup/cpu,cpuacct", "rw,cpu,cpuacct"))
        );
        assert_eq!(v1_mount("31 30 0:27 / /x rw - cgroup2 cgroup2 rw"), None);
        assert_eq!(v1_mount("garbage"), None);
    }
}
