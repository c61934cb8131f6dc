//! The data directory, and whether a server uses it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::check::{Check, told};
use crate::data_dir::DataDir;

/// What can be known of a data directory.
pub(super) enum Data {
    /// It is not there yet.
    Absent,
    /// Only root may look into it.
    Hidden,
    /// It is there.
    There {
        data: DataDir,
        /// Whether a server uses it now.
        serving: bool,
    },
}

impl Data {
    /// Whether a server uses it now.
    pub(super) fn serving(&self) -> bool {
        match self {
            Self::There { serving, .. } => *serving,
            Self::Absent | Self::Hidden => false,
        }
    }
}

/// Looks at it; makes nothing, not even what a data directory that was only begun lacks.
pub(super) fn look(path: &Path) -> (Data, Check) {
    const NAME: &str = "data directory";
    let shown = path.display();
    match fs::metadata(path.join("instance")) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let found = format!("{shown} is not there yet; the first start makes it");
            return (Data::Absent, Check::ok(NAME, found));
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            return (Data::Hidden, Check::unseen(NAME));
        }
        Err(error) => {
            let found = format!("{shown}: {}", told(&error));
            let remedy = "choose a directory with --data-dir";
            return (Data::Hidden, Check::problem(NAME, found, remedy));
        }
    }
    let opened = DataDir::existing(path).and_then(|data| {
        let serving = data.serving()?;
        Ok((data, serving))
    });
    match opened {
        Ok((data, serving)) => {
            let used = if serving {
                "a server uses it now"
            } else {
                "no server uses it now"
            };
            let found = format!("{shown} (instance {}), {used}", data.instance);
            (Data::There { data, serving }, Check::ok(NAME, found))
        }
        Err(failure) => {
            let found = failure.to_string().trim_end().to_owned();
            let remedy = "look at the file; a backup of the directory has it";
            (Data::Hidden, Check::problem(NAME, found, remedy))
        }
    }
}
