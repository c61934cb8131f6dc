//! `sprited token`: works on the data directory, whether or not a server runs.

use sprite_catalog::Catalog;
use time::OffsetDateTime;

use crate::cli::TokenFlags;
use crate::data_dir::DataDir;
use crate::failure::Failure;

pub(crate) async fn create(flags: TokenFlags) -> Result<(), Failure> {
    let data = DataDir::open(&flags.data_dir)?;
    let catalog = Catalog::open(&data.catalog())
        .await
        .map_err(|error| Failure::new("open the catalog", &error))?;
    let token = catalog
        .create_token(&flags.org, &flags.description, OffsetDateTime::now_utc())
        .await;
    let token = token.map_err(|error| Failure::new("make a token", &error))?;
    println!("{}", token.text);
    catalog.close().await;
    Ok(())
}
