//! The documents' code blocks run.
//!
//! A fence whose words are `sh run`, `js run` or `python run` is a block that runs, in the order of its file,
//! against a live server. Blocks of one file share a home directory and a working directory; each file begins
//! with empty ones. What a reader would type is what runs: `http://127.0.0.1:7774` is replaced by the address
//! of the server, and `sudo` finds the server's data directory.

use std::path::{Path, PathBuf};

use crate::conformance::Sdks;
use crate::failure::{Failure, Outcome};
use crate::host::{find_program, workspace};
use crate::program::Program;
use crate::server::Server;

/// Where documents with such blocks lie.
const PLACES: &[&str] = &["README.md", "docs/src"];

/// What a block is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    Shell,
    JavaScript,
    Python,
}

/// A block that runs.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    line: usize,
    language: Language,
    text: String,
}

/// Runs every block of every document and says how many passed and failed.
///
/// # Errors
/// The blocks could not be tried at all; one that fails is counted.
pub fn run(server: &Server, sdks: &Sdks) -> Outcome<(usize, usize)> {
    let (mut passed, mut failed) = (0, 0);
    for (number, document) in documents()?.iter().enumerate() {
        let text = std::fs::read_to_string(document)
            .map_err(Failure::io(format!("read {}", document.display())))?;
        let blocks = read(&text);
        if blocks.is_empty() {
            continue;
        }
        let place = Place::prepare(server, sdks, number)?;
        let shown = document
            .strip_prefix(workspace())
            .unwrap_or(document)
            .display();
        for block in blocks {
            match place.run(server, sdks, &block) {
                Ok(()) => {
                    passed += 1;
                    println!("ok    {shown}:{}", block.line);
                }
                Err(Failure::Interrupted) => return Err(Failure::Interrupted),
                Err(failure) => {
                    failed += 1;
                    println!("FAIL  {shown}:{}\n{failure}", block.line);
                    // What follows on the page builds on this block.
                    break;
                }
            }
        }
    }
    Ok((passed, failed))
}

fn documents() -> Outcome<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for place in PLACES {
        let path = workspace().join(place);
        if path.is_dir() {
            walk(&path, &mut documents)?;
        } else {
            documents.push(path);
        }
    }
    Ok(documents)
}

fn walk(directory: &Path, documents: &mut Vec<PathBuf>) -> Outcome {
    let failure = || Failure::io(format!("list {}", directory.display()));
    let mut entries = std::fs::read_dir(directory)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(failure())?;
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, documents)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    Ok(())
}

/// The blocks of a document that run.
fn read(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    let mut ignored = false;
    for (index, line) in text.lines().enumerate() {
        let fence = line.strip_prefix("```");
        // A fence that closes carries no words.
        let closes = fence.is_some_and(|words| words.trim().is_empty());
        if let Some(mut block) = open.take() {
            if closes {
                blocks.push(block);
            } else {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
        } else if ignored {
            ignored = !closes;
        } else if let Some(words) = fence {
            let language = match words.trim() {
                "sh run" => Some(Language::Shell),
                "js run" => Some(Language::JavaScript),
                "python run" => Some(Language::Python),
                _ => None,
            };
            ignored = language.is_none();
            open = language.map(|language| Block {
                line: index + 1,
                language,
                text: String::new(),
            });
        }
    }
    blocks
}

/// A home and a working directory for one document.
struct Place {
    home: PathBuf,
    work: PathBuf,
    programs: PathBuf,
}

impl Place {
    fn prepare(server: &Server, sdks: &Sdks, number: usize) -> Outcome<Self> {
        let home = server.home()?.join(format!("document-{number}"));
        let (work, programs) = (home.join("work"), home.join("programs"));
        for directory in [&work, &programs] {
            std::fs::create_dir_all(directory)
                .map_err(Failure::io(format!("make {}", directory.display())))?;
        }
        let link = |to: PathBuf, at: PathBuf| {
            std::os::unix::fs::symlink(&to, &at).map_err(Failure::io(format!(
                "link {} to {}",
                at.display(),
                to.display()
            )))
        };
        link(server.sprite(), programs.join("sprite"))?;
        link(server.sprited(), programs.join("sprited"))?;
        link(sdks.node(), programs.join("node"))?;
        link(sdks.node_modules(), work.join("node_modules"))?;
        write_script(&programs.join("sudo"), &sudo())?;
        Ok(Self {
            home,
            work,
            programs,
        })
    }

    fn run(&self, server: &Server, sdks: &Sdks, block: &Block) -> Outcome {
        let text = block.text.replace("http://127.0.0.1:7774", server.url());
        let program = match block.language {
            Language::Shell => Program::new("sh").args(["-eu", "-c", &text]),
            Language::JavaScript => {
                let file = self.work.join(format!("block-{}.mjs", block.line));
                write(&file, &text)?;
                Program::new(sdks.node()).args([file])
            }
            Language::Python => Program::new(sdks.python()).args(["-c", &text]),
        };
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut directories = vec![self.programs.clone()];
        directories.extend(std::env::split_paths(&path));
        let path = std::env::join_paths(directories)
            .map_err(|error| Failure::Check(format!("join PATH: {error}")))?;
        program
            .env("PATH", path)
            .env("HOME", &self.home)
            .env("SPRITED_DATA_DIR", server.data())
            .dir(&self.work)
            .read()
            .map(drop)
    }
}

/// What `sudo` is for a block: the real one hands no variables on, and root may have none.
fn sudo() -> String {
    match find_program("sudo") {
        Some(sudo) => format!(
            "exec {} -n env PATH=\"$PATH\" SPRITED_DATA_DIR=\"$SPRITED_DATA_DIR\" \"$@\"\n",
            sudo.display()
        ),
        None => "exec \"$@\"\n".to_owned(),
    }
}

fn write(file: &Path, text: &str) -> Outcome {
    std::fs::write(file, text).map_err(Failure::io(format!("write {}", file.display())))
}

fn write_script(file: &Path, text: &str) -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    write(file, &format!("#!/bin/sh\n{text}"))?;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755))
        .map_err(Failure::io(format!("make {} executable", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marked_blocks_run() {
        let text = "```sh\nrm -rf /\n```\n\n```sh run\nsprite list\n```\n\
                    ```text\n```sh run\nnot a block\n```\n```python run\nprint(1)\n\n```\n";
        let blocks = read(text);
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        assert_eq!(blocks[0].text, "sprite list\n");
        assert_eq!(blocks[0].line, 5);
        assert_eq!(blocks[1].language, Language::Python);
        assert_eq!(blocks[1].text, "print(1)\n\n");
    }
}
