//! Domains of one's own that lead to a sprite.

use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::client::Call;
use crate::error::Error;
use crate::model::Timestamp;
use crate::sprite::Sprite;
use crate::url::Target;

/// A domain that leads to a sprite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domain {
    /// The domain, in lower case.
    pub domain: String,
    /// The sprite's URL there.
    pub url: String,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Sprite {
    /// The domains that lead to the sprite, in the order of their names. This never wakes it.
    ///
    /// # Errors
    /// When there is no such sprite or the call fails.
    pub async fn domains(&self) -> Result<Vec<Domain>, Error> {
        #[derive(Deserialize)]
        struct Answer {
            domains: Vec<Domain>,
        }
        let call = Call::new(Method::GET, self.target()?.path("/domains"));
        let answer: Answer = self.client().json(&call).await?;
        Ok(answer.domains)
    }

    /// Has a domain lead to the sprite: requests to the server that name it as their host get to the sprite as those
    /// for its own URL do. One that leads to it already is left as it is. This never wakes the sprite.
    ///
    /// ```no_run
    /// # async fn example(sprite: sprite_client::Sprite) -> Result<(), sprite_client::Error> {
    /// let domain = sprite.map_domain("www.example.com").await?;
    /// println!("{}", domain.url);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// It leads to another sprite (status 409), is no DNS name or one of the server's own (400), or the server maps
    /// none (403).
    pub async fn map_domain(&self, domain: &str) -> Result<Domain, Error> {
        let call = Call::new(Method::PUT, self.domain_target(domain)?);
        self.client().json(&call).await
    }

    /// Has a domain lead to the sprite no more. This never wakes the sprite.
    ///
    /// # Errors
    /// [`Error::is_not_found`] when it does not.
    pub async fn unmap_domain(&self, domain: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, self.domain_target(domain)?);
        self.client().done(&call).await
    }

    fn domain_target(&self, domain: &str) -> Result<Target, Error> {
        self.target()?.path("/domains").segment(domain)
    }
}
