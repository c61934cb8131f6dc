//! Programs: shown before they run, and their failure named.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::failure::{Failure, Outcome};
use crate::interrupt;

/// How many of a failed program's last lines are repeated in the failure.
const REPEATED_LINES: usize = 30;

/// A command line to be.
#[derive(Debug)]
pub struct Program {
    words: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    unset: Vec<OsString>,
    directory: Option<std::path::PathBuf>,
    own_group: bool,
}

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Program {
    /// Starts a command line.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            words: vec![program.as_ref().to_owned()],
            environment: Vec::new(),
            unset: Vec::new(),
            directory: None,
            own_group: false,
        }
    }

    /// The cargo that runs this. What it told this program about the package `xtask` is taken out again: build
    /// scripts that look at such variables would run anew, and everything after them.
    pub fn cargo() -> Self {
        let mut program = Self::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        program.unset = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| {
                let name = name.to_string_lossy();
                ["CARGO_PKG_", "CARGO_MANIFEST_"]
                    .iter()
                    .any(|stem| name.starts_with(stem))
            })
            .collect();
        program
    }

    /// Adds words.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.words
            .extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Takes variables of ours out of its environment.
    #[must_use]
    pub fn unset(mut self, names: &[&str]) -> Self {
        self.unset.extend(names.iter().map(OsString::from));
        self
    }

    /// Sets its working directory.
    #[must_use]
    pub fn dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_owned());
        self
    }

    /// Keeps a Ctrl-C at the terminal from reaching it: it is ended in order instead.
    #[must_use]
    pub fn own_group(mut self) -> Self {
        self.own_group = true;
        self
    }

    /// Puts `sudo -n` before it. The variables are handed over by name, because sudo drops them.
    #[must_use]
    pub fn with_sudo(mut self) -> Self {
        let mut words: Vec<OsString> = vec!["sudo".into(), "-n".into(), "env".into()];
        for (name, value) in self.environment.drain(..) {
            let mut assignment = name;
            assignment.push("=");
            assignment.push(value);
            words.push(assignment);
        }
        words.append(&mut self.words);
        self.words = words;
        self
    }

    /// The command line as a person would type it.
    pub fn shown(&self) -> String {
        let mut shown = String::new();
        let cargo = std::env::var_os("CARGO");
        for word in &self.words {
            // Its whole path says nothing to a reader.
            let word = if cargo.as_ref() == Some(word) {
                "cargo".into()
            } else {
                word.to_string_lossy()
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@+%".contains(c);
            if !shown.is_empty() {
                shown.push(' ');
            }
            if !word.is_empty() && word.chars().all(plain) {
                shown.push_str(&word);
            } else {
                shown.push('\'');
                shown.push_str(&word.replace('\'', r"'\''"));
                shown.push('\'');
            }
        }
        shown
    }

    /// Runs it at the terminal.
    ///
    /// # Errors
    /// It does not start, ends without success, or the person interrupted.
    pub fn run(self) -> Outcome {
        interrupt::check()?;
        let shown = self.shown();
        eprintln!("$ {shown}");
        let status = self
            .command()
            .status()
            .map_err(|source| start_failure(&shown, source))?;
        interrupt::check()?;
        succeed(shown, status, String::new())
    }

    /// Runs it silently and gives back its standard output.
    ///
    /// # Errors
    /// As [`Program::run`]; the failure repeats what it said on standard error.
    pub fn read(self) -> Outcome<String> {
        let shown = self.shown();
        let said = self.say()?;
        succeed(shown, said.status, last_lines(&said.stderr))?;
        Ok(said.stdout)
    }

    /// Runs it silently, whatever its exit status.
    ///
    /// # Errors
    /// It does not start.
    pub fn say(self) -> Outcome<Said> {
        let shown = self.shown();
        let output = self
            .command()
            .stdin(Stdio::null())
            .output()
            .map_err(|source| start_failure(&shown, source))?;
        Ok(Said {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status,
        })
    }

    /// Runs it with `input` on its standard input and gives back its standard output.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn read_with_input(self, input: &str) -> Outcome<String> {
        let shown = self.shown();
        let mut child = self
            .command()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| start_failure(&shown, source))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading everything is judged by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child
            .wait_with_output()
            .map_err(Failure::io(format!("wait for `{shown}`")))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        succeed(shown, output.status, last_lines(&stderr))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs it at the terminal and keeps a copy of what it says, whatever its exit status.
    ///
    /// # Errors
    /// It does not start, or the person interrupted.
    pub fn tee(self) -> Outcome<Said> {
        interrupt::check()?;
        let shown = self.shown();
        eprintln!("$ {shown}");
        let mut child = self
            .command()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| start_failure(&shown, source))?;
        let stderr = child.stderr.take().expect("stderr was asked for as a pipe");
        let stdout = child.stdout.take().expect("stdout was asked for as a pipe");
        let copier = std::thread::spawn(move || copy(stderr, &mut std::io::stderr()));
        let stdout = copy(stdout, &mut std::io::stdout());
        let stderr = copier.join().unwrap_or_default();
        let status = child
            .wait()
            .map_err(Failure::io(format!("wait for `{shown}`")))?;
        interrupt::check()?;
        Ok(Said {
            stdout,
            stderr,
            status,
        })
    }

    /// Runs it silently on the person's own terminal, as its standard input, and gives back what it said.
    ///
    /// # Errors
    /// As [`Program::read`].
    pub fn at_terminal(self) -> Outcome<String> {
        let shown = self.shown();
        let output = self
            .command()
            .stdin(Stdio::inherit())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .map_err(|source| start_failure(&shown, source))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        succeed(shown, output.status, last_lines(&stderr))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it with its standard output and error as pipes.
    ///
    /// # Errors
    /// It does not start.
    pub fn spawn_piped(self) -> Outcome<Child> {
        let shown = self.shown();
        eprintln!("$ {shown}");
        self.command()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| start_failure(&shown, source))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        for name in &self.unset {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if self.own_group {
            command.process_group(0);
        }
        command
    }
}

