//! Tasks: a sprite's own reasons to stay awake. Source: behaviour reference §1.13.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;
use crate::unit::{UnitError, parse_duration};

/// A task that has not expired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Task {
    /// Its name: lowercase letters, digits and `-`.
    pub name: String,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Stamp,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Stamp,
}

/// `GET …/tasks`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskList {
    /// In the order of their names.
    pub tasks: Vec<Task>,
}

/// `POST …/tasks`, `PUT …/tasks` and `PUT …/tasks/{task}`, whose name is in the path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PutTask {
    /// Its name: lowercase letters, digits and `-`, at most 63.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How long from now it holds the sprite awake, at most an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire: Option<Expire>,
}

/// A time from now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Expire {
    /// In seconds.
    Seconds(f64),
    /// As Go writes it: `1h`, `30m`, `90s`.
    Text(String),
}

impl Expire {
    /// The time, however it was written.
    ///
    /// # Errors
    /// It is negative, or not a duration.
    pub fn duration(&self) -> Result<Duration, UnitError> {
        match self {
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds)
                .map_err(|_| UnitError::Duration(seconds.to_string())),
            Self::Text(text) => parse_duration(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.13: `"1h"` or seconds.
    #[test]
    fn ends_are_written_in_two_ways() {
        for (text, seconds) in [
            (r#"{"expire":"1h"}"#, 3600),
            (r#"{"expire":"30m"}"#, 1800),
            (r#"{"expire":90}"#, 90),
            (r#"{"expire":"90"}"#, 90),
        ] {
            let put: PutTask = serde_json::from_str(text).expect(text);
            let expire = put.expire.expect(text);
            assert_eq!(
                expire.duration(),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in [
            r#"{"expire":-1}"#,
            r#"{"expire":"soon"}"#,
            r#"{"expire":1e300}"#,
        ] {
            let put: PutTask = serde_json::from_str(text).expect(text);
            assert!(put.expire.expect(text).duration().is_err(), "{text}");
        }
    }
}
