//! The official SDKs, unmodified, against a live server.
//!
//! Everything they need goes into one Python virtual environment below `target/`: the Python SDK, Node (which
//! the Python package index carries as a wheel, so that no `npm` of the distribution is needed) and, through
//! Node's own npm, the JavaScript SDK.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::{target_directory, workspace};
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
            .args(["-m", "venv", "--clear"])
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
        let mark = sdks.directory.join("installed");
        std::fs::write(&mark, sdks.wanted()?)
            .map_err(Failure::io(format!("write {}", mark.display())))?;
        Ok(sdks)
    }

    /// The lock files' text: when it changes, everything is installed anew.
    fn wanted(&self) -> Outcome<String> {
        [
            "conformance/py/requirements.txt",
            "conformance/js/package-lock.json",
        ]
        .map(|name| {
            std::fs::read_to_string(workspace().join(name))
                .map_err(Failure::io(format!("read {name}")))
        })
        .into_iter()
        .collect()
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

/// Runs both suites.
///
/// # Errors
/// A suite could not be run to its end; a test that fails is counted.
pub fn run(server: &Server, sdks: &Sdks) -> Outcome<Tally> {
    let suite = workspace().join("conformance");
    // Node looks for packages beside the file it runs: seen through this link, they are beside it.
    let beside = sdks.node_modules().with_file_name("suite");
    if std::fs::symlink_metadata(&beside).is_err() {
        std::os::unix::fs::symlink(suite.join("js"), &beside)
            .map_err(Failure::io("link the JavaScript suite beside its SDK"))?;
    }
    let token = server.token("conformance")?;
    let other = server.token("conformance-other")?;
    let mut total = Tally::default();
    let records = sdks.directory.join("records");
    std::fs::create_dir_all(&records)
        .map_err(Failure::io(format!("make {}", records.display())))?;
    let programs = [
        (
            "JavaScript",
            Program::new(sdks.node())
                .args(["--preserve-symlinks", "--preserve-symlinks-main"])
                .args([beside.join("run.mjs")]),
        ),
        (
            "Python",
            Program::new(sdks.python()).args([suite.join("py/run.py")]),
        ),
    ];
    for (name, program) in programs {
        eprintln!("official {name} SDK:");
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
                    "the {name} suite ended with {} and no count",
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
