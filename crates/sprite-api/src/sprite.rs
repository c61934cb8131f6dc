//! Sprites: create, get, list, update, watch. Source: behaviour reference §1.3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sprite_types::{DriverKind, Isolation, Resources, SpriteId, SpriteStatus};
use utoipa::ToSchema;

use crate::Stamp;

/// `POST /v1/sprites`. Only `name` is required; unknown keys are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateSprite {
    /// 1 to 56 characters of `a-z0-9-`, unique in the organisation.
    #[schema(required, nullable = false)]
    pub name: Option<String>,
    /// Who may use the sprite's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_settings: Option<UrlSettings>,
    /// At most 32 labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// How large its machine may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
    /// Variables for every session of the sprite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<BTreeMap<String, String>>,
    /// Make it a fork of another sprite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<ForkOf>,
}

/// Of what a new sprite is a fork. It begins with that disk, those variables, services and policies, and the same sizes
/// where nothing else is asked for; the size of its disk is always the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForkOf {
    /// Name of a sprite of the same organisation.
    #[schema(required, nullable = false)]
    pub sprite: Option<String>,
    /// Which checkpoint of it; its disk as it is now if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
    /// Whether what runs in it is forked too: not possible yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// `PUT /v1/sprites/{name}`. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpdateSprite {
    /// Who may use the sprite's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_settings: Option<UrlSettings>,
    /// All labels that the sprite is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Remove all labels (before `labels` are set).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_labels: Option<bool>,
    /// Of these, `idle_timeout`, `connections` and `api_access` can be changed; the others are ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Config>,
}

/// Who may use a sprite's URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UrlSettings {
    /// `sprite` (with a token, the default) or `public`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// With `sprite`: `admins` (the default) or `org_users`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_access: Option<String>,
}

/// How large a machine may be, and what else is set. All sizes are limits, none a reservation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Config {
    /// Memory in MiB, 128 to 1,048,576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ram_mb: Option<u32>,
    /// Whole CPUs, 1 to 64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Size of the disk in GB, 1 to 4,096; only what is written takes space.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_gb: Option<u32>,
    /// Read and ignored: there is one place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// How long it runs on that nobody uses: a duration such as `30s`, at least one second; `never`; or `server`, as
    /// the server says, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<String>,
    /// Which connections to its ports keep it awake: `open`, every one that is open, which is the default; or
    /// `traffic`, only bytes that go over one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<String>,
    /// Whether programs in it may make sprites of their own, through its own API; false if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_access: Option<bool>,
}

impl From<Resources> for Config {
    fn from(resources: Resources) -> Self {
        Self {
            ram_mb: Some(resources.memory_mib),
            cpus: Some(resources.cpus),
            storage_gb: Some(resources.storage_gb),
            region: None,
            idle_timeout: None,
            connections: None,
            api_access: None,
        }
    }
}

/// A sprite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sprite {
    /// `sprite-<uuid>`; a name that is used again gets a new id.
    #[schema(value_type = String, example = "sprite-4d486550-1953-4dfd-a452-cdabfd4a6663")]
    pub id: SpriteId,
    /// Its name.
    pub name: String,
    /// The organisation's slug.
    pub organization: String,
    /// The organisation's slug again, as other clients call it.
    pub org_slug: String,
    /// The sprite's own URL.
    pub url: String,
    /// Who may use it.
    pub url_settings: UrlSettings,
    /// What it is doing.
    #[schema(value_type = String, example = "running")]
    pub status: SpriteStatus,
    /// Its labels.
    pub labels: Vec<String>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Stamp,
    /// When it or its status last changed.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Stamp,
    /// When it last began to run.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_running_at: Option<Stamp>,
    /// When it last fell asleep with its memory kept.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_warming_at: Option<Stamp>,
    /// Version of the sprite environment.
    pub version: String,
    /// The same, as other clients call it.
    pub environment_version: String,
    /// How large its machine may be.
    pub config: Config,
    /// Variables for every session.
    pub environment: BTreeMap<String, String>,
    /// What keeps it apart from its host: `hardware` (a virtual machine) or `kernel`.
    #[schema(value_type = String, example = "kernel")]
    pub isolation: Isolation,
    /// What makes its machines: `microvm` or `container`.
    #[schema(value_type = String, example = "container")]
    pub driver: DriverKind,
    /// The sprite that made it, if one did; that one may be gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub made_by: Option<SpriteId>,
    /// Why it does not run, if its last start failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How many sprites of an organisation do what, and how many may.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrgCounts {
    /// The organisation's slug.
    pub name: String,
    /// Sprites that run.
    pub running: u64,
    /// Sprites asleep with their memory kept.
    pub warm: u64,
    /// Sprites asleep.
    pub cold: u64,
    /// How many may run at once; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_limit: Option<u64>,
    /// How many may be warm at once; absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_limit: Option<u64>,
}

/// `GET /v1/sprites`: one page, in order of names.
///
/// The counts are said twice because the SDKs look for them in two places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpriteList {
    /// The sprites of this page.
    pub sprites: Vec<Sprite>,
    /// Whether there are more.
    pub has_more: bool,
    /// What to ask the next page with; `null` on the last one.
    pub next_continuation_token: Option<String>,
    /// Counts of the organisation, not of the page.
    #[serde(flatten)]
    pub counts: OrgCounts,
    /// The same counts again.
    pub org: OrgCounts,
}

