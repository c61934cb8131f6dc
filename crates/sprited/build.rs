//! Builds the programs of machines, agent and monitor, and hands their bytes to the program, so that `sprited` is
//! one file.
//!
//! The agent runs inside images of any kind and the monitor in an empty jail, so both are linked statically; that
//! flag would break the macros of the other crates, so it is a build of its own, with a target directory of its own
//! (the outer one is locked).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "agent";

/// Packages, whose programs have their name, and what tells this program where they are.
const PROGRAMS: [(&str, &str); 2] = [
    ("sprite-agent", "SPRITE_AGENT_PROGRAM"),
    ("sprite-vmm", "SPRITE_VMM_PROGRAM"),
];

/// What they are made of.
const SOURCES: [&str; 6] = [
    "crates/sprite-agent",
    "crates/sprite-agent-api",
    "crates/sprite-archive",
    "crates/sprite-types",
    "crates/sprite-vmm",
    "Cargo.lock",
];

fn main() {
    // Asked when the script runs, not when it was compiled: another checkout may share the target directory.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let workspace = Path::new(&manifest).join("../..");
    for path in SOURCES {
        let path = workspace.join(path);
        // Tests change nothing of a program.
        let parts = if path.is_dir() {
            vec![path.join("src"), path.join("Cargo.toml")]
        } else {
            vec![path]
        };
        for part in parts {
            println!("cargo:rerun-if-changed={}", part.display());
        }
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // target/<profile>/build/<crate>/out: shared by all profiles of the outer build.
    let target_dir = out.ancestors().nth(4).unwrap_or(&out).join("agent");
    build(&workspace, &target_dir);
    for (program, variable) in PROGRAMS {
        let path = target_dir.join(TARGET).join(PROFILE).join(program);
        println!("cargo:rustc-env={variable}={}", path.display());
    }
}

fn build(workspace: &Path, target_dir: &Path) {
    let mut build = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.current_dir(workspace).args(["build", "--quiet"]);
    for (program, _) in PROGRAMS {
        build.args(["--package", program, "--bin", program]);
    }
    build
        .args([
            "--locked",
            "--profile",
            PROFILE,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
    // What the outer cargo tells this script is not for the inner one.
    for (name, _) in env::vars_os() {
        let own = name.to_string_lossy();
        if own.starts_with("CARGO_CFG_")
            || own.starts_with("CARGO_FEATURE_")
            || own.starts_with("DEP_")
        {
            build.env_remove(&name);
        }
    }
    let status = build.status().expect("cargo can be started");
    assert!(status.success(), "the programs of machines do not build");
}
