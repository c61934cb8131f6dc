//! Organisations and their tokens.

use sprite_types::{OrgId, OrgSlug, TokenId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::{CatalogError, Step};
use crate::row;
use crate::store::Catalog;

/// How often a random id is tried before giving up: ids of 30 bits and more collide rarely, never five times.
const ATTEMPTS: usize = 5;

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organisation {
    /// Its id.
    pub id: OrgId,
    /// Its name.
    pub slug: OrgSlug,
}

/// A token that was just made: the only moment at which its text is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// Its public part.
    pub id: TokenId,
    /// Whose it is.
    pub org: Organisation,
    /// The whole text, `org-slug/org-id/token-id/secret`. The secret has 244 random bits.
    pub text: String,
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its public part.
    pub id: TokenId,
    /// Whose it is.
    pub org: Organisation,
    /// What it was made for.
    pub description: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    hash: blake3::Hash,
}

impl Token {
    /// Whether `secret` is this token's. Takes the same time whatever differs.
    #[must_use]
    pub fn has_secret(&self, secret: &str) -> bool {
        blake3::hash(secret.as_bytes()) == self.hash
    }
}

impl Catalog {
    /// The organisation of that name, made if there is none.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub async fn ensure_organisation(
        &self,
        slug: &OrgSlug,
        at: OffsetDateTime,
    ) -> Result<Organisation, CatalogError> {
        let mut tx = self.write("record an organisation").await?;
        let organisation = ensure(&mut tx, slug, at).await?;
        tx.commit().await.step("record an organisation")?;
        Ok(organisation)
    }

    /// The organisation of that id.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn organisation(&self, id: &OrgId) -> Result<Option<Organisation>, CatalogError> {
        let row = sqlx::query("SELECT slug FROM organisations WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.reader)
            .await
            .step("read an organisation")?;
        row.map(|row| {
            Ok(Organisation {
                id: id.clone(),
                slug: row::parsed(&row, "slug")?,
            })
        })
        .transpose()
    }

    /// Makes a token of the organisation of that name, which is made too if there is none.
    ///
    /// # Errors
    /// The catalog cannot be written.
    ///
    /// # Crash safety
    /// The token is durable when this returns. It may be called while another process serves the catalog.
    pub async fn create_token(
        &self,
        slug: &OrgSlug,
        description: &str,
        at: OffsetDateTime,
    ) -> Result<NewToken, CatalogError> {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let hash = blake3::hash(secret.as_bytes()).to_hex();
        let mut tx = self.write("record a token").await?;
        let org = ensure(&mut tx, slug, at).await?;
        for _ in 0..ATTEMPTS {
            let id = TokenId::random();
            let inserted = sqlx::query(
                "INSERT INTO tokens (id, org_id, hash, description, created_at) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(id.as_str())
            .bind(org.id.as_str())
            .bind(hash.as_str())
            .bind(description)
            .bind(row::micros(at))
            .execute(&mut *tx)
            .await
            .step("record a token")?;
            if inserted.rows_affected() == 1 {
                tx.commit().await.step("record a token")?;
                let text = format!("{}/{}/{id}/{secret}", org.slug, org.id);
                return Ok(NewToken { id, org, text });
            }
        }
        Err(CatalogError::Ids { what: "a token" })
    }

    /// The token of that id, revoked or not.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn token(&self, id: &TokenId) -> Result<Option<Token>, CatalogError> {
        let tokens = &self.recent.tokens;
        // That there is none is not kept: nobody tells of one that is made.
        let there = async {
            self.read_token(id)
                .await
                .transpose()
                .ok_or(None)?
                .map_err(Some)
        };
        match tokens.get(id.clone(), there).await {
            Ok(token) => Ok(Some(token)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    async fn read_token(&self, id: &TokenId) -> Result<Option<Token>, CatalogError> {
        let row = sqlx::query(
            "SELECT t.id, t.org_id, o.slug, t.hash, t.description, t.created_at, t.revoked_at \
             FROM tokens t JOIN organisations o ON o.id = t.org_id WHERE t.id = ?",
        )
        .bind(id.as_str())
        .fetch_optional(&self.reader)
        .await
        .step("read a token")?;
        row.map(|row| token(&row)).transpose()
    }

    /// The tokens of every organisation, or of one, revoked or not, in the order in which they were made.
    ///
    /// # Errors
    /// The catalog cannot be read.
    pub async fn tokens(&self, org: Option<&OrgSlug>) -> Result<Vec<Token>, CatalogError> {
        let rows = sqlx::query(
            "SELECT t.id, t.org_id, o.slug, t.hash, t.description, t.created_at, t.revoked_at \
             FROM tokens t JOIN organisations o ON o.id = t.org_id \
             WHERE o.slug = ? OR ? IS NULL ORDER BY t.created_at, t.id",
        )
        .bind(org.map(OrgSlug::as_str))
        .bind(org.map(OrgSlug::as_str))
        .fetch_all(&self.reader)
        .await
        .step("list tokens")?;
        rows.iter().map(token).collect()
    }

    /// Revokes a token of an organisation. Says whether there was one that was not revoked yet.
    ///
    /// # Errors
    /// The catalog cannot be written.
    pub async fn revoke_token(
        &self,
        org: &OrgId,
        id: &TokenId,
        at: OffsetDateTime,
    ) -> Result<bool, CatalogError> {
        let mut tx = self.write("revoke a token").await?;
        let changed = sqlx::query(
            "UPDATE tokens SET revoked_at = ? WHERE id = ? AND org_id = ? AND revoked_at IS NULL",
        )
        .bind(row::micros(at))
        .bind(id.as_str())
        .bind(org.as_str())
        .execute(&mut *tx)
        .await
        .step("revoke a token")?;
        let revoking = self.revocations.begin();
        let revoking = revoking
            .map_err(sqlx::Error::Io)
            .step("tell that a token is revoked")?;
        tx.commit().await.step("revoke a token")?;
        if let Err(error) = revoking.end() {
            tracing::warn!(%error, "tokens are read anew for each request");
        }
        Ok(changed.rows_affected() == 1)
    }
}

fn token(row: &SqliteRow) -> Result<Token, CatalogError> {
    let hash: String = row::text(row, "hash")?;
    let hash = blake3::Hash::from_hex(&hash).map_err(|_| CatalogError::Row {
        column: "hash",
        text: "not a hash".to_owned(),
    })?;
    Ok(Token {
        id: row::parsed(row, "id")?,
        org: Organisation {
            id: row::parsed(row, "org_id")?,
            slug: row::parsed(row, "slug")?,
        },
        description: row::text(row, "description")?,
        created_at: row::time(row, "created_at")?,
        revoked_at: row::optional_time(row, "revoked_at")?,
        hash,
    })
}

async fn ensure(
    tx: &mut SqliteConnection,
    slug: &OrgSlug,
    at: OffsetDateTime,
) -> Result<Organisation, CatalogError> {
    for _ in 0..ATTEMPTS {
        let found = sqlx::query("SELECT id FROM organisations WHERE slug = ?")
            .bind(slug.as_str())
            .fetch_optional(&mut *tx)
            .await
            .step("read an organisation")?;
        if let Some(found) = found {
            let id: String = found.try_get("id").step("read an organisation")?;
            let id = id.parse().map_err(|_| CatalogError::Row {
                column: "id",
                text: id,
            })?;
            return Ok(Organisation {
                id,
                slug: slug.clone(),
            });
        }
        // Does nothing if the random id is taken; then the next turn tries another.
        sqlx::query("INSERT INTO organisations (id, slug, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(OrgId::random().as_str())
            .bind(slug.as_str())
            .bind(row::micros(at))
            .execute(&mut *tx)
            .await
            .step("record an organisation")?;
    }
    Err(CatalogError::Ids {
        what: "an organisation",
    })
}
