//! Points in time as the API writes them.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

/// A point in time, written as RFC 3339 in UTC with microseconds: `2026-01-13T10:30:00.123456Z`.
///
/// An absent time is `null` or left out, never an empty text: the Go SDK fails on one.
/// Source: behaviour reference §1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(pub OffsetDateTime);

impl Stamp {
    /// The point in time `unix_ms` milliseconds after 1970; the nearest one that can be written if there is
    /// none such.
    #[must_use]
    pub fn from_unix_ms(unix_ms: i64) -> Self {
        Self::from_unix_nanos(i128::from(unix_ms) * 1_000_000)
    }

    /// The point in time `nanos` nanoseconds after 1970; 1970 if there is none such.
    #[must_use]
    pub fn from_unix_nanos(nanos: i128) -> Self {
        Self(OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FORMAT: &[time::format_description::BorrowedFormatItem<'_>] = format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
        );
        let text = self
            .0
            .to_offset(time::UtcOffset::UTC)
            .format(FORMAT)
            .map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl From<OffsetDateTime> for Stamp {
    fn from(at: OffsetDateTime) -> Self {
        Self(at)
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> String {
        stamp.to_string()
    }
}

impl TryFrom<String> for Stamp {
    type Error = time::error::Parse;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        OffsetDateTime::parse(&text, &Rfc3339).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_have_microseconds_and_z() {
        let stamp = Stamp::from_unix_ms(1_767_609_000_123);
        assert_eq!(stamp.to_string(), "2026-01-05T10:30:00.123000Z");
        let json = serde_json::to_string(&stamp).expect("a text");
        assert_eq!(
            serde_json::from_str::<Stamp>(&json).expect("its own text"),
            stamp
        );
        assert_eq!(
            Stamp::from_unix_ms(i64::MAX).to_string(),
            "1970-01-01T00:00:00.000000Z"
        );
    }
}
