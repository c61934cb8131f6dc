//! `sprited token`: works on the data directory, whether or not a server runs.

use std::path::Path;

use sprite_catalog::Catalog;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::cli::{TokenFlags, TokenListFlags, TokenRevokeFlags};
use crate::data_dir::DataDir;
use crate::failure::Failure;

pub(crate) async fn create(flags: TokenFlags) -> Result<(), Failure> {
    let data = DataDir::open(&flags.data_dir)?;
    let catalog = open(&data).await?;
    let token = catalog
        .create_token(&flags.org, &flags.description, OffsetDateTime::now_utc())
        .await;
    let token = token.map_err(|error| Failure::new("make a token", &error))?;
    println!("{}", token.text);
    catalog.close().await;
    Ok(())
}

pub(crate) async fn list(flags: TokenListFlags) -> Result<(), Failure> {
    let catalog = existing(&flags.data_dir).await?;
    let tokens = catalog.tokens(flags.org.as_ref()).await;
    let tokens = tokens.map_err(|error| Failure::new("list tokens", &error))?;
    for token in tokens.iter().filter(|token| token.revoked_at.is_none()) {
        let made = token
            .created_at
            .replace_nanosecond(0)
            .unwrap_or(token.created_at)
            .format(&Rfc3339)
            .map_err(|error| Failure::new("write a time", &error))?;
        println!(
            "{}  {}  {made}  {}",
            token.id, token.org.slug, token.description
        );
    }
    catalog.close().await;
    Ok(())
}

pub(crate) async fn revoke(flags: TokenRevokeFlags) -> Result<(), Failure> {
    const STEP: &str = "revoke the token";
    let catalog = existing(&flags.data_dir).await?;
    let found = catalog.token(&flags.id).await;
    let found = found.map_err(|error| Failure::new(STEP, &error))?;
    let revoked = match found {
        Some(token) => catalog
            .revoke_token(&token.org.id, &token.id, OffsetDateTime::now_utc())
            .await
            .map_err(|error| Failure::new(STEP, &error))?,
        None => false,
    };
    catalog.close().await;
    if revoked {
        return Ok(());
    }
    Err(
        Failure::plain(format!("no token in force has the id {}", flags.id))
            .hint("sprited token list shows the ids"),
    )
}

/// The catalog of a data directory that is there: nothing is made for a mistyped one.
async fn existing(data_dir: &Path) -> Result<Catalog, Failure> {
    open(&DataDir::existing(data_dir)?).await
}

async fn open(data: &DataDir) -> Result<Catalog, Failure> {
    Catalog::open(&data.catalog())
        .await
        .map_err(|error| Failure::new("open the catalog", &error))
}
