//! `sprite create`: make a sprite and open a console in it.

use std::io::{self, IsTerminal};
use std::time::Instant;

use sprite_client::{Create, Error, SpriteInfo};
use uuid::Uuid;

use crate::attend::Wanted;
use crate::browser::Consent;
use crate::context::Context;
use crate::failure::Failure;
use crate::show;

use super::console;

/// Make a sprite and open a console in it
///
/// Without a terminal, or with --skip-console or --json, no console is opened and the name is printed. Without a
/// name the sprite gets a random one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite create my-sprite
  sprite create my-sprite --skip-console --label team-a --cpus 4
  name=$(sprite create --skip-console)")]
pub(crate) struct Args {
    /// Name: 1 to 56 characters of a-z, 0-9 and '-'
    name: Option<String>,
    /// Only make the sprite
    #[arg(long)]
    skip_console: bool,
    /// Label to put on it (repeat for more)
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// CPUs that it may use at most
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Memory that it may use at most, in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Size of its disk in GB
    #[arg(long, value_name = "GB")]
    storage: Option<u32>,
    /// Let programs in it make sprites of their own
    #[arg(long)]
    api_access: bool,
}

pub(crate) async fn run(args: Args, context: &Context) -> Result<u8, Failure> {
    let name = match (args.name, context.global.sprite.clone()) {
        (Some(name), Some(flag)) if name != flag => {
            return Err(Failure::usage(format!(
                "two names are given: {name} and {flag}"
            )));
        }
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => random_name(),
    };
    let mut create = context.client().create(name);
    for label in args.label {
        create = create.label(label);
    }
    if let Some(cpus) = args.cpus {
        create = create.cpus(cpus);
    }
    if let Some(memory_mib) = args.memory {
        create = create.memory_mib(memory_mib);
    }
    if let Some(storage_gb) = args.storage {
        create = create.storage_gb(storage_gb);
    }
    if args.api_access {
        create = create.api_access(true);
    }
    let sprite = make(create).await;
    let sprite = sprite.map_err(|error| context.failure(&error))?;
    let someone = io::stdin().is_terminal() && io::stdout().is_terminal();
    if args.skip_console || context.global.json || !someone {
        return print(&sprite, context);
    }
    let wanted = Wanted {
        ports: true,
        browser: Consent::Ask,
    };
    console::open(context, &context.client().sprite(sprite.name), wanted).await
}

/// Makes a sprite, and says how long that took.
pub(super) async fn make(create: Create) -> Result<SpriteInfo, Error> {
    let begun = Instant::now();
    let sprite = create.send().await?;
    show::note(&format!(
        "created {} in {} ms",
        show::plain(&sprite.name),
        begun.elapsed().as_millis()
    ));
    Ok(sprite)
}

/// Prints the name of a sprite that was made, or as JSON all that is known about it.
pub(super) fn print(sprite: &SpriteInfo, context: &Context) -> Result<u8, Failure> {
    if context.global.json {
        let value = serde_json::to_value(sprite)
            .map_err(|error| Failure::caused("cannot show the answer", &error))?;
        show::json(&value)?;
        return Ok(0);
    }
    show::line(&show::plain(&sprite.name))?;
    Ok(0)
}

/// A name that nobody has yet, most likely: one in some seven billion.
fn random_name() -> String {
    const FIRST: [&str; 16] = [
        "amber", "bold", "brisk", "calm", "clear", "fleet", "gentle", "keen", "lucid", "mellow",
        "nimble", "quiet", "rapid", "silver", "steady", "vivid",
    ];
    const SECOND: [&str; 16] = [
        "badger", "cedar", "comet", "falcon", "fjord", "heron", "island", "juniper", "lark",
        "maple", "otter", "pine", "raven", "river", "sparrow", "willow",
    ];
    let random = Uuid::new_v4();
    let bytes = random.as_bytes();
    let pick = |words: &[&'static str; 16], byte: u8| words[usize::from(byte & 15)];
    let tail: String = bytes[2..5]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}-{}-{tail}",
        pick(&FIRST, bytes[0]),
        pick(&SECOND, bytes[1])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_legal_and_differ() {
        let (one, other) = (random_name(), random_name());
        assert_ne!(one, other);
        assert!(
            one.len() <= 56
                && one
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        );
    }
}
