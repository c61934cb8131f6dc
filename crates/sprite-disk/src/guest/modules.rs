//! The kernel's modules: all of them in an image that machines share, and those without which the guest would not
//! find its disk in an archive for its start.
//!
//! Modules are unpacked, so that any kernel and any program loads them, and indexed by `depmod`, as on every Linux.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cpio::Archive;
use crate::progress::Progress;
use crate::tool::{self, Tool, ToolError};

/// What the agent loads before it has the image with all modules, in this order, each after those that it needs.
/// What a kernel has built in need not be loaded.
pub(super) const EARLY: [Early; 6] = [
    Early::required("virtio_mmio"),
    Early::required("virtio_blk"),
    Early::required("ext4"),
    Early::required("virtio_net"),
    Early::required("vmw_vsock_virtio_transport"),
    Early::optional("virtio_rng"),
];

/// Directory of the archive with the early modules, and in it the file that names them in the order in which they
/// are loaded.
const ARCHIVE_DIRECTORY: &str = "modules";
const ORDER: &str = "order";

/// Files that one call of a program is told.
const FILES_AT_ONCE: usize = 256;

/// Block size of the image, and the least size of a file's record in it.
const BLOCK_SIZE: u64 = 4096;
const INODE_SIZE: u64 = 256;

/// A file system that is only ever read.
const FEATURES: &str =
    "none,ext_attr,dir_index,filetype,extent,sparse_super,large_file,extra_isize,metadata_csum";

/// A module that the guest needs at its start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Early {
    pub(super) name: &'static str,
    required: bool,
}

impl Early {
    const fn required(name: &'static str) -> Self {
        Self {
            name,
            required: true,
        }
    }

    const fn optional(name: &'static str) -> Self {
        Self {
            name,
            required: false,
        }
    }
}

/// Why the modules could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A file could not be read or written.
    #[error("use {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A program is missing or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The kernel lacks what a guest cannot do without.
    #[error("kernel {version} has no module {module}")]
    Lacking {
        /// The kernel.
        version: String,
        /// The module.
        module: &'static str,
    },
    /// The index says what cannot be.
    #[error("read the index of modules: {line}")]
    Index {
        /// The line.
        line: String,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ModulesError {
    let path = path.to_owned();
    move |source| ModulesError::File { path, source }
}

/// Unpacks the modules below `base`/lib/modules/`version` in their places, and indexes them.
pub(super) fn index(
    base: &Path,
    version: &str,
    progress: &dyn Progress,
) -> Result<(), ModulesError> {
    let tree = base.join("lib/modules").join(version);
    let mut packed: HashMap<&str, Vec<PathBuf>> = HashMap::new();
    visit(&tree, &mut |path| {
        let suffix = path.extension().and_then(|suffix| suffix.to_str());
        if let Some((suffix, _, _)) = suffix.and_then(unpacker) {
            packed.entry(suffix).or_default().push(path.to_owned());
        }
    })
    .map_err(failed(&tree))?;
    for (suffix, files) in packed {
        let (_, tool, arguments) = unpacker(suffix).expect("it was found by its suffix");
        for files in files.chunks(FILES_AT_ONCE) {
            let mut command = tool.command()?;
            command.args(arguments).arg("--").args(files);
            tool.run(command, progress)?;
        }
    }
    let mut command = tool::DEPMOD.command()?;
    command.arg("-b").arg(base).arg(version);
    Ok(tool::DEPMOD.run(command, progress)?)
}

fn unpacker(suffix: &str) -> Option<(&'static str, Tool, &'static [&'static str])> {
    match suffix {
        "xz" => Some(("xz", tool::XZ, &["-dq"])),
        "zst" => Some(("zst", tool::ZSTD, &["-dq", "--rm"])),
        "gz" => Some(("gz", tool::GZIP, &["-dq"])),
        _ => None,
    }
}

/// Calls `each` with every file below a directory. Links are neither followed nor told.
fn visit(directory: &Path, each: &mut dyn FnMut(&Path)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            visit(&entry.path(), each)?;
        } else if kind.is_file() {
            each(&entry.path());
        }
    }
    Ok(())
}

