//! `sprite config`: a sprite's settings.

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use sprite_client::{SpriteInfo, UrlSettings};

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Show(Show),
    Update(Update),
}

/// Show a sprite's settings
///
/// This never wakes it.
#[derive(Debug, clap::Args)]
struct Show {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

/// Change a sprite's settings
///
/// What is not named stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite config update --url-auth public
  sprite config update my-sprite --label team-a --label prod
  sprite config update --clear-labels
  sprite config update my-sprite --idle-timeout 10m --connections traffic
  sprite config update my-sprite --api-access on")]
struct Update {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
    /// Who may open the URL
    #[arg(long, value_name = "WHO")]
    url_auth: Option<UrlAuth>,
    /// With --url-auth sprite: which people of the organisation
    #[arg(long, value_name = "PEOPLE")]
    private_access: Option<PrivateAccess>,
    /// Label that it is to have, in place of those it has (repeat for more)
    #[arg(long, value_name = "LABEL", conflicts_with = "clear_labels")]
    label: Vec<String>,
    /// Remove all labels
    #[arg(long)]
    clear_labels: bool,
    /// How long it runs on that nobody uses: 30s, 10m, never, or server for the server's own
    #[arg(long, value_name = "TIME")]
    idle_timeout: Option<String>,
    /// Which connections to its ports keep it awake
    #[arg(long, value_name = "WHICH")]
    connections: Option<Connections>,
    /// Whether programs in it may make sprites of their own, which they alone see
    #[arg(long, value_name = "SWITCH")]
    api_access: Option<Switch>,
}

/// Which connections keep a sprite awake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Connections {
    /// Every one that is open
    Open,
    /// Only bytes that go over one
    Traffic,
}

/// Whether something is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// It is
    On,
    /// It is not
    Off,
}

/// Who may open a sprite's URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum UrlAuth {
    /// Everybody
    Public,
    /// With a token of the organisation
    Sprite,
}

impl UrlAuth {
    pub(super) fn word(self) -> String {
        match self {
            Self::Public => "public",
            Self::Sprite => "sprite",
        }
        .to_owned()
    }
}

/// Which people of an organisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PrivateAccess {
    /// Its administrators
    Admins,
    /// All of them
    OrgUsers,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    match args.command {
        ConfigCommand::Show(args) => {
            let sprite = context.sprite(args.name.as_deref())?;
            let info = sprite.info().await;
            tell(&info.map_err(|error| context.failure(&error))?, context)
        }
        ConfigCommand::Update(args) => update(args, context).await,
    }
}

async fn update(args: Update, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    let mut update = sprite.update();
    let mut named = false;
    if args.url_auth.is_some() || args.private_access.is_some() {
        named = true;
        update = update.url_settings(UrlSettings {
            auth: args.url_auth.map(UrlAuth::word),
            private_access: args.private_access.map(|people| {
                match people {
                    PrivateAccess::Admins => "admins",
                    PrivateAccess::OrgUsers => "org_users",
                }
                .to_owned()
            }),
        });
    }
    if args.clear_labels || !args.label.is_empty() {
        named = true;
        update = update.labels(args.label);
    }
    if let Some(timeout) = args.idle_timeout {
        named = true;
        update = update.idle_timeout(timeout);
    }
    if let Some(which) = args.connections {
        named = true;
        update = update.connections(match which {
            Connections::Open => "open",
            Connections::Traffic => "traffic",
        });
    }
    if let Some(switch) = args.api_access {
        named = true;
        update = update.api_access(switch == Switch::On);
    }
    if !named {
        return Err(Failure::usage("nothing to change is named")
            .hint("sprite config update --help tells what can be changed"));
    }
    let info = update.send().await;
    tell(&info.map_err(|error| context.failure(&error))?, context)
}

/// Whether programs in the sprite may make sprites; servers that are not ours do not tell.
fn has_access(info: &SpriteInfo) -> Option<bool> {
    info.other.get("config")?.get("api_access")?.as_bool()
}

fn configured<'a>(info: &'a SpriteInfo, key: &str) -> Option<&'a str> {
    info.other.get("config")?.get(key)?.as_str()
}

fn tell(info: &SpriteInfo, context: &Context) -> Result<u8, Failure> {
    let url = info.url_settings.clone().unwrap_or_default();
    if context.global.json {
        let settings = json!({
            "name": info.name,
            "labels": info.labels,
            "url_settings": url,
            "idle_timeout": configured(info, "idle_timeout"),
            "connections": configured(info, "connections"),
            "api_access": has_access(info),
        });
        show::json(&settings)?;
        return Ok(0);
    }
    let labels = info.labels.join(", ");
    for (key, value) in [
        ("url-auth", url.auth.as_deref()),
        ("private-access", url.private_access.as_deref()),
        ("labels", Some(labels.as_str())),
        ("idle-timeout", configured(info, "idle_timeout")),
        ("connections", configured(info, "connections")),
        (
            "api-access",
            has_access(info).map(|access| if access { "on" } else { "off" }),
        ),
    ] {
        let value = show::plain(value.filter(|text| !text.is_empty()).unwrap_or("-"));
        show::line(&format!("{:16} {value}", format!("{key}:")))?;
    }
    Ok(0)
}
