//! What a sprite's own API says, on the socket inside it. Source: behaviour reference §1.13.

use serde::{Deserialize, Serialize};
use sprite_types::SpriteId;
use utoipa::ToSchema;

/// `GET /info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// The version of the sprite environment.
    pub version: String,
    /// The sprite's name.
    pub sprite_name: String,
    /// The sprite's own URL.
    pub sprite_url: String,
    /// The sprite's id.
    #[schema(value_type = String)]
    pub sprite_id: SpriteId,
    /// The name of its organisation.
    pub org: String,
}

/// `POST /v1/browser`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenInBrowser {
    /// What is to be opened: `http` or `https`, printable ASCII, at most 8,192 characters.
    #[schema(required, nullable = false)]
    pub url: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UrlPassedOn {
    /// `sent`: somebody is attached and is asked. Whether they open it is theirs.
    pub status: String,
}

/// `POST /v1/checkpoints/{id}/restore`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoreBegun {
    /// For a person.
    pub message: String,
}

/// `GET /v1/orgs`: the one organisation whose API the sprite may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Orgs {
    /// One.
    pub orgs: Vec<Org>,
}

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Org {
    /// Its slug.
    pub slug: String,
    /// The same again.
    pub name: String,
}
