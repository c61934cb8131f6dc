//! What an image is made of, and the id that follows from it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{debian, finish, node};
use crate::ext4;

/// Grows when images are made in a way that the other inputs of an id do not show.
const FORMAT: u32 = 1;

/// Where administrators put the certificates that this machine trusts beside the public ones.
/// Source: update-ca-certificates(8).
const LOCAL_CERTIFICATES: &str = "/usr/local/share/ca-certificates";

/// Most local certificates that are taken over, and the longest of them in bytes.
const MOST_CERTIFICATES: usize = 64;
const LONGEST_CERTIFICATE: u64 = 256 << 10;

/// Names a base image: the hash of its recipe, [`ImageId::LEN`] characters of `0-9a-f`. Equal ids are images
/// made in the same way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageId(String);

/// A text that is no image id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image id must be {} characters of 0-9a-f", ImageId::LEN)]
pub struct ParseImageIdError;

impl ImageId {
    /// Length of the text: 128 bits, so that nobody meets two recipes with one id.
    pub const LEN: usize = 32;

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ImageId {
    type Err = ParseImageIdError;

    fn from_str(text: &str) -> Result<Self, ParseImageIdError> {
        let fits = text.len() == Self::LEN
            && text
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseImageIdError)
        }
    }
}

impl TryFrom<String> for ImageId {
    type Error = ParseImageIdError;

    fn try_from(text: String) -> Result<Self, ParseImageIdError> {
        text.parse()
    }
}

impl From<ImageId> for String {
    fn from(id: ImageId) -> String {
        id.0
    }
}

/// A release of Debian that we know how to make an image of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 13.
    Trixie,
}

impl Suite {
    /// Its code name, as in the archive.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
        }
    }
}

/// How much is in a Debian image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// What people expect of a computer to work on: compiler, Python, Node, git, editors.
    Default,
    /// Just enough for a sprite to run; small and quick to make.
    Minimal,
}

/// Certificates that the host's administrator added to those it trusts. An image takes them over: where a proxy
/// with a certificate of its own stands before the network, nothing in a sprite could reach the network else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostTrust {
    /// File name and content, in the order of the names.
    pub(crate) certificates: Vec<(String, Vec<u8>)>,
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipe {
    /// Packages from Debian's archive.
    Debian {
        /// Which release.
        suite: Suite,
        /// How much of it.
        variant: Variant,
        /// Certificates to trust beside the public ones.
        trust: HostTrust,
    },
    /// Any root file system in a tarball: plain, or compressed by gzip, xz or zstd.
    Tar {
        /// The tarball.
        path: PathBuf,
        /// BLAKE3 of the tarball, in hexadecimal.
        digest: String,
    },
}

/// Why a recipe could not be written down.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
pub struct RecipeError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Recipe {
    /// The Debian image of this release of `sprited`, with the certificates that this host trusts.
    ///
    /// # Errors
    /// The host's certificates cannot be read.
    pub fn debian(variant: Variant) -> Result<Self, RecipeError> {
        let directory = Path::new(LOCAL_CERTIFICATES);
        let trust = HostTrust::read(directory).map_err(|source| RecipeError {
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self::Debian {
            suite: Suite::Trixie,
            variant,
            trust,
        })
    }

    /// The image of the root file system in a tarball. Reads all of the file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn tar(path: &Path) -> Result<Self, RecipeError> {
        let failed = |source| RecipeError {
            path: path.to_owned(),
            source,
        };
        let path = path.canonicalize().map_err(failed)?;
        let digest = digest(&path).map_err(failed)?;
        Ok(Self::Tar { path, digest })
    }

    /// The image's id. Where the packages come from is not part of it: the archive's signature says what they are.
    #[must_use]
    pub fn id(&self) -> ImageId {
        let mut hasher = blake3::Hasher::new();
        let mut add = |bytes: &[u8]| {
            // With its length, so that no two lists of parts read as the same bytes.
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        add(b"sprited base image");
        add(&FORMAT.to_le_bytes());
        add(std::env::consts::ARCH.as_bytes());
        ext4::LAYOUT.iter().for_each(|part| add(part.as_bytes()));
        finish::ingredients()
            .iter()
            .for_each(|part| add(part.as_bytes()));
        match self {
            Self::Debian {
                suite,
                variant,
                trust,
            } => {
                add(b"debian");
                add(suite.as_str().as_bytes());
                debian::ingredients(*variant)
                    .iter()
                    .for_each(|part| add(part.as_bytes()));
                if *variant == Variant::Default {
                    node::PACKAGES.iter().for_each(|part| add(part.as_bytes()));
                }
                for (name, certificate) in &trust.certificates {
                    add(name.as_bytes());
                    add(certificate);
                }
            }
            Self::Tar { path: _, digest } => {
                add(b"tar");
                add(digest.as_bytes());
            }
        }
        ImageId(hasher.finalize().to_hex()[..ImageId::LEN].to_owned())
    }

    /// What the image is, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Debian { suite, variant, .. } => {
                let variant = match variant {
                    Variant::Default => "default",
                    Variant::Minimal => "minimal",
                };
                format!("Debian {}, {variant}", suite.as_str())
            }
            Self::Tar { path, .. } => format!("tarball {}", path.display()),
        }
    }
}

impl HostTrust {
    /// The certificates in a directory; none if it does not exist.
    fn read(directory: &Path) -> io::Result<Self> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut certificates = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let data = fs::metadata(entry.path())?;
            if name.ends_with(".crt") && data.is_file() && data.len() <= LONGEST_CERTIFICATE {
                certificates.push((name, fs::read(entry.path())?));
            }
        }
        certificates.sort();
        certificates.truncate(MOST_CERTIFICATES);
        Ok(Self { certificates })
    }
}

/// BLAKE3 of a file, in hexadecimal.
pub(super) fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(variant: Variant, trust: HostTrust) -> Recipe {
        Recipe::Debian {
            suite: Suite::Trixie,
            variant,
            trust,
        }
    }

    #[test]
    fn another_recipe_is_another_id() {
        let trust = HostTrust {
            certificates: vec![("a.crt".into(), b"a".to_vec())],
        };
        let ids = [
            debian(Variant::Default, HostTrust::default()).id(),
            debian(Variant::Minimal, HostTrust::default()).id(),
            debian(Variant::Minimal, trust).id(),
            Recipe::Tar {
                path: "/a".into(),
                digest: "1".into(),
            }
            .id(),
            Recipe::Tar {
                path: "/a".into(),
                digest: "2".into(),
            }
            .id(),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{id} twice");
            assert_eq!(id.as_str().parse::<ImageId>().as_ref(), Ok(id));
        }
    }

    #[test]
    fn a_tarball_is_known_by_its_content() {
        let directory = tempfile::tempdir().expect("a directory");
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&a, "same").expect("a file");
        fs::write(&b, "same").expect("a file");
        let id = |path: &Path| Recipe::tar(path).expect("a recipe").id();
        assert_eq!(id(&a), id(&b));
        fs::write(&b, "other").expect("a file");
        assert_ne!(id(&a), id(&b));
    }

    #[test]
    fn only_ids_are_read_as_ids() {
        assert!(
            "0123456789abcdef0123456789abcdef"
                .parse::<ImageId>()
                .is_ok()
        );
        for bad in [
            "",
            "../../etc/passwd",
            "0123456789ABCDEF0123456789ABCDEF",
            "0123456789abcdef",
        ] {
            assert_eq!(bad.parse::<ImageId>(), Err(ParseImageIdError));
        }
    }
}
