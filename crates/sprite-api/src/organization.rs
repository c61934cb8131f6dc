//! Organisations and their tokens. Source: behaviour reference §1.1, §1.3.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /v1/organization`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrganizationAnswer {
    /// The organisation of the token that asks.
    pub organization: Organization,
}

/// An organisation and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Organization {
    /// Its short name.
    pub slug: String,
    /// The id in its sprites' host names and in its tokens.
    pub id: String,
    /// Always true: a server of sprites has no organisations without them.
    pub sprites_enabled: bool,
    /// Sprites that run.
    pub active_sprites: u64,
    /// All sprites.
    pub sprites: u64,
    /// How many it may have; `null`: no limit.
    pub max_sprites: Option<u64>,
    /// How many may run at once; `null`: no limit.
    pub active_sprite_limit: Option<u64>,
}

/// `POST /v1/organizations/{slug}/tokens`; the body is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CreateToken {
    /// What the token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// A token that was just made: the only time that its secret is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// `org-slug/org-id/token-id/secret`.
    pub token: String,
}
