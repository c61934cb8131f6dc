//! Where this computer gets its packages: where it is Debian, the box gets its own there too.

use crate::program::Program;

/// Lines for `sources.list` with `suite`; none where the archive's own front is to be used.
pub fn sources(suite: &str) -> Vec<String> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_owned())
    };
    let (Some(system), Some(codename)) = (field("ID"), field("VERSION_CODENAME")) else {
        return Vec::new();
    };
    if system != "debian" {
        return Vec::new();
    }
    // Not asked for what apt knows only after an update.
    let targets = Program::new("apt-get")
        .args([
            "indextargets",
            "-o",
            "APT::Get::IndexTargets::ReleaseInfo=false",
        ])
        .args([
            "--format",
            "$(REPO_URI) $(RELEASE) $(COMPONENT)",
            "Created-By: Packages",
        ])
        .read();
    choose(&targets.unwrap_or_default(), &codename, suite)
}

fn choose(targets: &str, codename: &str, suite: &str) -> Vec<String> {
    let find = |archive: &str, release: &str| {
        targets.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let &[uri, of, "main"] = words.as_slice() else {
                return None;
            };
            // Mirrors keep the paths of the archive. Source: Debian's instructions for mirrors.
            let path = uri.trim_end_matches('/').rsplit('/').next();
            let open = uri.starts_with("http") && !uri.contains('@');
            (open && of == release && path == Some(archive)).then(|| uri.to_owned())
        })
    };
    let main = find("debian", codename);
    let security = find("debian-security", &format!("{codename}-security"));
    match (main, security) {
        (Some(main), Some(security)) => vec![
            format!("deb {main} {suite} main"),
            format!("deb {main} {suite}-updates main"),
            format!("deb {security} {suite}-security main"),
        ],
        (None | Some(_), None) | (None, Some(_)) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debians_mirrors_serve_the_other_release() {
        let targets = "https://packages.example/apt bookworm main\n\
            http://mirror.example/debian/ bookworm main\n\
            http://mirror.example/debian-security/ bookworm-security main\n";
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
    fn halves_and_mirrors_with_secrets_are_not_used() {
        let security = "http://m.example/debian-security/ bookworm-security main\n";
        assert!(choose(security, "bookworm", "trixie").is_empty());
        let secret = format!("http://user:word@m.example/debian/ bookworm main\n{security}");
        assert!(choose(&secret, "bookworm", "trixie").is_empty());
    }
}
