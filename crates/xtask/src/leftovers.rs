//! What a server left on the host, looked for without asking the server.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::Host;
use crate::program::Program;

/// Everything of ours carries the instance id of its data directory, or lies below that directory.
pub struct Traces<'a> {
    /// The instance id.
    pub instance: &'a str,
    /// The directory that holds the data directory.
    pub directory: &'a Path,
}

impl Traces<'_> {
    /// Looks everywhere where a server sets something.
    ///
    /// # Errors
    /// Each thing that is left, named; or a place that cannot be looked at.
    pub fn none_left(&self, host: &Host) -> Outcome {
        let below = self.directory.display().to_string();
        let mut left = Vec::new();
        for (what, directory) in [
            ("network namespace", "/run/netns"),
            ("network interface", "/sys/class/net"),
            ("run-time directory", "/run/sprited"),
        ] {
            left.extend(self.named(what, Path::new(directory)));
        }
        for hierarchy in children(Path::new("/sys/fs/cgroup")) {
            left.extend(self.named("cgroup", &hierarchy));
        }
        left.extend(self.named("cgroup", Path::new("/sys/fs/cgroup")));
        for device in children(Path::new("/sys/block")) {
            let file = device.join("loop/backing_file");
            let backed = std::fs::read_to_string(file).unwrap_or_default();
            if backed.starts_with(&below) {
                left.push(format!(
                    "loop device {}: {}",
                    device.display(),
                    backed.trim()
                ));
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")
            .map_err(Failure::io("read the list of mounts"))?;
        for mount in mounts.lines() {
            if mount.contains(&below) || mount.contains(self.instance) {
                left.push(format!("mount {mount}"));
            }
        }
        for process in children(Path::new("/proc")) {
            let groups = std::fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            if groups.contains(self.instance) {
                left.push(format!("process {}", process.display()));
            }
        }
        let tables = host.as_root(Program::new("nft").args(["list", "tables"]).own_group())?;
        for table in tables
            .read()?
            .lines()
            .filter(|table| table.contains(self.instance))
        {
            left.push(format!("nft {table}"));
        }
        if left.is_empty() {
            Ok(())
        } else {
            Err(Failure::Check(format!(
                "left on the host:\n  {}",
                left.join("\n  ")
            )))
        }
    }

    /// Entries of a directory that carry the instance id.
    fn named(&self, what: &str, directory: &Path) -> Vec<String> {
        children(directory)
            .into_iter()
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().contains(self.instance))
            })
            .map(|path| format!("{what} {}", path.display()))
            .collect()
    }
}

/// What is in a directory; nothing if it is not there.
fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_carries_the_id_is_found() {
        let directory = std::env::temp_dir().join(format!("leftovers-{}", std::process::id()));
        for name in ["sprited-abc123-4-g", "sprited-other-1-g"] {
            std::fs::create_dir_all(directory.join(name)).expect("a directory can be made");
        }
        let traces = Traces {
            instance: "abc123",
            directory: &directory,
        };
        let found = traces.named("network namespace", &directory);
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
        assert_eq!(found.len(), 1);
        assert!(found[0].ends_with("sprited-abc123-4-g"), "{found:?}");
    }
}
