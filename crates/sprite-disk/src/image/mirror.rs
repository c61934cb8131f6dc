//! Which mirror of Debian's archive to use: the one that this machine uses, where it is Debian itself.
//!
//! Sprites go on using it, so it must be one that they can reach without a secret.

use std::collections::HashMap;
use std::fs;

use crate::tool::{self, ToolError};

/// What apt is asked to tell of each of its sources. Fields that it does not know stay as they are written here,
/// and it knows `ORIGIN` and `LABEL` only after an `apt-get update`.
const FORMAT: &str = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(LABEL)";

/// Lines for `sources.list` with `suite` from this machine's mirrors; none where this is not Debian or it does
/// not say, and the archive's own front is to be used.
pub(super) fn sources(suite: &str) -> Vec<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let release = fields(&release);
    if release.get("ID").map(String::as_str) != Some("debian") {
        return Vec::new();
    }
    let Some(codename) = release.get("VERSION_CODENAME") else {
        return Vec::new();
    };
    // On a machine that never ran `apt-get update`, apt tells its sources only where it need not say more.
    let targets = [
        &[][..],
        &["-o", "APT::Get::IndexTargets::ReleaseInfo=false"][..],
    ]
    .into_iter()
    .filter_map(|options| ask(options).ok())
    .find(|targets| !targets.trim().is_empty());
    choose(&targets.unwrap_or_default(), codename, suite)
}

fn ask(options: &[&str]) -> Result<String, ToolError> {
    let mut command = tool::APT_GET.command()?;
    command
        .arg("indextargets")
        .args(options)
        .args(["--format", FORMAT, "Created-By: Packages"]);
    tool::APT_GET.ask(command)
}

/// `KEY=value` lines, values perhaps in quotes. Source: os-release(5).
fn fields(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

fn choose(targets: &str, codename: &str, suite: &str) -> Vec<String> {
    let sources: Vec<Source> = targets.lines().filter_map(Source::parse).collect();
    let find = |archive: Archive, release: &str| {
        sources
            .iter()
            .find(|source| source.archive == archive && source.release == release)
    };
    let main = find(Archive::Main, codename).or_else(|| find(Archive::Main, "stable"));
    let security = find(Archive::Security, &format!("{codename}-security"))
        .or_else(|| find(Archive::Security, "stable-security"));
    match (main, security) {
        (Some(main), Some(security)) => vec![
            format!("deb {} {suite} main", main.uri),
            format!("deb {} {suite}-updates main", main.uri),
            format!("deb {} {suite}-security main", security.uri),
        ],
        // Half an answer would be an image without security updates.
        (None | Some(_), None) | (None, Some(_)) => Vec::new(),
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Archive {
    Main,
    Security,
}

#[derive(Debug)]
struct Source<'a> {
    archive: Archive,
    uri: &'a str,
    release: &'a str,
}

impl<'a> Source<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(5, ' ');
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        let (origin, label) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let open =
            (uri.starts_with("http://") || uri.starts_with("https://")) && !uri.contains('@');
        if !open || component != "main" {
            return None;
        }
        let archive = match (origin, label) {
            ("Debian", "Debian") => Archive::Main,
            ("Debian", "Debian-Security") => Archive::Security,
            ("$(ORIGIN)" | "", _) => Self::archive_by_path(uri)?,
            // Somebody else's packages for Debian.
            _ => return None,
        };
        Some(Self {
            archive,
            uri,
            release,
        })
    }

    /// Mirrors keep the paths of the archive. Source: Debian's instructions for mirrors.
    fn archive_by_path(uri: &str) -> Option<Archive> {
        match uri.trim_end_matches('/').rsplit('/').next()? {
            "debian" => Some(Archive::Main),
            "debian-security" => Some(Archive::Security),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_mirrors_serve_the_other_suite() {
        let targets = "http://mirror.example/debian/ bookworm main $(ORIGIN) $(LABEL)\n\
            http://mirror.example/debian/ bookworm-updates main $(ORIGIN) $(LABEL)\n\
            http://mirror.example/debian-security/ bookworm-security main $(ORIGIN) $(LABEL)\n\
            https://packages.example/apt bookworm main $(ORIGIN) $(LABEL)\n";
        assert_eq!(
            choose(targets, "bookworm", "trixie"),
            [
                "deb http://mirror.example/debian/ trixie main",
                "deb http://mirror.example/debian/ trixie-updates main",
                "deb http://mirror.example/debian-security/ trixie-security main",
            ]
        );
    }

    #[test]
    fn what_the_archive_says_of_itself_wins_over_paths() {
        let targets = "https://other.example/linux/debian/ bookworm main Other Packages\n\
            https://proxy.example/remote-1/ bookworm main Debian Debian\n\
            https://proxy.example/remote-2/ bookworm-security main Debian Debian-Security\n";
        let sources = choose(targets, "bookworm", "trixie");
        assert_eq!(sources.len(), 3);
        assert!(
            sources[0].contains("remote-1") && sources[2].contains("remote-2"),
            "{sources:?}"
        );
    }

    #[test]
    fn mirrors_with_secrets_or_files_and_halves_are_not_used() {
        for uri in [
            "https://user:word@mirror.example/debian/",
            "file:/srv/debian/",
            "cdrom://x/debian/",
        ] {
            let targets = format!(
                "{uri} bookworm main Debian Debian\n\
                 http://m.example/debian-security/ bookworm-security main Debian Debian-Security\n"
            );
            assert!(choose(&targets, "bookworm", "trixie").is_empty(), "{uri}");
        }
        assert!(choose("", "bookworm", "trixie").is_empty());
        assert!(choose("no words", "bookworm", "trixie").is_empty());
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let release = fields("ID=debian\nVERSION_CODENAME=\"bookworm\"\n# remark\n");
        assert_eq!(release["ID"], "debian");
        assert_eq!(release["VERSION_CODENAME"], "bookworm");
    }
}
