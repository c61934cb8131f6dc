//! Modules of the guest's kernel: those that `/init` loads, and those that the kernel asks for.
//!
//! The kernel starts `/sbin/modprobe -q -- NAME` when something needs what a module has: a file system, a protocol,
//! a device that is opened. That is this program too. Source: modprobe(8), modules.dep(5), depmod(8).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use crate::step::{Step, StepError};

/// All modules of this kernel, in a directory of its version.
pub(crate) const ALL: &str = "/lib/modules";

/// Those of the archive that the kernel started from, and the file that names them in their order.
const EARLY: &str = "/modules";
const ORDER: &str = "order";

/// Loads the modules of the archive, and gives their memory back.
pub(crate) fn load_early() -> Result<(), StepError> {
    let directory = Path::new(EARLY);
    let order = fs::read_to_string(directory.join(ORDER)).step("read the list of modules")?;
    for name in order.lines() {
        load(&directory.join(name)).step(&format!("load module {name}"))?;
    }
    fs::remove_dir_all(directory).step("remove the archive's modules")
}

/// Loads one module, unless it is there already.
fn load(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let (no_parameters, no_flags) = (c"".as_ptr(), 0);
    // SAFETY: the parameters are a terminated string; the call takes numbers beside.
    let done = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            no_parameters,
            no_flags,
        )
    };
    if done == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        error => Err(error),
    }
}

/// The directory of the running kernel's modules.
pub(crate) fn directory() -> PathBuf {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    Path::new(ALL).join(release)
}

/// A device that a module has when it is loaded, and that loads it when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StaticNode {
    /// Its path below /dev.
    pub(crate) name: String,
    pub(crate) block: bool,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

/// The devices of modules that need not be loaded yet.
pub(crate) fn static_nodes() -> io::Result<Vec<StaticNode>> {
    let text = fs::read_to_string(directory().join("modules.devname"))?;
    Ok(text.lines().filter_map(parse_node).collect())
}

/// A line such as `tun net/tun c10:200`.
fn parse_node(line: &str) -> Option<StaticNode> {
    let mut words = line.split_ascii_whitespace();
    let (_module, name, device) = (words.next()?, words.next()?, words.next()?);
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    if line.starts_with('#') || !name.split('/').all(plain) {
        return None;
    }
    let (major, minor) = device.get(1..)?.split_once(':')?;
    Some(StaticNode {
        name: name.to_owned(),
        block: match device.as_bytes().first()? {
            b'b' => true,
            b'c' => false,
            _ => return None,
        },
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    })
}

/// The role `modprobe`: loads what its last argument names.
pub(crate) fn modprobe() -> Result<(), StepError> {
    let name = std::env::args()
        .skip(1)
        .rfind(|argument| !argument.starts_with('-'));
    let name = name
        .ok_or(io::ErrorKind::InvalidInput)
        .step("read the name of a module")?;
    let directory = directory();
    let dep =
        fs::read_to_string(directory.join("modules.dep")).step("read the index of modules")?;
    let aliases =
        fs::read_to_string(directory.join("modules.alias")).step("read the index of modules")?;
    let paths = Index::of(&dep).find(&name, &aliases);
    if paths.is_empty() {
        return Err(io::Error::from(io::ErrorKind::NotFound)).step(&format!("find module {name}"));
    }
    for path in paths {
        load(&directory.join(path)).step(&format!("load module {path}"))?;
    }
    Ok(())
}

/// Modules by their names, each with its path and the paths of what it needs.
struct Index<'a>(HashMap<String, (&'a str, &'a str)>);

impl<'a> Index<'a> {
    fn of(dep: &'a str) -> Self {
        let lines = dep.lines().filter_map(|line| {
            let (path, needs) = line.split_once(':')?;
            let file = path.rsplit('/').next()?;
            Some((plain(file.split('.').next()?), (path, needs)))
        });
        Self(lines.collect())
    }

