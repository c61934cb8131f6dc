//! `sprite url`: a sprite's own URL, and who may open it.

use clap::Subcommand;
use serde_json::json;
use sprite_client::{SpriteInfo, UrlSettings};

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

use super::config::UrlAuth;

/// Show a sprite's own URL, or change who may open it
///
/// The URL goes to standard output, who may open it to standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  curl \"$(sprite url)\"
  sprite url update --auth public")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<UrlCommand>,
}

#[derive(Debug, Subcommand)]
enum UrlCommand {
    Update(Update),
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