/// Writes the archive with the early modules of an indexed tree.
pub(super) fn write_archive(
    tree: &Path,
    version: &str,
    archive: &Path,
) -> Result<(), ModulesError> {
    let read = |name: &str| {
        let path = tree.join(name);
        fs::read_to_string(&path).map_err(failed(&path))
    };
    let (dep, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let order = order(&dep, &builtin, version)?;
    let mut early = Archive::default();
    early.directory(ARCHIVE_DIRECTORY);
    let mut names = String::new();
    for module in order {
        let path = tree.join(module);
        let name = format!("{}.ko", name_of(module).unwrap_or(module));
        let content = fs::read(&path).map_err(failed(&path))?;
        early
            .file(&format!("{ARCHIVE_DIRECTORY}/{name}"), &content, 0o644)
            .map_err(|_| failed(&path)(io::ErrorKind::FileTooLarge.into()))?;
        names.push_str(&name);
        names.push('\n');
    }
    early
        .file(
            &format!("{ARCHIVE_DIRECTORY}/{ORDER}"),
            names.as_bytes(),
            0o644,
        )
        .expect("a few names are short");
    fs::write(archive, early.finish()).map_err(failed(archive))
}

/// Paths of the early modules in the order in which they are to be loaded.
/// Source: modules.dep(5): a module's line names all that it needs, the first to be loaded last.
fn order<'a>(dep: &'a str, builtin: &str, version: &str) -> Result<Vec<&'a str>, ModulesError> {
    let mut lines = HashMap::new();
    for line in dep.lines() {
        let parsed = line
            .split_once(':')
            .and_then(|(path, needs)| Some((name_of(path)?, path, needs)));
        let (name, path, needs) = parsed.ok_or_else(|| ModulesError::Index {
            line: line.to_owned(),
        })?;
        lines.insert(name.replace('-', "_"), (path, needs));
    }
    let mut order: Vec<&str> = Vec::new();
    for early in EARLY {
        let Some((path, needs)) = lines.get(early.name) else {
            let mut built_in = builtin.lines().filter_map(name_of);
            if early.required && !built_in.any(|name| name.replace('-', "_") == early.name) {
                return Err(ModulesError::Lacking {
                    version: version.to_owned(),
                    module: early.name,
                });
            }
            continue;
        };
        for path in needs.split_ascii_whitespace().rev().chain([*path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// `virtio-rng` for `kernel/drivers/char/hw_random/virtio-rng.ko`.
fn name_of(path: &str) -> Option<&str> {
    path.rsplit('/').next()?.strip_suffix(".ko")
}

/// Writes the image that holds the tree of modules as its root directory.
pub(super) fn write_image(
    modules: &Path,
    image: &Path,
    progress: &dyn Progress,
) -> Result<(), ModulesError> {
    let (mut blocks, mut files) = (0, 0);
    let mut unreadable = None;
    visit(modules, &mut |path| match fs::metadata(path) {
        Ok(data) => {
            blocks += data.len().div_ceil(BLOCK_SIZE);
            files += 1;
        }
        Err(error) => unreadable = Some(failed(path)(error)),
    })
    .map_err(failed(modules))?;
    if let Some(error) = unreadable {
        return Err(error);
    }
    // Directories are fewer than files; half as many more leaves room. Tables and maps take little beside.
    let inodes = files + files / 2 + 64;
    let bytes = (blocks + blocks / 32 + 1024) * BLOCK_SIZE + inodes * (INODE_SIZE + BLOCK_SIZE / 2);
    let file = File::create_new(image).map_err(failed(image))?;
    file.set_len(bytes.next_multiple_of(1 << 20))
        .map_err(failed(image))?;
    let mut command = tool::MKFS_EXT4.command()?;
    command.args([
        "-q", "-F", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES,
    ]);
    command.args([
        "-E",
        "assume_storage_prezeroed=1,lazy_itable_init=0,root_owner=0:0",
    ]);
    command.args(["-L", "sprite-modules", "-N", &inodes.to_string(), "-d"]);
    command.arg(modules).arg(image);
    tool::MKFS_EXT4.run(command, progress)?;
    let readable = fs::Permissions::from_mode(0o644);
    file.set_permissions(readable).map_err(failed(image))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "kernel/drivers/virtio/virtio_mmio.ko:\n\
        kernel/drivers/block/virtio_blk.ko:\n\
        kernel/net/core/failover.ko:\n\
        kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko\n\
        kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko\n\
        kernel/drivers/char/hw_random/virtio-rng.ko:\n\
        kernel/net/vmw_vsock/vsock.ko:\n\
        kernel/net/vmw_vsock/common.ko: kernel/net/vmw_vsock/vsock.ko\n\
        kernel/net/vmw_vsock/vmw_vsock_virtio_transport.ko: kernel/net/vmw_vsock/common.ko kernel/net/vmw_vsock/vsock.ko\n";
    const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/fs/fuse/fuse.ko\n";

    fn names(dep: &str, builtin: &str) -> Result<Vec<String>, ModulesError> {
        let order = order(dep, builtin, "6.12")?;
        Ok(order
            .iter()
            .filter_map(|path| name_of(path))
            .map(str::to_owned)
            .collect())
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        assert_eq!(
            names(DEP, BUILTIN).expect("all are there"),
            [
                "virtio_mmio",
                "virtio_blk",
                "failover",
                "net_failover",
                "virtio_net",
                "vsock",
                "common",
                "vmw_vsock_virtio_transport",
                "virtio-rng",
            ]
        );
    }

    #[test]
    fn built_in_and_optional_modules_may_be_missing_and_others_not() {
        let without = |name: &str| -> String {
            let lines = DEP
                .lines()
                .filter(|line| !line.split(':').next().expect("one").contains(name));
            lines.map(|line| format!("{line}\n")).collect()
        };
        assert!(names(&without("virtio-rng"), BUILTIN).is_ok());
        let built_in = format!("{BUILTIN}kernel/drivers/block/virtio_blk.ko\n");
        assert!(names(&without("virtio_blk"), &built_in).is_ok());
        for (dep, builtin, lacking) in [
            (DEP, "", "ext4"),
            (without("virtio_blk").as_str(), BUILTIN, "virtio_blk"),
        ] {
            match names(dep, builtin) {
                Err(ModulesError::Lacking { module, .. }) => assert_eq!(module, lacking),
                other => panic!("{other:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn any_index_is_read_or_refused(dep: String, builtin: String) {
            let _ = names(&dep, &builtin);
            let _ = names(&format!("{DEP}{dep}"), &builtin);
        }
    }
}
