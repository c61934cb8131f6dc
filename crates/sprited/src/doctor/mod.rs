//! `sprited doctor`: what works on this host with these settings, and what to do about what does not.
//!
//! It looks, and leaves things as they are. To see whether packets of machines pass, it sets up a network of its
//! own for a moment, beside that of any server. It works without root, without a data directory and beside a
//! running server; what cannot be looked at is told as such.

mod check;
mod data;
mod limits;
mod machines;
mod network;
mod storage;

use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use self::check::{Check, Report, Verdict};
pub(crate) use self::network::names;
use crate::cli::DoctorFlags;
use crate::config::Config;
use crate::failure::Failure;

/// Looks at everything and tells it. The status says whether something is a problem.
pub(crate) async fn doctor(flags: Box<DoctorFlags>) -> Result<ExitCode, Failure> {
    let DoctorFlags { serve, json } = *flags;
    let config = Config::load(serve)?;
    let report = Report::new(look(&config).await);
    let text = if json {
        let json = serde_json::to_string_pretty(&report)
            .map_err(|error| Failure::new("write the report", &error))?;
        format!("{json}\n")
    } else {
        report.lines()
    };
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads no further has seen enough.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            return Err(Failure::new("write the report", &error));
        }
        Ok(()) | Err(_) => {}
    }
    Ok(match report.verdict() {
        Verdict::Ok | Verdict::Warning => ExitCode::SUCCESS,
        Verdict::Problem => ExitCode::FAILURE,
    })
}

async fn look(config: &Config) -> Vec<Check> {
    let user = if rustix::process::geteuid().is_root() {
        Check::ok("user", "root")
    } else {
        Check::warning(
            "user",
            "not root, who alone can make machines and see all of this",
            "type: sudo sprited doctor",
        )
    };
    let (data, directory) = data::look(&config.data_dir);
    let mut checks = vec![user, directory];
    let (driver, machines) = machines::look(config, &data).await;
    checks.extend(machines);
    checks.extend(storage::look(config));
    checks.extend(network::addresses(config, &data));
    checks.push(names(&config.url_domain).await);
    checks.extend(network::way_out(driver).await);
    checks.extend(limits::look());
    checks
}
