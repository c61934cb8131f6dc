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
