//! `sprite generate-docs`: the reference of all commands as Markdown, from the same source as `--help`.

use std::fmt::Write as _;

use clap::builder::StyledStr;
use clap::{Arg, Command, CommandFactory};

use crate::cli::Cli;
use crate::failure::Failure;
use crate::show;

pub(crate) fn run() -> Result<u8, Failure> {
    show::data(&reference())?;
    Ok(0)
}

/// The whole reference.
fn reference() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# Commands\n\nThis page is made by `sprite generate-docs` from the program itself.\n\n",
    );
    let about = root.get_about().map(plain).unwrap_or_default();
    let _ = writeln!(text, "`sprite` – {about}.\n");
    after_help(&root, &mut text);
    let _ = writeln!(text, "## Global options\n");
    for arg in root.get_arguments().filter(|arg| arg.is_global_set()) {
        argument(arg, &mut text);
    }
    text.push('\n');
    for command in visible(&root) {
        section(command, "sprite", 2, &mut text);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set() && inner.get_name() != "help")
}

fn section(command: &Command, parent: &str, depth: usize, text: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    let _ = writeln!(text, "{} {name}\n", "#".repeat(depth));
    let about = command.get_long_about().or_else(|| command.get_about());
    let _ = writeln!(text, "{}\n", about.map(plain).unwrap_or_default());
    let aliases: Vec<_> = command
        .get_visible_aliases()
        .map(|alias| format!("`{alias}`"))
        .collect();
    if !aliases.is_empty() {
        let _ = writeln!(text, "Also: {}.\n", aliases.join(", "));
    }
    let mut inner: Vec<&Command> = visible(command).collect();
    if inner.is_empty() {
        usage(command, &name, text);
    }
    after_help(command, text);
    for command in inner.drain(..) {
        section(command, &name, depth + 1, text);
    }
}

fn usage(command: &Command, name: &str, text: &mut String) {
    let usage = command.clone().render_usage().to_string();
    let rest = usage
        .split_once(command.get_name())
        .map_or("", |(_, rest)| rest);
    let _ = writeln!(text, "```text\n{name}{}\n```\n", rest.trim_end());
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help")
        .collect();
    for arg in &own {
        argument(arg, text);
    }
    if !own.is_empty() {
        text.push('\n');
    }
}

fn argument(arg: &Arg, text: &mut String) {
    let help = arg.get_help().map(plain).unwrap_or_default();
    let names = arg.get_value_names().unwrap_or_default();
    let takes = arg.get_action().takes_values();
    let values: Vec<_> = names.iter().map(|name| format!("<{name}>")).collect();
    let mut forms = Vec::new();
    if let Some(short) = arg.get_short() {
        forms.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        forms.push(format!("--{long}"));
    }
    let mut form = forms.join(", ");
    if takes && !values.is_empty() {
        if !form.is_empty() {
            form.push(' ');
        }
        form.push_str(&values.join(" "));
    }
    let defaults = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy());
    let defaults = defaults.collect::<Vec<_>>().join(", ");
    let defaults = if takes && !defaults.is_empty() {
        format!(" (default: {defaults})")
    } else {
        String::new()
    };
    let _ = writeln!(text, "* `{form}`: {help}{defaults}");
}

/// The examples, as they stand.
fn after_help(command: &Command, text: &mut String) {
    if let Some(after) = command.get_after_help() {
        let _ = writeln!(text, "```text\n{}\n```\n", plain(after));
    }
}

fn plain(text: &StyledStr) -> String {
    text.to_string().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_section() {
        let text = reference();
        for name in [
            "auth setup",
            "exec",
            "sessions kill",
            "checkpoint create",
            "restore",
            "fork",
            "org use",
            "completion",
        ] {
            assert!(text.contains(&format!("# sprite {name}\n")), "{name}");
        }
        assert!(
            !text.contains("generate-docs\n\n"),
            "a hidden command is shown"
        );
        assert!(text.contains("--skip-console"));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
