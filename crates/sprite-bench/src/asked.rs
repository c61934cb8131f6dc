//! The guest that does what it is asked, see [`sprite_bench::talk`].

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use sprite_bench::talk::{Ask, DONE};

use crate::failure::{Failure, Outcome, io_failure};
use crate::machine::Door;

/// A connection with it.
pub(crate) struct Asked(BufReader<UnixStream>);

impl Asked {
    /// Waits until it comes.
    pub(crate) fn meet(door: &Door) -> Outcome<Self> {
        Ok(Self(BufReader::new(door.accept()?)))
    }

    /// Returns when it has done so.
    pub(crate) fn ask(&mut self, ask: Ask) -> Outcome {
        let step = || io_failure(format!("ask the guest to {ask}"));
        let line = format!("{ask}\n");
        let stream = self.0.get_mut();
        stream.write_all(line.as_bytes()).map_err(step())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer).map_err(step())?;
        match answer.trim_end() {
            DONE => Ok(()),
            other => Err(Failure::Check(format!(
                "asked to {ask} the guest says {other:?}"
            ))),
        }
    }
}
