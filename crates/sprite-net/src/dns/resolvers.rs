//! The host's resolvers: the `nameserver` lines of its `resolv.conf`, as they are now.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// As many as the C library reads. Source: `MAXNS` in `resolv.h`.
const MOST: usize = 3;
/// Far above any real file.
const MOST_BYTES: u64 = 64 << 10;

/// Why there is no resolver to ask.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolverError {
    /// The file cannot be read.
    #[error("read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is too large to be what it should be.
    #[error("{path} is larger than {MOST_BYTES} bytes")]
    TooLarge { path: PathBuf },
}

/// Reads the file again when it is another one: a question is the event on which to look, and looking is one
/// `stat`. (A watch would have to follow links, renames and directories that come and go.)
#[derive(Debug)]
pub(crate) struct Resolvers {
    path: PathBuf,
    seen: Mutex<Option<(Mark, Arc<[SocketAddr]>)>>,
}

/// What differs when a file was changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

impl Resolvers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The resolvers, in order; never none: without any line it is the host itself, as for the C library.
    ///
    /// # Errors
    /// The file is not there, not readable or not small.
    pub(crate) fn now(&self) -> Result<Arc<[SocketAddr]>, ResolverError> {
        let read = |source| ResolverError::Read {
            path: self.path.clone(),
            source,
        };
        let metadata = fs::metadata(&self.path).map_err(read)?;
        let mark = Mark {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        if mark.size > MOST_BYTES {
            return Err(ResolverError::TooLarge {
                path: self.path.clone(),
            });
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((old, resolvers)) = &*seen
            && *old == mark
        {
            return Ok(Arc::clone(resolvers));
        }
        let text = fs::read(&self.path).map_err(read)?;
        let resolvers: Arc<[SocketAddr]> = parse(&String::from_utf8_lossy(&text)).into();
        *seen = Some((mark, Arc::clone(&resolvers)));
        Ok(resolvers)
    }
}

/// Source: resolv.conf(5).
fn parse(text: &str) -> Vec<SocketAddr> {
    let nameserver = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        address(words.next()?)
    };
    let mut found: Vec<SocketAddr> = text.lines().filter_map(nameserver).take(MOST).collect();
    if found.is_empty() {
        found.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    found
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((ip, 53).into());
    }
    // A link-local address with its interface: `fe80::1%eth0`.
    let (ip, scope) = text.split_once('%')?;
    let index = scope.parse().ok().or_else(|| interface_index(scope))?;
    Some(SocketAddrV6::new(ip.parse().ok()?, 53, 0, index).into())
}

fn interface_index(name: &str) -> Option<u32> {
    let any = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    rustix::net::netdevice::name_to_index(&any, name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_as_the_c_library_reads_them() {
        let text = "# nameserver 9.9.9.9\nsearch x\n\tnameserver 127.0.0.53 # local\nnameserver\n\
                    nameserver nonsense\nnameserver fe80::1%7\nnameserver ::1\nnameserver 1.1.1.1\n";
        let found: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[fe80::1%7]:53", "[::1]:53"]);
        assert_eq!(parse("options edns0"), [(Ipv4Addr::LOCALHOST, 53).into()]);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("resolv.conf");
        let resolvers = Resolvers::new(path.clone());
        assert!(resolvers.now().is_err(), "there is no file yet");
        fs::write(&path, "nameserver 192.0.2.1").expect("written");
        assert_eq!(
            resolvers.now().expect("read")[0].to_string(),
            "192.0.2.1:53"
        );
        let other = directory.path().join("new");
        fs::write(&other, "nameserver 192.0.2.9").expect("written");
        fs::rename(&other, &path).expect("replaced");
        assert_eq!(
            resolvers.now().expect("read")[0].to_string(),
            "192.0.2.9:53"
        );
        fs::write(&path, "x".repeat((64 << 10) + 1)).expect("written");
        assert!(matches!(
            resolvers.now(),
            Err(ResolverError::TooLarge { .. })
        ));
    }
}
