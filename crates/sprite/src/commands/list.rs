//! `sprite list`: the organisation's sprites.

use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::show::{self, Table};

/// List sprites
///
/// With --watch the changes follow as they happen, one a line, until you stop it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite list
  sprite list --prefix build-
  sprite list --json | jq -r '.[].name'
  sprite list -w")]
pub(crate) struct Args {
    /// Only sprites whose names begin so
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Show changes as they happen
    #[arg(short, long)]
    watch: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let mut list = context.client().sprites();
    if let Some(prefix) = args.prefix {
        list = list.prefix(prefix);
    }
    if args.watch {
        let watching = list.watch().await;
        let mut watch = watching.map_err(|error| context.failure(&error))?;
        loop {
            let change = watch
                .next()
                .await
                .map_err(|error| context.failure(&error))?;
            if context.global.json {
                let value = serde_json::to_string(&change)
                    .map_err(|error| Failure::caused("cannot show the change", &error))?;
                show::line(&value)?;
            } else {
                let time = change
                    .timestamp
                    .as_ref()
                    .map_or("-", |timestamp| timestamp.0.as_str());
                let (time, name) = (show::plain(time), show::plain(&change.name));
                show::line(&format!(
                    "{time}  {name}  {}",
                    show::plain(&show::status(&change.status))
                ))?;
            }
        }
    }
    let sprites = list.all().await.map_err(|error| context.failure(&error))?;
    if context.global.json {
        let all: Result<Vec<Value>, _> = sprites.iter().map(serde_json::to_value).collect();
        let all = all.map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&Value::Array(all))?;
        return Ok(0);
    }
    if sprites.is_empty() {
        show::note("there are no sprites; make one: sprite create NAME");
        return Ok(0);
    }
    let mut table = Table::new(["NAME", "STATUS", "AGE", "LABELS", "URL"]);
    for sprite in sprites {
        table.row([
            sprite.name,
            show::status(&sprite.status),
            show::age(sprite.created_at.as_ref().or(sprite.updated_at.as_ref())),
            if sprite.labels.is_empty() {
                "-".to_owned()
            } else {
                sprite.labels.join(",")
            },
            sprite.url.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    show::data(&table.text())?;
    Ok(0)
}
