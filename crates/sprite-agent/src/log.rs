//! What the agent tells the host's operator: lines on stderr, which is the machine's log.

use std::fmt::Display;
use std::io::{self, Write};

/// Writes a line. The log takes a bounded number of bytes that nobody has read; what it does not take is lost.
pub(crate) fn say(what: impl Display) {
    // Nobody is left who could be told of this.
    let _ = writeln!(io::stderr(), "sprite-agent: {what}");
}
