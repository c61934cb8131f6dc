//! What a newcomer's computer goes through: nothing that was not listed and agreed to.
//!
//! `sudo`, `apt-get` and `cargo` are programs of ours here, which only write down that they were called.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

const QUESTION: &str = "Go on? [y/N]";

/// A person who is not root, and a computer that writes down what is started.
struct Newcomer {
    home: TempDir,
}

impl Newcomer {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let newcomer = Self { home };
        // Readable by whoever the person is: the directory of build results may not be.
        fs::copy(env!("CARGO_BIN_EXE_xtask"), newcomer.path("xtask")).unwrap();
        fs::write(newcomer.path("calls"), "").unwrap();
        for program in ["sudo", "apt-get", "cargo"] {
            let calls = newcomer.path("calls");
            // A build fails, so that nothing goes on after it.
            let script = format!(
                "#!/bin/sh\necho {program} \"$@\" >> {}\ntest {program} != cargo\n",
                calls.display()
            );
            fs::write(newcomer.path(program), script).unwrap();
            fs::set_permissions(newcomer.path(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for path in [newcomer.home.path().to_owned(), newcomer.path("calls")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        newcomer
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:/usr/bin:/bin", self.home.path().display()),
            )
            .env("HOME", self.home.path())
            .current_dir("/");
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65534).gid(65534);
        }
        command
    }

    /// Types a command and an answer at a terminal; what was on it, and whether it went well.
    fn types(&self, words: &str, answer: &str) -> (String, bool) {
        let xtask = self.path("xtask");
        let line = format!("{} {words}", xtask.display());
        let mut child = self
            .command("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("script is part of every system");
        let mut keys = child.stdin.take().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (mut screen, mut asked, mut buffer) = (String::new(), false, [0; 4096]);
        loop {
            let count = output.read(&mut buffer).unwrap();
            screen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            if count == 0 {
                break;
            }
            if !asked && screen.contains(QUESTION) {
                asked = true;
                writeln!(keys, "{answer}").unwrap();
            }
        }
        (screen, child.wait().unwrap().success())
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap();
        calls.lines().map(str::to_owned).collect()
    }
}

#[test]
fn what_needs_root_is_listed_before_one_question_and_a_no_changes_nothing() {
    for words in ["demo", "test --all", "bench"] {
        let newcomer = Newcomer::new();
        let (screen, success) = newcomer.types(words, "n");
        assert!(!success, "{words}: {screen}");
        let (list, rest) = screen
            .split_once(QUESTION)
            .unwrap_or_else(|| panic!("{words}: no question in {screen}"));
        assert!(
            list.contains("These steps run with sudo:"),
            "{words}: {list}"
        );
        assert!(list.contains("/var/cache/sprited"), "{words}: {list}");
        assert!(rest.contains("nothing was changed"), "{words}: {rest}");
        assert!(!rest.contains(QUESTION), "asked once: {screen}");
        assert_eq!(newcomer.calls(), Vec::<String>::new(), "{words}");
    }
}

#[test]
fn after_a_yes_sudo_is_unlocked_and_programs_are_built_by_the_person() {
    let newcomer = Newcomer::new();
    let (screen, _) = newcomer.types("demo", "y");
    let calls = newcomer.calls();
    assert_eq!(screen.matches(QUESTION).count(), 1, "{screen}");
    assert_eq!(
        calls.first().map(String::as_str),
        Some("sudo -v"),
        "{calls:?}"
    );
    let build = calls.iter().find(|call| call.contains("build"));
    assert!(
        build.is_some_and(|call| call.starts_with("cargo build")),
        "{calls:?}"
    );
}

#[test]
fn where_nobody_can_be_asked_nothing_is_done_unless_it_was_agreed_to() {
    let newcomer = Newcomer::new();
    let run = |words: &[&str]| {
        let output = newcomer
            .command(newcomer.path("xtask").to_str().unwrap())
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&["demo"]);
    assert!(said.contains("--yes agrees to what is listed"), "{said}");
    assert_eq!(newcomer.calls(), Vec::<String>::new());
    let said = run(&["demo", "--yes"]);
    assert!(!said.contains(QUESTION), "{said}");
    assert!(said.contains("These steps run with sudo:"), "{said}");
    assert_eq!(newcomer.calls()[0], "sudo -v");
}
