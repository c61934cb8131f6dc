//! One thing that was looked at, and how it is told.

use std::error::Error;
use std::fmt::Write as _;

use serde::Serialize;

/// How it stands with something. The worst comes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Ok,
    /// Sprites run, and something is weaker, slower or nearer to its end than it could be; or it was not looked at.
    Warning,
    /// Sprites do not run, or not with these settings.
    Problem,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    /// What was looked at: a name for people and programs, that stays.
    name: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; always there when it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Check {
    /// What was found and what to do, if it is not as it should be.
    pub(crate) fn warns(&self) -> Option<(&str, &str)> {
        let remedy = self.remedy.as_deref()?;
        match self.verdict {
            Verdict::Ok => None,
            Verdict::Warning | Verdict::Problem => Some((&self.found, remedy)),
        }
    }

    pub(crate) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    pub(crate) fn warning(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    pub(crate) fn problem(
        name: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name,
            verdict: Verdict::Problem,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// What only root can see was not looked at.
    pub(crate) fn unseen(name: &'static str) -> Self {
        Self::warning(
            name,
            "not looked at: only root can",
            "type: sudo sprited doctor",
        )
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    version: &'static str,
    verdict: Verdict,
    checks: Vec<Check>,
}

impl Report {
    pub(crate) fn new(checks: Vec<Check>) -> Self {
        let worst = checks.iter().map(|check| check.verdict).max();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            verdict: worst.unwrap_or(Verdict::Ok),
            checks,
        }
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Lines for people: what was found, and below it what to do.
    pub(crate) fn lines(&self) -> String {
        let mut text = String::new();
        let width = self.checks.iter().map(|check| check.name.len()).max();
        let width = width.unwrap_or(0);
        for check in &self.checks {
            let verdict = match check.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "warning",
                Verdict::Problem => "PROBLEM",
            };
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{verdict:<8} {:<width$}  {}", check.name, check.found);
            if let Some(remedy) = &check.remedy {
                let _ = writeln!(text, "{:<8} {:<width$}  → {remedy}", "", "");
            }
        }
        text
    }
}

/// An error with all its causes in one line.
pub(crate) fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a text cannot fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_the_whole() {
        let ok = || Check::ok("a", "fine");
        let warning = || Check::warning("b", "so so", "do this");
        let problem = || Check::problem("c", "broken", "do that");
        for (checks, verdict) in [
            (vec![], Verdict::Ok),
            (vec![ok()], Verdict::Ok),
            (vec![warning(), ok()], Verdict::Warning),
            (vec![ok(), problem(), warning()], Verdict::Problem),
        ] {
            assert_eq!(Report::new(checks).verdict(), verdict);
        }
    }

    #[test]
    fn people_read_what_to_do_below_what_was_found() {
        let report = Report::new(vec![
            Check::ok("kvm", "usable"),
            Check::problem("tools", "missing", "install"),
        ]);
        assert_eq!(
            report.lines(),
            "ok       kvm    usable\nPROBLEM  tools  missing\n                → install\n"
        );
    }
}
