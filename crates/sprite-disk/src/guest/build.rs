//! Making a guest system in the cache.
//!
//! `CACHE/guest-ID/` exists complete or not at all; what [`cache`] needs lies beside it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::description::{
    Description, EARLY_MODULES, FILES, GuestId, KERNEL, MODULES, description_path, made_at, marks,
    write_description,
};
use super::package::{self, CANDIDATES, OLDEST, Package};
use super::{KernelError, ModulesError, kernel, modules};
use crate::cache::{self, WorkDirectory};
use crate::durable;
use crate::progress::Progress;
use crate::tool::{self, ToolError};

/// Before the id in names of the cache, which other things are in too.
const PREFIX: &str = "guest-";

/// Why no guest system could be made. Nothing half-made is left.
#[derive(Debug, thiserror::Error)]
pub enum GuestBuildError {
    /// apt cannot be asked.
    #[error("ask apt for a kernel")]
    Ask(#[source] ToolError),
    /// There is no fitting kernel.
    #[error(
        "apt knows no kernel for virtual machines of version {}.{} or newer (looked for {}): run apt-get update",
        OLDEST.0, OLDEST.1, CANDIDATES.join(", ")
    )]
    NoKernel,
    /// The packages could not be downloaded.
    #[error("download {package}; if its file is gone from the archive, run apt-get update")]
    Download {
        /// The package with the kernel.
        package: String,
        /// What apt said.
        #[source]
        source: ToolError,
    },
    /// A package could not be unpacked.
    #[error("unpack the kernel's packages")]
    Unpack(#[source] ToolError),
    /// The packages hold no kernel, or several.
    #[error("find the kernel in {}", packages.join(", "))]
    Absent {
        /// Names of the packages.
        packages: Vec<String>,
    },
    /// The kernel could not be unpacked.
    #[error("take the kernel out of its package")]
    Kernel(#[from] KernelError),
    /// The modules could not be prepared.
    #[error("prepare the kernel's modules")]
    Modules(#[from] ModulesError),
    /// The cache cannot be used.
    #[error("use {path}")]
    Cache {
        /// File or directory of the cache.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> GuestBuildError {
    let path = path.to_owned();
    move |source| GuestBuildError::Cache { path, source }
}

/// The newest guest system that this machine's distribution has, in the cache: the one that is there, or a new
/// one. Processes may build in one cache at once.
///
/// # Crash safety
/// It appears under its name complete and durable, or not at all. What an interrupted build leaves is removed by
/// the next one.
pub(super) fn newest(
    cache_dir: &Path,
    progress: &dyn Progress,
) -> Result<(GuestId, PathBuf), GuestBuildError> {
    let packages = package::newest().map_err(GuestBuildError::Ask)?;
    let packages = packages.ok_or(GuestBuildError::NoKernel)?;
    let id = GuestId::of(&packages);
    let name = format!("{PREFIX}{id}");
    let cache_dir = cache::open(cache_dir).map_err(failed(cache_dir))?;
    let path = cache_dir.join(&name);
    if path.is_dir() {
        return Ok((id, path));
    }
    let lock = cache::lock(&cache_dir, &name, "guest system", progress);
    let _lock = lock.map_err(failed(&cache::lock_path(&cache_dir, &name)))?;
    if !path.is_dir() {
        let ours = |name: &str| {
            name.strip_prefix(PREFIX)
                .is_some_and(|id| id.parse::<GuestId>().is_ok())
        };
        cache::sweep(&cache_dir, ours).map_err(failed(&cache_dir))?;
        let work = WorkDirectory::make(&cache_dir, &name).map_err(failed(&cache_dir))?;
        let made = make(packages, &work, progress)?;
        publish(&made, &path).map_err(failed(&path))?;
    }
    Ok((id, path))
}

/// The guest system of a cache that was made last, whatever the distribution has now; `None` if it has none.
pub(super) fn made_last(cache_dir: &Path) -> io::Result<Option<(GuestId, PathBuf)>> {
    let mut last: Option<(u64, GuestId, PathBuf)> = None;
    for entry in fs::read_dir(cache_dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let Some(id) = id.and_then(|id| id.parse::<GuestId>().ok()) else {
            continue;
        };
        // A damaged one is as good as none.
        let Some(made_at) = made_at(&entry.path()) else {
            continue;
        };
        if last.as_ref().is_none_or(|(before, ..)| made_at > *before) {
            last = Some((made_at, id, entry.path()));
        }
    }
    Ok(last.map(|(_, id, path)| (id, path)))
}

/// Makes all files; gives back the directory that they are in.
fn make(
    packages: Vec<Package>,
    work: &WorkDirectory,
    progress: &dyn Progress,
) -> Result<PathBuf, GuestBuildError> {
    // Before the download, not after.
    for tool in [tool::MKFS_EXT4, tool::DEPMOD, tool::DPKG_DEB] {
        tool.find().map_err(GuestBuildError::Unpack)?;
    }
    progress.step("download the guest's kernel");
    let downloads = work.path().join("packages");
    fs::create_dir(&downloads).map_err(failed(&downloads))?;
    download(&packages, &downloads, progress)?;
    progress.step("unpack the guest's kernel");
    let tree = work.tree();
    for package in fs::read_dir(&downloads).map_err(failed(&downloads))? {
        let package = package.map_err(failed(&downloads))?.path();
        let unpacked = tool::DPKG_DEB.command().and_then(|mut command| {
            command.arg("-x").arg(&package).arg(&tree);
            tool::DPKG_DEB.run(command, progress)
        });
        unpacked.map_err(GuestBuildError::Unpack)?;
    }
    let absent = || GuestBuildError::Absent {
        packages: packages
            .iter()
            .map(|package| package.name.clone())
            .collect(),
    };
    let (vmlinuz, version) = find_kernel(&tree.join("boot"))
        .map_err(failed(&tree))?
        .ok_or_else(absent)?;
    let made = work.path().join("made");
    fs::create_dir(&made).map_err(failed(&made))?;
    kernel::unpack(&vmlinuz, &made.join(KERNEL), progress)?;
    let stage = stage_modules(&tree, &version, work).map_err(failed(&tree))?;
    modules::index(&stage, &version, progress)?;
    let all = stage.join("lib/modules");
    modules::write_archive(&all.join(&version), &version, &made.join(EARLY_MODULES))?;
    modules::write_image(&all, &made.join(MODULES), progress)?;
    let description = Description {
        version,
        packages,
        made_at: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |age| age.as_secs()),
        files: marks(&made).map_err(failed(&made))?,
    };
    write_description(&made, &description).map_err(failed(&made))?;
    Ok(made)
}

fn download(
    packages: &[Package],
    directory: &Path,
    progress: &dyn Progress,
) -> Result<(), GuestBuildError> {
    let downloaded = tool::APT_GET.command().and_then(|mut command| {
        // The work directory is not for apt's own user; for whoever is not root the option says nothing new.
        command
            .current_dir(directory)
            .args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
        let wanted = packages
            .iter()
            .map(|package| format!("{}={}", package.name, package.version));
        command.args(wanted);
        tool::APT_GET.run(command, progress)
    });
    downloaded.map_err(|source| GuestBuildError::Download {
        package: packages
            .last()
            .map(|package| package.name.clone())
            .unwrap_or_default(),
        source,
    })
}

/// The one kernel of a boot directory, and its version.
fn find_kernel(boot: &Path) -> io::Result<Option<(PathBuf, String)>> {
    const NAME: &str = "vmlinuz-";
    let mut found = None;
    for entry in fs::read_dir(boot)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(version) = name.to_str().and_then(|name| name.strip_prefix(NAME)) else {
            continue;
        };
        if found.replace((entry.path(), version.to_owned())).is_some() {
            return Ok(None);
        }
    }
    Ok(found)
}

/// Puts the modules where `depmod` looks for them; newer distributions have them below `/usr`.
fn stage_modules(tree: &Path, version: &str, work: &WorkDirectory) -> io::Result<PathBuf> {
    let stage = work.path().join("stage");
    let all = stage.join("lib/modules");
    fs::create_dir_all(&all)?;
    let places = ["usr/lib/modules", "lib/modules"].map(|place| tree.join(place).join(version));
    let place = places.iter().find(|place| place.is_dir());
    let place = place.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no modules"))?;
    fs::rename(place, all.join(version))?;
    // The directory becomes the root of an image, which all may read.
    fs::set_permissions(&all, fs::Permissions::from_mode(0o755))?;
    Ok(stage)
}

fn publish(made: &Path, path: &Path) -> io::Result<()> {
    for name in FILES {
        let file = File::open(made.join(name))?;
        // Machines read it, each as a user of its own, and servers link to it.
        file.set_permissions(fs::Permissions::from_mode(0o444))?;
        file.sync_all()?;
    }
    File::open(description_path(made))?.sync_all()?;
    File::open(made)?.sync_all()?;
    fs::rename(made, path)?;
    durable::sync_parent(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_one_of_a_cache_is_found() {
        let cache = tempfile::tempdir().expect("a directory");
        assert_eq!(made_last(cache.path()).expect("an empty cache"), None);
        let put = |id: &str, text: &str| {
            let directory = cache.path().join(format!("{PREFIX}{id}"));
            fs::create_dir(&directory).expect("a directory");
            fs::write(description_path(&directory), text).expect("a file");
            directory
        };
        let whole = |made_at| {
            format!(r#"{{"version":"6.12","packages":[],"made_at":{made_at},"files":{{}}}}"#)
        };
        let [old, new, damaged] = ["a", "b", "c"].map(|digit| digit.repeat(GuestId::LEN));
        put(&old, &whole(1));
        let expected = put(&new, &whole(2));
        put(&damaged, "{");
        put("unfinished.build", &whole(9));
        let (id, path) = made_last(cache.path()).expect("a cache").expect("one");
        assert_eq!((id.to_string(), path), (new, expected));
    }
}