/// A continuation token: base64 of JSON; opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContinuationToken {
    /// Name of the last sprite of the page before.
    pub last: String,
}

impl ContinuationToken {
    /// The token as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a struct of one text is always JSON");
        data_encoding::BASE64URL_NOPAD.encode(&json)
    }

    /// Reads a token, padded or not, in either base64 alphabet. `None` if it is none of ours.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let bare: String = text
            .trim_end_matches('=')
            .chars()
            .map(|c| match c {
                '+' => '-',
                '/' => '_',
                other => other,
            })
            .collect();
        let json = data_encoding::BASE64URL_NOPAD
            .decode(bare.as_bytes())
            .ok()?;
        serde_json::from_slice(&json).ok()
    }
}

/// A line of the live list (`GET /v1/sprites` with `Accept: application/x-ndjson`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpriteEvent {
    /// `heartbeat` if nothing changed, `deleted` if the sprite is gone, `reset` before the list is told again;
    /// absent: this is how the sprite is now.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<SpriteEventKind>,
    /// Name of the sprite; absent in a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub id: Option<SpriteId>,
    /// `running`, `warm`, `cold`, or `deleted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Version of the environment that runs; absent if none does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_version: Option<String>,
    /// When it last began to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_running_at: Option<Stamp>,
    /// When it last fell asleep with its memory kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_warming_at: Option<Stamp>,
    /// When this was so.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Stamp,
    /// Counts of the organisation.
    pub org: OrgCounts,
}

/// What a line of the live list is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SpriteEventKind {
    /// Nothing changed for a while.
    Heartbeat,
    /// The sprite is gone.
    Deleted,
    /// Events were missed: forget what was told before, the whole list follows.
    Reset,
}

/// `POST /v1/sprites/{name}/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restarted {
    /// The sprite's name.
    pub sprite_name: String,
    /// The machine that runs it now.
    pub machine_id: String,
    /// For people.
    pub message: String,
}

/// `GET /v1/sprites/{name}/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checked {
    /// The sprite's name.
    pub sprite_name: String,
    /// The sprite.
    #[schema(value_type = String)]
    pub sprite_id: SpriteId,
    /// What was found.
    pub status: CheckStatus,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it was looked at.
    #[schema(value_type = String, format = DateTime)]
    pub checked_at: Stamp,
    /// How long that took, as a Go-style duration (`1.5ms`).
    pub elapsed: String,
}

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// It runs, and its agent answers.
    Healthy,
    /// It is asleep.
    Hibernated,
    /// It should run, and its agent does not answer.
    Unhealthy,
    /// It could not be looked at.
    Error,
}

/// `POST /v1/sprites/{name}/upgrade`; the body is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upgrade {
    /// The wanted version; absent: the newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// The answer to [`Upgrade`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upgraded {
    /// Name of the sprite.
    pub sprite_name: String,
    /// The version that it has now, or has when it starts next.
    pub version: String,
    /// Whether it had to be restarted for that.
    pub restarted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Behaviour reference §1.3: base64 of JSON `{"last":…}`.
    #[test]
    fn continuation_tokens_are_opaque_and_forgiving() {
        let token = ContinuationToken {
            last: "my-sprite".to_owned(),
        };
        assert!(token.encode().starts_with("eyJsYXN0Ijoi"));
        assert_eq!(
            ContinuationToken::decode(&token.encode()),
            Some(token.clone())
        );
        assert_eq!(
            ContinuationToken::decode(&format!("{}==", token.encode())),
            Some(token)
        );
        for wrong in ["", "!", "e30", "eyJsYXN0Ijo1fQ"] {
            assert_eq!(ContinuationToken::decode(wrong), None, "{wrong}");
        }
    }

    /// Behaviour reference §9.1: unknown keys are ignored, absent and `null` are the same.
    #[test]
    fn bodies_ignore_what_they_do_not_know() {
        let body: CreateSprite = serde_json::from_str(
            r#"{"name":"a","env_vars":{"A":"b"},"metadata":1,"runtime":"dev","wait_for_capacity":true,
                "labels":null,"config":{"region":"ord","ram_mb":null,"gpu":1}}"#,
        )
        .expect("unknown keys are fine");
        assert_eq!(body.name.as_deref(), Some("a"));
        assert_eq!(body.labels, None);
    }

    /// Behaviour reference §1.3, §9.2: counts at the top and in `org`.
    #[test]
    fn lists_tell_counts_twice() {
        let counts = OrgCounts {
            name: "acme".to_owned(),
            running: 1,
            ..OrgCounts::default()
        };
        let list = SpriteList {
            sprites: Vec::new(),
            has_more: false,
            next_continuation_token: None,
            counts: counts.clone(),
            org: counts,
        };
        let json = serde_json::to_value(&list).expect("plain data");
        assert_eq!(json["running"], 1);
        assert_eq!(json["org"]["running"], 1);
        assert_eq!(json["name"], "acme");
        assert!(json["next_continuation_token"].is_null());
    }
}
