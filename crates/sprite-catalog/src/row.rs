//! Columns to values. What this program never writes is an error, not a panic: a file can be edited.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use time::OffsetDateTime;

use crate::error::{CatalogError, Step};

pub(crate) fn unreadable(column: &'static str, text: &str) -> CatalogError {
    CatalogError::Row {
        column,
        text: text.chars().take(80).collect(),
    }
}

/// Microseconds since 1970 in UTC.
pub(crate) fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1000)
        .expect("years up to 9999 fit in 64 bits of microseconds")
}

pub(crate) fn text(row: &SqliteRow, column: &'static str) -> Result<String, CatalogError> {
    row.try_get(column).step("read a row")
}

pub(crate) fn optional_text(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<String>, CatalogError> {
    row.try_get(column).step("read a row")
}

pub(crate) fn parsed<T: FromStr>(row: &SqliteRow, column: &'static str) -> Result<T, CatalogError> {
    let text = text(row, column)?;
    text.parse().map_err(|_| unreadable(column, &text))
}

pub(crate) fn optional_parsed<T: FromStr>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, CatalogError> {
    match optional_text(row, column)? {
        Some(text) => text
            .parse()
            .map(Some)
            .map_err(|_| unreadable(column, &text)),
        None => Ok(None),
    }
}

pub(crate) fn json<T: DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, CatalogError> {
    let text = text(row, column)?;
    serde_json::from_str(&text).map_err(|_| unreadable(column, &text))
}

pub(crate) fn number<T: TryFrom<i64>>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, CatalogError> {
    let number: i64 = row.try_get(column).step("read a row")?;
    T::try_from(number).map_err(|_| unreadable(column, &number.to_string()))
}

pub(crate) fn optional_number<T: TryFrom<i64>>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, CatalogError> {
    let number: Option<i64> = row.try_get(column).step("read a row")?;
    number
        .map(|number| T::try_from(number).map_err(|_| unreadable(column, &number.to_string())))
        .transpose()
}

fn moment(
    column: &'static str,
    micros: impl Into<i128> + Display + Copy,
) -> Result<OffsetDateTime, CatalogError> {
    OffsetDateTime::from_unix_timestamp_nanos(micros.into() * 1000)
        .map_err(|_| unreadable(column, &micros.to_string()))
}

pub(crate) fn time(row: &SqliteRow, column: &'static str) -> Result<OffsetDateTime, CatalogError> {
    let micros: i64 = row.try_get(column).step("read a row")?;
    moment(column, micros)
}

pub(crate) fn optional_time(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<OffsetDateTime>, CatalogError> {
    let micros: Option<i64> = row.try_get(column).step("read a row")?;
    micros.map(|micros| moment(column, micros)).transpose()
}

/// A counter as the catalog stores it.
pub(crate) fn stored(counter: u64) -> i64 {
    i64::try_from(counter).expect("a counter that grows by one never passes 2^63")
}
