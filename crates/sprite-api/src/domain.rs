//! Domains of people's own that lead to a sprite.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Stamp;

/// A domain that leads to a sprite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Domain {
    /// The domain, in lower case.
    pub domain: String,
    /// The sprite's URL there.
    pub url: String,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Stamp,
}

/// `GET …/domains`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DomainList {
    /// In the order of their names.
    pub domains: Vec<Domain>,
}
