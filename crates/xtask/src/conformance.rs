//! The official SDKs, unmodified, against a live server; and the server against its own document.
//!
//! Everything they need goes into one Python virtual environment below `target/`: the Python SDK, schemathesis, Node (which
//! the Python package index carries as a wheel, so that no `npm` of the distribution is needed) and, through
//! Node's own npm, the JavaScript SDK.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::{find_program, target_directory, workspace};
use crate::program::Program;
use crate::report::{Tally, tally_of};
use crate::server::Server;

/// Where the SDKs are installed.
#[derive(Debug)]
pub struct Sdks {
    directory: PathBuf,
}

impl Sdks {
    /// Where they would be, whether they are installed or not.
    fn place() -> Self {
        Self {
            directory: target_directory().join("sdks"),
        }
    }

    /// Whether an earlier run installed what the lock files say now.
    pub fn installed() -> bool {
        let sdks = Self::place();
        std::fs::read_to_string(sdks.directory.join("installed")).ok() == sdks.wanted().ok()
    }

    /// Installs them, unless they are there.
    ///
    /// # Errors
    /// There is no `python3 -m venv`, or a package cannot be had.
    pub fn install() -> Outcome<Self> {
        let sdks = Self::place();
        if Self::installed() {
            return Ok(sdks);
        }
        let suite = workspace().join("conformance");
        let venv = sdks.directory.join("venv");
        Program::new("python3")
            // With a copy of the interpreter: where a link to it would lead, another computer has nothing.
            .args(["-m", "venv", "--clear", "--copies"])
            .args([&venv])
            .run()?;
        Program::new(venv.join("bin/pip"))
            .args([
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--requirement",
            ])
            .args([suite.join("py/requirements.txt")])
            .run()?;
        let js = sdks.directory.join("js");
        std::fs::create_dir_all(&js).map_err(Failure::io(format!("make {}", js.display())))?;
        for name in ["package.json", "package-lock.json"] {
            std::fs::copy(suite.join("js").join(name), js.join(name))
                .map_err(Failure::io(format!("copy {name}")))?;
        }
        Program::new(venv.join("bin/npm"))
            .args([
                "ci",
                "--no-audit",
                "--no-fund",
                "--ignore-scripts",
                "--loglevel=error",
            ])
            .dir(&js)
            .run()?;
        sdks.link_suite()?;
        let mark = sdks.directory.join("installed");
        std::fs::write(&mark, sdks.wanted()?)
            .map_err(Failure::io(format!("write {}", mark.display())))?;
        Ok(sdks)
    }

    /// Node looks for packages beside the file it runs: seen through this link, they are beside it.
    fn link_suite(&self) -> Outcome {
        let beside = self.suite();
        if std::fs::symlink_metadata(&beside).is_ok() {
            return Ok(());
        }
        std::os::unix::fs::symlink(workspace().join("conformance/js"), &beside)
            .map_err(Failure::io("link the JavaScript suite beside its SDK"))
    }

    /// Where they are, which their programs have in them, and the lock files' text: when one of it changes, everything
    /// is installed anew.
    fn wanted(&self) -> Outcome<String> {
        let mut wanted = format!("{}\n", self.directory.display());
        for name in [
            "conformance/py/requirements.txt",
            "conformance/js/package-lock.json",
        ] {
            let text = std::fs::read_to_string(workspace().join(name))
                .map_err(Failure::io(format!("read {name}")))?;
            wanted.push_str(&text);
        }
        Ok(wanted)
    }

    /// Where all of this is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The JavaScript suite, beside its SDK.
    fn suite(&self) -> PathBuf {
        self.node_modules().with_file_name("suite")
    }

    /// What the Python needs that the environment was made of, each below the first's parent: its library of modules,
    /// and the shared one that some Pythons are in, if that stands beside it; elsewhere it is the system's own.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn python_libraries(&self) -> Outcome<Vec<PathBuf>> {
        const ASKED: &str =
            "import sysconfig as s; print(s.get_path('stdlib'), s.get_config_var('INSTSONAME'))";
        let said = Program::new(self.python()).args(["-c", ASKED]).read()?;
        let unread = || Failure::Check(format!("Python said {said:?} of its libraries"));
        let (modules, shared) = said.trim().rsplit_once(' ').ok_or_else(unread)?;
        let modules = PathBuf::from(modules);
        let shared = modules.with_file_name(shared);
        let beside = shared.exists().then_some(shared);
        Ok([modules].into_iter().chain(beside).collect())
    }

    /// Python with the SDK.
    pub fn python(&self) -> PathBuf {
        self.directory.join("venv/bin/python")
    }

    /// Node.
    pub fn node(&self) -> PathBuf {
        self.directory.join("venv/bin/node")
    }

    /// The JavaScript SDK.
    pub fn node_modules(&self) -> PathBuf {
        self.directory.join("js/node_modules")
    }
}

/// Names of Chromium and of what is made of it.
const BROWSERS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "google-chrome",
    "google-chrome-stable",
];

/// Runs both suites, a browser if there is one, and asks the server whatever its document allows.
///
/// # Errors
/// A suite could not be run to its end; a test that fails is counted.
pub fn run(server: &Server, sdks: &Sdks) -> Outcome<Tally> {
    let suite = workspace().join("conformance");
    let token = server.token("conformance")?;
    let other = server.token("conformance-other")?;
    let mut total = Tally::default();
    let records = sdks.directory.join("records");
    std::fs::create_dir_all(&records)
        .map_err(Failure::io(format!("make {}", records.display())))?;
    let browser = BROWSERS.iter().find_map(|name| find_program(name));
    let mut programs = vec![
        (
            "official JavaScript SDK",
            Program::new(sdks.node())
                .args(["--preserve-symlinks", "--preserve-symlinks-main"])
                .args([sdks.suite().join("run.mjs")]),
        ),
        (
            "official Python SDK",
            Program::new(sdks.python()).args([suite.join("py/run.py")]),
        ),
        (
            "document of the API",
            Program::new(sdks.python()).args([suite.join("py/contract.py")]),
        ),
    ];
    match browser {
        Some(browser) => programs.push((
            "browser at sprites' URLs",
            Program::new(sdks.python())
                .args([suite.join("py/browser.py")])
                .env("SPRITES_TEST_BROWSER", browser.display().to_string()),
        )),
        None => eprintln!(
            "browser at sprites' URLs: skipped, there is no Chromium: apt-get install {}",
            BROWSERS[0]
        ),
    }
    for (name, program) in programs {
        eprintln!("{name}:");
        let said = program
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("SPRITES_TEST_URL", server.url())
            .env("SPRITES_TEST_TOKEN", &token)
            .env("SPRITES_TEST_OTHER_TOKEN", &other)
            .env("SPRITES_TEST_RECORDS", &records)
            .tee()?;
        match tally_of(&said.stdout) {
            Some(tally) => total.add(tally),
            None => {
                return Err(Failure::Check(format!(
                    "{name}: the suite ended with {} and no count",
                    said.status
                )));
            }
        }
    }
    compare_matrix(sdks, &records)?;
    Ok(total)
}

/// Compares the book's page of the SDKs' methods with what the suites called just now.
fn compare_matrix(sdks: &Sdks, records: &Path) -> Outcome {
    Program::new(sdks.python())
        .args([workspace().join("conformance/matrix.py")])
        .args([sdks.node_modules().as_path(), records])
        .args(["--check"])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .run()
}
