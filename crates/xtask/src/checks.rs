//! Files that are generated from the code, and must not lag behind it.

use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::host::workspace;
use crate::program::Program;
use crate::server::Build;

/// The page that `sprite generate-docs` writes.
const COMMANDS: &str = "docs/src/cli/commands.md";

/// The contract, as the server gives it at `/openapi.json`.
const OPENAPI: &str = "openapi/sprited.json";

/// The page that is made from the contract.
const REST: &str = "docs/src/api/rest.md";

/// What becomes of files that lag behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// It is a failure.
    Refused,
    /// They are written anew.
    Mended,
}

/// Writes the contract anew.
///
/// # Errors
/// The server does not compile.
pub fn write_contract() -> Outcome {
    Program::cargo()
        .args([
            "run",
            "--quiet",
            "--locked",
            "--package",
            "sprite-server",
            "--example",
            "openapi",
        ])
        .dir(workspace())
        .run()
}

/// Compares the generated pages of the book with what generates them. The contract itself is compared by a
/// test of `sprite-server`.
///
/// # Errors
/// A page differs from what would be generated now, or the client cannot be asked.
pub fn generated(build: Build, lag: Lag) -> Outcome {
    let commands = Program::new(build.directory().join("sprite"))
        .args(["generate-docs"])
        .read()?;
    settle(Path::new(COMMANDS), &commands, lag)?;
    let contract = std::fs::read_to_string(workspace().join(OPENAPI))
        .map_err(Failure::io(format!("read {OPENAPI}")))?;
    settle(Path::new(REST), &crate::rest::page(&contract)?, lag)
}

fn settle(page: &Path, wanted: &str, lag: Lag) -> Outcome {
    let path = workspace().join(page);
    if std::fs::read_to_string(&path).is_ok_and(|text| text == wanted) {
        return Ok(());
    }
    match lag {
        Lag::Refused => Err(Failure::Check(format!(
            "{} is older than what generates it: cargo xtask generate",
            page.display()
        ))),
        Lag::Mended => {
            eprintln!("writing {}", page.display());
            std::fs::write(&path, wanted).map_err(Failure::io(format!("write {}", path.display())))
        }
    }
}
