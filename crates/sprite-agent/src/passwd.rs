//! Users of the environment, read from its own `/etc/passwd` and `/etc/group`. No name service is asked.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
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

/// A file that is one, of a bounded length. Anything else that hostile code put there is not waited for: opening
/// a pipe without a writer would.
pub(crate) fn read_bounded(path: &Path) -> io::Result<String> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// The number that a file such as `/etc/passwd` or `/etc/group` has for a name.
pub(crate) fn find_id(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|found| *found == name)?;
        fields.nth(1).and_then(parse_id)
    })
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| *name == USER)?;
    let _password = fields.next()?;
    let uid = fields.next().and_then(parse_id)?;
    let gid = fields.next().and_then(parse_id)?;
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

/// All ones stands for "no change" in the calls that take an id.
fn parse_id(field: &str) -> Option<u32> {
    field.parse().ok().filter(|&id| id != u32::MAX)
}

fn parse_membership(line: &str) -> Option<u32> {
    let mut fields = line.split(':');
    let (_name, _password) = (fields.next()?, fields.next()?);
    let gid = fields.next().and_then(parse_id)?;
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
            "sprite:x:4294967295:1::/:",
            "sprite:x:1:4294967295::/:",
            ":::::",
        ] {
            assert_eq!(User::find(passwd, "::::\n,,").uid, 1000, "{passwd:?}");
        }
    }
}
