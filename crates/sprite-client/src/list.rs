//! Listing sprites page by page, and watching them.

use std::time::Duration;

use hyper::Method;
use hyper::header::{ACCEPT, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::body::Lines;
use crate::client::{Call, Client};
use crate::error::Error;
use crate::model::{Counts, Organization, SpriteInfo, Status, Timestamp};
use crate::url::Target;

/// How long a watch may be silent before the connection counts as lost. Servers beat more often than that.
const WATCH_SILENCE: Duration = Duration::from_secs(90);

/// Which sprites to list.
#[derive(Debug, Clone)]
#[must_use = "nothing is listed before `all`, `pages` or `watch`"]
pub struct List {
    client: Client,
    prefix: Option<String>,
    page_size: Option<u32>,
}

impl Client {
    /// The organisation's sprites, by name.
    pub fn sprites(&self) -> List {
        List {
            client: self.clone(),
            prefix: None,
            page_size: None,
        }
    }

    /// The organisation that the token belongs to.
    ///
    /// # Errors
    /// When the token is not accepted or the call fails.
    pub async fn organization(&self) -> Result<Organization, Error> {
        #[derive(Deserialize)]
        struct Answer {
            organization: Organization,
        }
        let call = Call::new(Method::GET, Target::new("/v1/organization"));
        self.json::<Answer>(&call)
            .await
            .map(|answer| answer.organization)
    }
}

/// One page of a list.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// Its sprites.
    pub sprites: Vec<SpriteInfo>,
    #[serde(default)]
    has_more: bool,
    #[serde(default)]
    next_continuation_token: Option<String>,
    /// How many sprites of the organisation are in which status, if the server told.
    #[serde(default)]
    pub org: Option<Counts>,
}

impl List {
    /// Only sprites whose names begin with `prefix`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// At most this many sprites a page; servers allow 1 to 50.
    pub fn page_size(mut self, size: u32) -> Self {
        self.page_size = Some(size);
        self
    }

    fn target(&self) -> Target {
        let size = self.page_size.map(|size| size.to_string());
        Target::new("/v1/sprites")
            .param_opt("prefix", self.prefix.as_deref())
            .param_opt("max_results", size.as_deref())
    }

    /// The list page by page.
    pub fn pages(self) -> Pages {
        Pages {
            list: self,
            next: Next::First,
        }
    }

    /// The whole list.
    ///
    /// # Errors
    /// When any page fails: a list that was interrupted never looks whole.
    pub async fn all(self) -> Result<Vec<SpriteInfo>, Error> {
        let mut pages = self.pages();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await? {
            all.extend(page.sprites);
        }
        Ok(all)
    }

    /// Changes as they happen, beginning with the present state of every sprite of the list.
    ///
    /// # Errors
    /// When the server does not begin the stream.
    pub async fn watch(self) -> Result<Watch, Error> {
        let mut call = Call::new(Method::GET, self.target());
        call.headers
            .insert(ACCEPT, HeaderValue::from_static("application/x-ndjson"));
        let response = self.client.accepted(&call).await?;
        Ok(Watch {
            lines: Lines::new(response.into_body(), WATCH_SILENCE),
        })
    }
}

#[derive(Debug)]
enum Next {
    First,
    After(String),
    Nothing,
}

/// The pages of a list, in order.
#[derive(Debug)]
pub struct Pages {
    list: List,
    next: Next,
}

impl Pages {
    /// The next page; `None` after the last.
    ///
    /// # Errors
    /// When the call fails, or when the server says that there is more and not where.
    ///
    /// # Cancel safety
    /// Safe: a page that was not returned is asked for again.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        let target = match &self.next {
            Next::First => self.list.target(),
            Next::After(token) => self.list.target().param("continuation_token", token),
            Next::Nothing => return Ok(None),
        };
        let page: Page = self
            .list
            .client
            .json(&Call::new(Method::GET, target))
            .await?;
        let following = match (page.has_more, page.next_continuation_token.clone()) {
            (false, _) => Next::Nothing,
            (true, Some(token)) if !token.is_empty() => Next::After(token),
            (true, _) => {
                return Err(Error::malformed(
                    "there are more sprites, but no way on is given",
                ));
            }
        };
        if let (Next::After(before), Next::After(after)) = (&self.next, &following)
            && before == after
        {
            return Err(Error::malformed("the way on leads back to the same page"));
        }
        self.next = following;
        Ok(Some(page))
    }
}

/// A change of one sprite.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// The sprite's name.
    pub name: String,
    /// Its status now.
    #[serde(default)]
    pub status: Status,
    /// When it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// Everything else that the server told.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A stream of changes without an end.
#[derive(Debug)]
pub struct Watch {
    lines: Lines,
}

impl Watch {
    /// The next change.
    ///
    /// # Errors
    /// When the stream breaks, ends, or is silent for 90 s: a watch has no end, so every end is an error.
    ///
    /// # Cancel safety
    /// Safe: no change is lost.
    pub async fn next(&mut self) -> Result<Change, Error> {
        loop {
            let object: Map<String, Value> = self
                .lines
                .next()
                .await?
                .ok_or(Error::Interrupted { source: None })?;
            // Heartbeats, and kinds of events that this client does not know, name no sprite.
            if object.get("name").is_some_and(Value::is_string) {
                return serde_json::from_value(Value::Object(object))
                    .map_err(|source| Error::malformed(source.to_string()));
            }
        }
    }
}
