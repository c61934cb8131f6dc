//! Small values in query strings and bodies: Go-style durations, and signals.

use std::time::Duration;

/// A text that is not the value it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("{0:?} is not a duration; write it like 10s, 1m30s or 250ms")]
    Duration(String),
    /// Not a signal.
    #[error("{0:?} is not a signal; write it like TERM, SIGTERM or 15")]
    Signal(String),
}

fn echo(text: &str) -> String {
    // What is echoed is bounded: the text may come from a hostile client.
    text.chars().take(80).collect()
}

/// Longest duration that is taken; longer ones are cut to it. A hundred years do not overflow anything.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Reads a duration as Go writes it (`5s`, `1.5s`, `1h2m3s`, `0`), or a bare number of seconds.
///
/// # Errors
/// The text is neither.
///
/// Source: behaviour reference §1.1 (durations in query strings; integer seconds).
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(echo(text));
    if text.is_empty() {
        return Err(wrong());
    }
    let mut seconds = 0.0_f64;
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        seconds = text.parse().map_err(|_| wrong())?;
    } else {
        let mut rest = text;
        while !rest.is_empty() {
            let (number, tail) = split_at(rest, |c| !c.is_ascii_digit() && c != '.');
            let number: f64 = number.parse().map_err(|_| wrong())?;
            let (unit, tail) = split_at(tail, |c| c.is_ascii_digit() || c == '.');
            let factor = match unit {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return Err(wrong()),
            };
            seconds += number * factor;
            rest = tail;
        }
    }
    Ok(Duration::try_from_secs_f64(seconds)
        .unwrap_or(MAX_DURATION)
        .min(MAX_DURATION))
}

fn split_at(text: &str, at: fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

/// Linux signals by name, without `SIG`. Source: signal(7), x86-64 and arm64.
const SIGNALS: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// A Linux signal, 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The polite request to end.
    pub const TERM: Self = Self(15);

    /// The signal with this number, if there is one.
    #[must_use]
    pub fn from_number(number: i64) -> Option<Self> {
        i32::try_from(number)
            .ok()
            .filter(|n| (1..=64).contains(n))
            .map(Self)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name with `SIG`; a real-time signal is `SIG` and its number.
    #[must_use]
    pub fn name(self) -> String {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => format!("SIG{name}"),
            None => format!("SIG{}", self.0),
        }
    }
}

impl std::str::FromStr for Signal {
    type Err = UnitError;

    /// Reads `TERM`, `SIGTERM`, `sigterm` or `15`. Source: behaviour reference §1.4.3.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = || UnitError::Signal(echo(text));
        if let Ok(number) = text.parse::<i64>() {
            return Self::from_number(number).ok_or_else(wrong);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        SIGNALS
            .iter()
            .find(|(name, _)| *name == bare)
            .map(|(_, number)| Self(*number))
            .ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.1: the durations that SDKs send.
    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, ms) in [
            ("5s", 5000),
            ("10s", 10_000),
            ("1.5s", 1500),
            ("2.0s", 2000),
            ("0s", 0),
            ("0", 0),
            ("30", 30_000),
            ("250ms", 250),
            ("1h2m3s", 3_723_000),
            ("1m30.5s", 90_500),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "", "s", "-5s", "5 s", "5x", "1..5s", ".", "1s5", "five", "NaN", "inf", "1e9s",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(
            parse_duration(&format!("{}h", "9".repeat(300))),
            Ok(MAX_DURATION)
        );
    }

    /// Behaviour reference §1.4.3: names without `SIG`, with it, and numbers.
    #[test]
    fn signals_have_names_and_numbers() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!(Signal::TERM.name(), "SIGTERM");
        assert_eq!(
            "64".parse::<Signal>().map(Signal::name),
            Ok("SIG64".to_owned())
        );
        for text in ["", "0", "65", "-15", "SIG", "NOPE", "15.0"] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_readers(text in ".{0,40}") {
            let _ = parse_duration(&text);
            let _ = text.parse::<Signal>();
        }
    }
}
