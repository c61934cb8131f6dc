//! What every sprite has, whatever its root file system was made from: the user `sprite`, who may do everything
//! without a password, and the plain files around it.

use std::io;
use std::path::Path;

use super::account::{self, Account, Texts};
use super::tree::{Attributes, Tree};

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The directory cannot be opened.
    #[error("open the root file system")]
    Open(#[source] io::Error),
    /// A file or directory of it.
    #[error("write {path} of the root file system")]
    Write {
        /// Its path inside.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Every number that people's accounts may have is taken.
    #[error("no free number for the user sprite")]
    NoNumber,
}

/// Mount points and directories that programs take for granted.
const DIRECTORIES: [(&str, u32); 14] = [
    ("/dev", 0o755),
    ("/etc", 0o755),
    ("/home", 0o755),
    ("/proc", 0o555),
    ("/root", 0o700),
    ("/run", 0o755),
    ("/sys", 0o555),
    ("/tmp", 0o1777),
    ("/usr/local/bin", 0o755),
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/log", 0o755),
    ("/var/tmp", 0o1777),
    ("/etc/profile.d", 0o755),
];

/// Groups that the user belongs to where they exist: may use sudo; may write below /usr/local.
const GROUPS: [&str; 2] = ["sudo", "staff"];

/// Files of the build's host or of one machine only. The agent writes its own at every start.
const FORGOTTEN: [&str; 4] = [
    "/etc/resolv.conf",
    "/etc/hostname",
    "/var/lib/dbus/machine-id",
    "/etc/.pwd.lock",
];

const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

const SUDOERS: &str = "# sprite owns its computer.\nsprite ALL=(ALL:ALL) NOPASSWD: ALL\n";

/// Read by login shells, and by the interactive shells that `SHELLS` hooks it into. `/etc/profile` of most
/// distributions forgets the PATH that it was started with.
const PROFILE: &str = r#"# Programs that were installed for this user only come first.
case ":$PATH:" in
    *":$HOME/.local/bin:"*) ;;
    *) PATH="$HOME/.local/bin:$PATH"; export PATH ;;
esac
if [ -z "${LANG:-}" ]; then
    LANG=C.UTF-8; export LANG
fi
"#;

/// Start-up files of shells that are not login shells, which get a line that reads `PROFILE`.
const SHELLS: [&str; 2] = ["/etc/bash.bashrc", "/etc/zsh/zshenv"];

const SOURCE_PROFILE: &str = "\n[ -r /etc/profile.d/sprite.sh ] && . /etc/profile.d/sprite.sh\n";

/// Where there is no init, a package's service cannot start when the package is installed, and need not.
/// Source: Debian, invoke-rc.d(8).
const POLICY: &str = "#!/bin/sh\n# Nothing starts by being installed.\nexit 101\n";

/// `pip install` works outside of a virtual environment too: nothing else manages this computer.
const PIP: &str = "[global]\nbreak-system-packages = true\ndisable-pip-version-check = true\n";

/// npm trusts what the system trusts.
const NPM: &str = "cafile=/etc/ssl/certs/ca-certificates.crt\nupdate-notifier=false\n";

const LOCALE: &str = "LANG=C.UTF-8\n";

/// Without a file of its own, zsh asks a newcomer questions.
const ZSHRC: &str = "autoload -Uz compinit && compinit\nPROMPT='%n@%m:%~%# '\n\
    HISTFILE=~/.zsh_history HISTSIZE=10000 SAVEHIST=10000\nbindkey -e\n";

/// Everything here that decides what is in an image. Directories and groups are the code's, see `FORMAT` in
/// `recipe.rs`.
pub(super) fn ingredients() -> [&'static str; 9] {
    [
        HOSTS,
        SUDOERS,
        PROFILE,
        SOURCE_PROFILE,
        POLICY,
        PIP,
        NPM,
        LOCALE,
        ZSHRC,
    ]
}

/// Adds what every sprite has to the root file system below `root`, which may be anybody's work.
pub(super) fn finish(root: &Path) -> Result<(), FinishError> {
    let finish = Finish {
        tree: Tree::open(root).map_err(FinishError::Open)?,
    };
    for (path, mode) in DIRECTORIES {
        finish.directory(
            path,
            Attributes {
                mode,
                ..Attributes::DIRECTORY
            },
        )?;
    }
    let account = finish.account()?;
    finish.home(&account)?;
    finish.system()
}

struct Finish {
    tree: Tree,
}

