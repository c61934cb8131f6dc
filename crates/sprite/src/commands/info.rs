//! `sprite info`: what is known about a sprite.

use serde_json::Value;

use crate::context::Context;
use crate::failure::Failure;
use crate::show;

/// Show what is known about a sprite
///
/// This never wakes it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite info my-sprite
  sprite info --json | jq -r .url")]
pub(crate) struct Args {
    /// Name of the sprite [default: the one of this directory]
    name: Option<String>,
}

pub(crate) async fn run(args: &Args, context: &Context) -> Result<u8, Failure> {
    let sprite = context.sprite(args.name.as_deref())?;
    let info = sprite
        .info()
        .await
        .map_err(|error| context.failure(&error))?;
    let value = serde_json::to_value(&info)
        .map_err(|error| Failure::caused("cannot show the answer", &error))?;
    if context.global.json {
        show::json(&value)?;
        return Ok(0);
    }
    // The well-known keys in an order for people, then the others as they come.
    const FIRST: [&str; 11] = [
        "name",
        "id",
        "status",
        "url",
        "url_settings",
        "organization",
        "labels",
        "created_at",
        "updated_at",
        "last_running_at",
        "isolation",
    ];
    let others = info.other.keys().map(String::as_str);
    for key in FIRST
        .into_iter()
        .chain(others.filter(|key| !FIRST.contains(key)))
    {
        if let Some(text) = value.get(key).and_then(text) {
            show::line(&format!(
                "{:16} {}",
                format!("{}:", show::plain(key)),
                show::plain(&text)
            ))?;
        }
    }
    Ok(0)
}

/// A value for people; what is empty is not worth a line.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(items) if items.is_empty() => None,
        Value::Object(map) if map.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_string) => Some(
            items
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(", "),
        ),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(value.to_string())
        }
    }
}
