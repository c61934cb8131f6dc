//! `sprite use`: choose the sprite of a directory.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::config::Project;
use crate::context::{Context, Global, Surroundings};
use crate::failure::Failure;
use crate::show;

/// Choose the sprite that this directory works with
///
/// The choice is written to a file `.sprite` and holds for the directory and everything below it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sprite use my-sprite
  sprite use            # choose from a list
  sprite use --unset")]
pub(crate) struct Args {
    /// Name of the sprite; without it you choose from a list
    name: Option<String>,
    /// Take the directory's choice back
    #[arg(long, conflicts_with = "name")]
    unset: bool,
}

pub(crate) async fn run(args: &Args, global: &Global) -> Result<u8, Failure> {
    if args.unset {
        let surroundings = Surroundings::read();
        let was_set = Project::unset(surroundings.dir()?)?;
        show::note(if was_set {
            "this directory has no sprite any more"
        } else {
            "this directory had no sprite"
        });
        return Ok(0);
    }
    let context = Context::open(global.clone())?;
    let name = match args.name.as_deref().or(global.sprite.as_deref()) {
        Some(name) => name.to_owned(),
        None => choose(&context).await?,
    };
    match context.client().sprite(&name).info().await {
        Ok(_) => {}
        Err(error) if error.refusal().is_some() => return Err(context.failure(&error)),
        Err(error) => {
            let failure = context.failure(&error);
            show::note(&format!(
                "warning: whether {name} exists is not known\n{failure}"
            ));
        }
    }
    let path = Project::choose(context.dir()?, &context.org, &name)?;
    show::note(&format!(
        "{} now works with {name}",
        path.parent().unwrap_or(&path).display()
    ));
    Ok(0)
}

async fn choose(context: &Context) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage("no sprite is named").hint("name it: sprite use NAME"));
    }
    let sprites = context.client().sprites().all().await;
    let sprites = sprites.map_err(|error| context.failure(&error))?;
    if sprites.is_empty() {
        return Err(Failure::new("there are no sprites").hint("make one: sprite create NAME"));
    }
    for (index, sprite) in sprites.iter().enumerate() {
        let status = show::status(&sprite.status);
        show::note(&format!(
            "{:>4}  {}  ({status})",
            index + 1,
            show::plain(&sprite.name)
        ));
    }
    let _ = write!(io::stderr(), "Number: ");
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|error| Failure::caused("cannot read the answer", &error))?;
    let chosen = line
        .trim()
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_sub(1));
    let chosen = chosen.and_then(|index| sprites.get(index));
    let sprite = chosen.ok_or_else(|| Failure::usage("that is not one of the numbers"))?;
    Ok(sprite.name.clone())
}
