//! `sprite url`: a sprite's own URL, and who may open it.

use clap::Subcommand;
use serde_json::json;
use sprite_client::{Sprite, SpriteInfo, UrlSettings};

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

use super::config::UrlAuth;

/// Show a sprite's own URL, or change who may open it
///
/// The URL goes to standard output, who may open it to standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  curl \"$(sprite url)\"
  sprite url update --auth public
  sprite url domain add www.example.com")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<UrlCommand>,
}

#[derive(Debug, Subcommand)]
enum UrlCommand {
    Update(Update),
    /// Domains of your own that lead to the sprite
    #[command(subcommand)]
    Domain(DomainCommand),
}

#[derive(Debug, Subcommand)]
enum DomainCommand {
    Add(Add),
    /// List the domains that lead to the sprite
    #[command(visible_alias = "ls")]
    List,
    #[command(visible_alias = "rm")]
    Remove(Remove),
}

/// Map a domain to the sprite
///
/// Whoever asks this server for the domain gets the sprite then. That the domain's DNS leads to the server, and that a
/// certificate covers it, is yours to see to.
#[derive(Debug, clap::Args)]
struct Add {
    /// A DNS name: www.example.com
    domain: String,
}

/// Let a domain go
#[derive(Debug, clap::Args)]
struct Remove {
    /// The domain
    domain: String,
}

/// Change who may open the URL
#[derive(Debug, clap::Args)]
struct Update {
    /// Who may open it
    #[arg(long, value_name = "WHO")]
    auth: UrlAuth,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(None)?;
    let info = match args.command {
        None => sprite.info().await,
        Some(UrlCommand::Domain(command)) => return domain(&sprite, command, context).await,
        Some(UrlCommand::Update(Update { auth })) => {
            let settings = UrlSettings {
                auth: Some(auth.word()),
                private_access: None,
            };
            sprite.update().url_settings(settings).send().await
        }
    };
    tell(&info.map_err(|error| context.failure(&error))?, context)
}

async fn domain(sprite: &Sprite, command: DomainCommand, context: &Context) -> Result<u8, Failure> {
    match command {
        DomainCommand::Add(Add { domain }) => {
            let added = sprite.map_domain(&domain).await;
            let added = added.map_err(|error| context.failure(&error))?;
            if context.global.json {
                show::json(&json!(added))?;
            } else {
                show::line(&show::plain(&added.url))?;
            }
        }
        DomainCommand::List => {
            let domains = sprite.domains().await;
            let domains = domains.map_err(|error| context.failure(&error))?;
            if context.global.json {
                show::json(&json!(domains))?;
                return Ok(0);
            }
            if domains.is_empty() {
                show::note(&format!("no domain leads to {}", sprite.name()));
                return Ok(0);
            }
            let mut table = Table::new(["DOMAIN", "URL", "AGE"]);
            for domain in domains {
                let age = show::age(domain.created_at.as_ref());
                table.row([domain.domain, domain.url, age]);
            }
            show::data(&table.text())?;
        }
        DomainCommand::Remove(Remove { domain }) => {
            let removed = sprite.unmap_domain(&domain).await;
            removed.map_err(|error| context.failure(&error))?;
            show::note(&format!("{domain} leads to {} no more", sprite.name()));
            if context.global.json {
                show::json(&json!({ "removed": domain }))?;
            }
        }
    }
    Ok(0)
}

fn tell(info: &SpriteInfo, context: &Context) -> Result<u8, Failure> {
    if context.global.json {
        let settings = json!({"url": info.url, "url_settings": info.url_settings});
        show::json(&settings)?;
        return Ok(0);
    }
    let Some(url) = &info.url else {
        return Err(Failure::new("this server gives sprites no URL"));
    };
    show::line(&show::plain(url))?;
    let settings = info.url_settings.as_ref();
    if let Some(auth) = settings.and_then(|settings| settings.auth.as_deref()) {
        show::note(&format!("auth: {}", show::plain(auth)));
    }
    Ok(0)
}