impl Finish {
    fn account(&self) -> Result<Account, FinishError> {
        let before = Texts {
            passwd: self.read("/etc/passwd")?,
            group: self.read("/etc/group")?,
            shadow: self.read("/etc/shadow")?,
        };
        let bash = self.tree.exists("/bin/bash");
        let shell = if bash { "/bin/bash" } else { "/bin/sh" };
        let (texts, account) =
            account::ensure(before, shell, &GROUPS).ok_or(FinishError::NoNumber)?;
        self.write("/etc/passwd", &texts.passwd, Attributes::FILE)?;
        self.write("/etc/group", &texts.group, Attributes::FILE)?;
        self.write(
            "/etc/shadow",
            &texts.shadow,
            Attributes {
                mode: 0o600,
                ..Attributes::FILE
            },
        )?;
        if self.tree.exists("/etc/sudoers.d") {
            let private = Attributes {
                mode: 0o440,
                ..Attributes::FILE
            };
            self.write("/etc/sudoers.d/sprite", SUDOERS, private)?;
        }
        Ok(account)
    }

    fn home(&self, account: &Account) -> Result<(), FinishError> {
        let own = |mode| Attributes {
            mode,
            uid: account.uid,
            gid: account.gid,
        };
        let home = &account.home;
        let is_new = !self.tree.exists(home);
        self.directory(home, own(0o755))?;
        self.directory(&format!("{home}/.local/bin"), own(0o755))?;
        if !is_new {
            return Ok(());
        }
        for name in [".bashrc", ".profile", ".bash_logout"] {
            let text = self.read(&format!("/etc/skel/{name}"))?;
            if !text.is_empty() {
                self.write(&format!("{home}/{name}"), &text, own(0o644))?;
            }
        }
        if self.tree.exists("/etc/zsh") {
            self.write(&format!("{home}/.zshrc"), ZSHRC, own(0o644))?;
        }
        Ok(())
    }

    fn system(&self) -> Result<(), FinishError> {
        for path in FORGOTTEN {
            self.tree
                .remove(path)
                .map_err(|source| write_error(path, source))?;
        }
        // Plain files, so that the agent's are: links would lead to what an init makes.
        self.write("/etc/resolv.conf", "", Attributes::FILE)?;
        self.write("/etc/hostname", "sprite\n", Attributes::FILE)?;
        self.write("/etc/hosts", HOSTS, Attributes::FILE)?;
        // Empty: every sprite is a machine of its own. Source: machine-id(5).
        self.write(
            "/etc/machine-id",
            "",
            Attributes {
                mode: 0o444,
                ..Attributes::FILE
            },
        )?;
        self.write("/etc/profile.d/sprite.sh", PROFILE, Attributes::FILE)?;
        for path in SHELLS {
            let text = self.read(path)?;
            if !text.is_empty() {
                self.write(path, &(text + SOURCE_PROFILE), Attributes::FILE)?;
            }
        }
        let given = [
            (
                "/var/lib/dpkg",
                "/usr/sbin/policy-rc.d",
                POLICY,
                Attributes::PROGRAM,
            ),
            ("/usr/bin/pip", "/etc/pip.conf", PIP, Attributes::FILE),
            (
                "/usr/local/bin/npm",
                "/usr/local/etc/npmrc",
                NPM,
                Attributes::FILE,
            ),
            (
                "/var/lib/dpkg",
                "/etc/default/locale",
                LOCALE,
                Attributes::FILE,
            ),
        ];
        for (only_with, path, text, attributes) in given {
            if self.tree.exists(only_with) && !self.tree.exists(path) {
                self.write(path, text, attributes)?;
            }
        }
        Ok(())
    }

    fn directory(&self, path: &str, attributes: Attributes) -> Result<(), FinishError> {
        self.tree
            .make_directory(path, attributes)
            .map_err(|source| write_error(path, source))
    }

    fn read(&self, path: &str) -> Result<String, FinishError> {
        let text = self
            .tree
            .read(path)
            .map_err(|source| write_error(path, source))?;
        Ok(text.unwrap_or_default())
    }

    fn write(&self, path: &str, text: &str, attributes: Attributes) -> Result<(), FinishError> {
        self.tree
            .write(path, text, attributes)
            .map_err(|source| write_error(path, source))
    }
}

fn write_error(path: &str, source: io::Error) -> FinishError {
    FinishError::Write {
        path: path.to_owned(),
        source,
    }
}