fn start_failure(shown: &str, source: std::io::Error) -> Failure {
    Failure::Start {
        program: shown.to_owned(),
        source,
    }
}

fn succeed(program: String, status: ExitStatus, said: String) -> Outcome {
    if status.success() {
        Ok(())
    } else {
        Err(Failure::Exit {
            program,
            status,
            said,
        })
    }
}

fn copy(from: impl Read, to: &mut impl Write) -> String {
    let mut kept = String::new();
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(reader.read_until(b'\n', &mut line), Ok(length) if length > 0) {
        // A closed terminal must not stop the program that is being watched.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        kept.push_str(&String::from_utf8_lossy(&line));
        line.clear();
    }
    kept
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(REPEATED_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_so_that_it_can_be_typed_again() {
        let program = Program::new("echo").args(["it's", "", "a b", "x=1"]);
        assert_eq!(program.shown(), r"echo 'it'\''s' '' 'a b' x=1");
    }

    #[test]
    fn sudo_hands_the_variables_over_by_name() {
        let program = Program::new("id").args(["-u"]).env("A", "1").with_sudo();
        assert_eq!(program.shown(), "sudo -n env A=1 id -u");
    }

    #[test]
    fn a_failed_program_repeats_what_it_said() {
        let failure = Program::new("sh")
            .args(["-c", "echo why >&2; exit 3"])
            .read();
        let text = failure.expect_err("exit status 3 is a failure").to_string();
        assert!(text.contains("why") && text.contains('3'), "{text}");
    }

    #[test]
    fn input_reaches_the_program_and_its_output_comes_back() {
        let output = Program::new("cat")
            .read_with_input("a secret\n")
            .expect("cat copies");
        assert_eq!(output, "a secret\n");
    }
}
