//! The user `sprite` in the texts of `/etc/passwd`, `/etc/group` and `/etc/shadow`. Source: passwd(5), group(5),
//! shadow(5).

use std::collections::HashSet;

/// Name of the user and of its group.
const NAME: &str = "sprite";

/// The number that user and group get where it is free.
const WANTED: u32 = 1000;

/// Highest number for people's accounts. Source: login.defs(5) of Debian.
const HIGHEST: u32 = 59_999;

/// The account, as the files tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) home: String,
}

/// The three files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Texts {
    pub(super) passwd: String,
    pub(super) group: String,
    pub(super) shadow: String,
}

/// Adds the user if it is missing, and makes it a member of those of `groups` that exist. A user that is there
/// keeps its numbers, home and shell. Nothing if no number is free.
pub(super) fn ensure(mut texts: Texts, shell: &str, groups: &[&str]) -> Option<(Texts, Account)> {
    let account = match find(&texts.passwd) {
        Some(account) => account,
        None => add(&mut texts, shell)?,
    };
    texts.group = texts
        .group
        .lines()
        .map(|line| join(line, groups) + "\n")
        .collect();
    Some((texts, account))
}

fn find(passwd: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [NAME, _, uid, gid, _, home, ..] if home.starts_with('/') => Some(Account {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.trim_end_matches('/').to_owned(),
            }),
            _ => None,
        }
    })
}

fn add(texts: &mut Texts, shell: &str) -> Option<Account> {
    let existing = texts.group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(NAME))
            .then(|| fields.nth(1)?.parse().ok())
            .flatten()
    });
    let gid = match existing {
        Some(gid) => gid,
        None => {
            let gid = free_number(&texts.group)?;
            push(&mut texts.group, &format!("{NAME}:x:{gid}:"));
            gid
        }
    };
    let uid = free_number(&texts.passwd)?;
    let home = format!("/home/{NAME}");
    push(
        &mut texts.passwd,
        &format!("{NAME}:x:{uid}:{gid}::{home}:{shell}"),
    );
    // No password opens the account, and it never runs out, so sudo lets it pass.
    push(&mut texts.shadow, &format!("{NAME}:*:19700:0:99999:7:::"));
    Some(Account { uid, gid, home })
}

/// The first number from [`WANTED`] on that no line has in its third field.
fn free_number(text: &str) -> Option<u32> {
    let taken: HashSet<u32> = text
        .lines()
        .filter_map(|line| line.split(':').nth(2)?.parse().ok())
        .collect();
    (WANTED..=HIGHEST).find(|number| !taken.contains(number))
}

fn join(line: &str, groups: &[&str]) -> String {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, _, members] = fields[..] else {
        return line.to_owned();
    };
    if !groups.contains(&name) || members.split(',').any(|member| member == NAME) {
        return line.to_owned();
    }
    let comma = if members.is_empty() { "" } else { "," };
    format!("{line}{comma}{NAME}")
}

fn push(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(passwd: &str, group: &str) -> Texts {
        Texts {
            passwd: passwd.into(),
            group: group.into(),
            shadow: "root:*:1::::::".into(),
        }
    }

    #[test]
    fn a_missing_user_gets_its_number_and_groups() {
        let before = texts(
            "root:x:0:0:root:/root:/bin/sh\n",
            "root:x:0:\nsudo:x:27:\nstaff:x:50:root",
        );
        let (after, account) = ensure(before, "/bin/bash", &["sudo", "staff"]).expect("numbers");
        assert_eq!(
            account,
            Account {
                uid: 1000,
                gid: 1000,
                home: "/home/sprite".into()
            }
        );
        assert!(
            after
                .passwd
                .ends_with("sprite:x:1000:1000::/home/sprite:/bin/bash\n")
        );
        assert_eq!(
            after.group,
            "root:x:0:\nsudo:x:27:sprite\nstaff:x:50:root,sprite\nsprite:x:1000:\n"
        );
        assert!(after.shadow.starts_with("root:*:1::::::\nsprite:*:"));
        let again = ensure(after.clone(), "/bin/zsh", &["sudo", "staff"]).expect("numbers");
        assert_eq!(again, (after, account));
    }

    #[test]
    fn taken_numbers_stay_with_their_users() {
        let before = texts(
            "ubuntu:x:1000:1000::/home/ubuntu:/bin/bash",
            "ubuntu:x:1000:\nsprite:x:7:",
        );
        let (after, account) = ensure(before, "/bin/sh", &[]).expect("numbers");
        assert_eq!((account.uid, account.gid), (1001, 7));
        assert!(
            after
                .passwd
                .starts_with("ubuntu:x:1000:1000::/home/ubuntu:/bin/bash\nsprite:x:1001:7:")
        );
    }

    #[test]
    fn broken_lines_are_kept_and_full_files_refused() {
        let before = texts("broken\n::\nsprite:x:y:z::/home/s:/bin/sh\n", "x\n");
        let (after, account) = ensure(before, "/bin/sh", &[]).expect("numbers");
        assert!(after.passwd.starts_with("broken\n::\n"));
        assert_eq!(account.uid, 1000);
        let full: String = (WANTED..=HIGHEST)
            .map(|n| format!("u:x:{n}:{n}::/:/\n"))
            .collect();
        assert_eq!(ensure(texts(&full, ""), "/bin/sh", &[]), None);
    }
}
