//! Users of the environment, read from its own `/etc/passwd` and `/etc/group`. No name service is asked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The user that sessions run as.
pub(crate) const USER: &str = "sprite";

/// Longest file that is read; a longer one is taken for not there.
const LONGEST: u64 = 1 << 20;

/// A user, as far as a session needs one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
    pub(crate) groups: Vec<u32>,
}

impl User {
    /// The environment's user [`USER`], as its files say; uid 1000 in `/home/sprite` where they do not.
    pub(crate) fn load() -> Self {
        let read = |path: &str| read_bounded(Path::new(path)).unwrap_or_default();
        Self::find(&read("/etc/passwd"), &read("/etc/group"))
    }

    fn find(passwd: &str, group: &str) -> Self {
        let mut user = passwd.lines().find_map(parse_user).unwrap_or_else(|| Self {
            name: USER.to_owned(),
            uid: 1000,
            gid: 1000,
            home: "/home/sprite".to_owned(),
            shell: "/bin/bash".to_owned(),
            groups: Vec::new(),
        });
        user.groups = group
            .lines()
            .filter_map(parse_membership)
            .take(64)
            .collect();
        user
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| *name == USER)?;
    let _password = fields.next()?;
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let _gecos = fields.next()?;
    let home = fields.next().filter(|home| home.starts_with('/'))?;
    let shell = fields
        .next()
        .filter(|shell| !shell.is_empty())
        .unwrap_or("/bin/sh");
    Some(User {
        name: name.to_owned(),
        uid,
        gid,
        home: home.to_owned(),
        shell: shell.to_owned(),
        groups: Vec::new(),
    })
}

fn parse_membership(line: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let (_name, _password) = (fields.next()?, fields.next()?);
    let gid = fields.next()?.parse().ok()?;
    fields
        .next()?
        .split(',')
        .any(|member| member == USER)
        .then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_found_among_others_and_in_its_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nsprite:x:1234:77:,,,:/home/s:/bin/zsh\n";
        let group = "sudo:x:27:alice,sprite\nsprite:x:77:\nother:x:5:spritely\n";
        let user = User::find(passwd, group);
        assert_eq!(
            (user.uid, user.gid, user.groups.as_slice()),
            (1234, 77, &[27][..])
        );
        assert_eq!(
            (user.home.as_str(), user.shell.as_str()),
            ("/home/s", "/bin/zsh")
        );
    }

    #[test]
    fn broken_files_give_the_default_user() {
        for passwd in [
            "",
            "sprite",
            "sprite:x:abc:1::/:",
            "sprite:x:1:1::relative:/bin/sh",
            ":::::",
        ] {
            assert_eq!(User::find(passwd, "::::\n,,").uid, 1000, "{passwd:?}");
        }
    }
}