    /// What to load, in this order, for a module's name or an alias; nothing if there is no such module.
    fn find(&self, name: &str, aliases: &'a str) -> Vec<&'a str> {
        let name = plain(name);
        let mut order: Vec<&str> = Vec::new();
        let mut add = |module: &str| {
            let Some((path, needs)) = self.0.get(module) else {
                return;
            };
            for path in needs.split_ascii_whitespace().rev().chain([*path]) {
                if !order.contains(&path) {
                    order.push(path);
                }
            }
        };
        if self.0.contains_key(&name) {
            add(&name);
            return order;
        }
        for line in aliases.lines() {
            let mut words = line.split_ascii_whitespace();
            if let (Some("alias"), Some(pattern), Some(module)) =
                (words.next(), words.next(), words.next())
                && matches(plain(pattern).as_bytes(), name.as_bytes())
            {
                add(&plain(module));
            }
        }
        order
    }
}

/// Hyphens and underscores mean the same, but for ranges within brackets.
fn plain(name: &str) -> String {
    let mut bracket = false;
    let same = |c| {
        bracket = (bracket || c == '[') && c != ']';
        if c == '-' && !bracket { '_' } else { c }
    };
    name.chars().map(same).collect()
}

/// Whether a name fits a pattern with `*`, `?` and `[...]`. Source: glob(7).
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Where the last star is, and how much of the name it took.
    let mut star = None;
    while in_name < name.len() {
        let here = match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, in_name));
                at += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => set_length(&pattern[at..], name[in_name]),
            Some(&byte) if byte == name[in_name] => Some(1),
            Some(_) | None => None,
        };
        if let Some(length) = here {
            at += length;
            in_name += 1;
        } else if let Some((before, taken)) = star {
            star = Some((before, taken + 1));
            at = before + 1;
            in_name = taken + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Length of the set at the start of a pattern, if the byte is in it.
fn set_length(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|byte| *byte == b']')?;
    let mut set = &pattern[1..end];
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    if negated {
        set = &set[1..];
    }
    let mut found = false;
    while let Some((&first, rest)) = set.split_first() {
        set = match rest {
            [b'-', last, rest @ ..] => {
                found |= (first..=*last).contains(&byte);
                rest
            }
            rest => {
                found |= first == byte;
                rest
            }
        };
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "kernel/net/llc/llc.ko:\n\
        kernel/net/802/stp.ko: kernel/net/llc/llc.ko\n\
        kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko\n\
        kernel/net/netfilter/x_tables.ko:\n\
        kernel/drivers/net/tun.ko:\n\
        kernel/net/netfilter/xt_MASQUERADE.ko: kernel/net/netfilter/x_tables.ko\n\
        kernel/drivers/char/hw_random/virtio-rng.ko:\n";
    const ALIASES: &str = "# Aliases extracted from modules themselves.\n\
        alias rtnl-link-bridge bridge\n\
        alias char-major-10-200 tun\n\
        alias ipt_MASQUERADE xt_MASQUERADE\n\
        alias virtio:d00000004v* virtio_rng\n\
        alias pci:v0000[0-9A-F]* tun\n";

    fn find(name: &str) -> Vec<&'static str> {
        Index::of(DEP).find(name, ALIASES)
    }

    #[test]
    fn names_and_aliases_lead_to_modules_and_what_they_need() {
        let bridge = [
            "kernel/net/llc/llc.ko",
            "kernel/net/802/stp.ko",
            "kernel/net/bridge/bridge.ko",
        ];
        assert_eq!(find("bridge"), bridge);
        assert_eq!(find("rtnl-link-bridge"), bridge);
        assert_eq!(find("rtnl_link_bridge"), bridge);
        assert_eq!(find("char-major-10-200"), ["kernel/drivers/net/tun.ko"]);
        assert_eq!(find("ipt_MASQUERADE").len(), 2);
        let rng = ["kernel/drivers/char/hw_random/virtio-rng.ko"];
        for name in ["virtio_rng", "virtio-rng", "virtio:d00000004v00001AF4"] {
            assert_eq!(find(name), rng, "{name}");
        }
        assert_eq!(find("pci:v0000Ax"), ["kernel/drivers/net/tun.ko"]);
        for name in ["", "fs-btrfs", "pci:v0000a", "bridge.ko", "../tun"] {
            assert!(find(name).is_empty(), "{name}");
        }
    }

    #[test]
    fn devices_are_read_and_paths_that_lead_away_are_not() {
        let tun = StaticNode {
            name: "net/tun".to_owned(),
            block: false,
            major: 10,
            minor: 200,
        };
        assert_eq!(parse_node("tun net/tun c10:200"), Some(tun));
        for line in [
            "# Device nodes to trigger on-demand module loading.",
            "",
            "x ../etc/passwd c1:1",
            "x /etc c1:1",
            "x y z1:1",
            "x y c1",
            "x y c:",
            "x y c1:1x",
        ] {
            assert_eq!(parse_node(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_without_wildcards_fits_itself_alone(name in "[a-z0-9:_]{0,12}", other in "[a-z0-9:_]{0,12}") {
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
            prop_assert_eq!(matches(name.as_bytes(), other.as_bytes()), name == other);
        }

        #[test]
        fn a_star_takes_anything(before in "[a-z]{0,5}", taken in "[a-z*]{0,9}", after in "[a-z]{0,5}") {
            let pattern = format!("{before}*{after}");
            let name = format!("{before}{taken}{after}");
            prop_assert!(matches(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn any_index_and_name_is_read(dep: String, aliases: String, name: String, pattern in "[a*?\\[\\]!^-]{0,12}") {
            let _ = Index::of(&dep).find(&name, &aliases);
            let _ = Index::of(DEP).find(&name, &format!("alias {pattern} tun"));
            let _ = parse_node(&aliases);
        }
    }
}
