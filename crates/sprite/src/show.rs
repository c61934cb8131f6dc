//! What is shown: data on standard output, the rest on standard error.

use std::env;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;
use sprite_client::{Status, Timestamp};
use time::OffsetDateTime;

use crate::failure::Failure;

/// Writes to standard output.
///
/// A reader that went away (`sprite list | head -1`) is no failure: the process ends as if by SIGPIPE.
pub(crate) fn data(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(141),
        Err(error) => Err(Failure::caused("cannot write standard output", &error)),
    }
}

/// Writes a line to standard output.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    data(&format!("{text}\n"))
}

/// Writes JSON to standard output, in a form for people too.
pub(crate) fn json(value: &Value) -> Result<(), Failure> {
    line(&format!("{value:#}"))
}

/// Tells people something on standard error.
pub(crate) fn note(text: &str) {
    // Nobody is there to be told that nobody is there.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Text of the server for a terminal: without the characters that could drive it.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// Whether standard output may be coloured.
fn colours() -> bool {
    // Source: https://no-color.org: any value but the empty one turns colours off.
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !refused && !dumb
}

/// A table with a head, its columns as wide as they need to be.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows
            .push(cells.iter().map(|cell| plain(cell)).collect());
    }

    /// The table as text. Only the head and the words of a status are coloured.
    pub(crate) fn text(&self) -> String {
        let colours = colours();
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows
                .iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let padding = " ".repeat(width - cell.chars().count() + 2);
                line.push_str(&if colours {
                    coloured(cell, index == 0)
                } else {
                    cell.clone()
                });
                line.push_str(&padding);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn coloured(cell: &str, head: bool) -> String {
    let colour = match cell {
        _ if head => "1",
        "running" => "32",
        "warm" => "33",
        "cold" => "36",
        _ => return cell.to_owned(),
    };
    format!("\u{1b}[{colour}m{cell}\u{1b}[0m")
}

/// A status for a cell.
pub(crate) fn status(status: &Status) -> String {
    let text = status.to_string();
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// How long ago something was: `5 s`, `3 min`, `2 h`, `8 d`.
pub(crate) fn age(timestamp: Option<&Timestamp>) -> String {
    let Some(time) = timestamp.and_then(Timestamp::time) else {
        return "-".to_owned();
    };
    let seconds = (OffsetDateTime::now_utc() - time).whole_seconds().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "STATUS"]);
        table.row(["a-long-name".into(), "cold".into()]);
        table.row(["b\u{1b}[2J".into(), "running".into()]);
        assert_eq!(
            table.text(),
            "NAME         STATUS\na-long-name  cold\nb\u{fffd}[2J        running\n"
        );
    }

    #[test]
    fn an_unknown_age_is_a_dash() {
        assert_eq!(age(None), "-");
        assert_eq!(age(Some(&Timestamp("soon".into()))), "-");
        assert_eq!(age(Some(&Timestamp("2999-01-01T00:00:00Z".into()))), "0 s");
    }
}
