//! What the server tells about sprites. Read leniently: unknown keys are kept, missing ones are empty.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// What a sprite is doing.
///
/// Source: behaviour reference §1.3, §4.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Status {
    /// A machine runs.
    Running,
    /// Asleep, its memory kept.
    Warm,
    /// Asleep, only its disk kept.
    Cold,
    /// A status that this client does not know, in the server's words; empty if the server told none.
    Other(String),
}

impl Default for Status {
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        match text.as_str() {
            "running" => Self::Running,
            "warm" => Self::Warm,
            "cold" => Self::Cold,
            _ => Self::Other(text),
        }
    }
}

impl From<Status> for String {
    fn from(status: Status) -> Self {
        status.to_string()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Warm => "warm",
            Self::Cold => "cold",
            Self::Other(text) => text,
        })
    }
}

/// A point in time as the server wrote it (RFC 3339).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub String);

impl Timestamp {
    /// The point in time; `None` if the text is not RFC 3339.
    #[must_use]
    pub fn time(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(&self.0, &Rfc3339).ok()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who may open a sprite's URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UrlSettings {
    /// `sprite`: with a token of the organisation; `public`: everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// With `sprite`: `admins` or `org_users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_access: Option<String>,
}

/// A sprite as the server describes it. Entries of a list may hold less than a sprite asked for by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpriteInfo {
    /// Its name, unique in the organisation.
    pub name: String,
    /// Its id (`sprite-<uuid>`): a sprite made later under the same name has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What it is doing.
    #[serde(default)]
    pub status: Status,
    /// Its own URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Who may open the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_settings: Option<UrlSettings>,
    /// The organisation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: Vec<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When its settings last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Timestamp>,
    /// When it last ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_running_at: Option<Timestamp>,
    /// What stands between it and its host: `hardware` or `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<String>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// For keys that some servers send as `null`.
pub(crate) fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// How many sprites of the organisation are in which status, and the limits on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The organisation.
    #[serde(default)]
    pub name: Option<String>,
    /// Sprites that run.
    #[serde(default)]
    pub running: Option<u64>,
    /// Sprites asleep with their memory.
    #[serde(default)]
    pub warm: Option<u64>,
    /// Sprites asleep without it.
    #[serde(default)]
    pub cold: Option<u64>,
    /// Most sprites that may run at once; `None`: no limit is known.
    #[serde(default)]
    pub running_limit: Option<u64>,
    /// Most sprites that may be warm at once.
    #[serde(default)]
    pub warm_limit: Option<u64>,
}

/// An organisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Organization {
    /// Its name in paths and tokens.
    pub slug: String,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What came of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// The version that the sprite has now, or has when it starts next.
    pub version: String,
    /// Whether it had to be restarted for that.
    pub restarted: bool,
}

/// What came of a look at a sprite's health.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// `healthy`, `hibernated`, `unhealthy` or `error`.
    pub status: String,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Health {
    /// Whether nothing is wrong: the sprite is well or asleep.
    #[must_use]
    pub fn is_well(&self) -> bool {
        matches!(self.status.as_str(), "healthy" | "hibernated")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sprite_is_read_from_the_least_and_keeps_the_most() {
        let least: SpriteInfo =
            serde_json::from_str(r#"{"name":"a","labels":null}"#).expect("a sprite");
        assert_eq!(
            (least.status, least.labels.len()),
            (Status::Other(String::new()), 0)
        );
        let text = r#"{"name":"a","status":"napping","config":{"cpus":2},"created_at":"2026-01-13T10:30:00.123456Z"}"#;
        let most: SpriteInfo = serde_json::from_str(text).expect("a sprite");
        assert_eq!(most.status, Status::Other("napping".into()));
        let back = serde_json::to_value(&most).expect("JSON");
        assert_eq!(
            (&back["config"]["cpus"], &back["status"]),
            (&2.into(), &"napping".into())
        );
        assert!(most.created_at.expect("a time").time().is_some());
    }
}
