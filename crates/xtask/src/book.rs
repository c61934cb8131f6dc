//! The documents hold together: every page is in the book's table of contents, every decision in its index,
//! and every relative link leads somewhere.

use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::host::workspace;

/// Directories that hold no documents of ours.
const SKIPPED: &[&str] = &["target", "node_modules", ".git", ".venv"];

/// Checks every Markdown file of the working tree.
///
/// # Errors
/// Each broken link and each page that nothing lists.
pub fn check() -> Outcome<usize> {
    let root = workspace();
    let mut documents = Vec::new();
    collect(&root, &mut documents)?;
    let mut wrong = Vec::new();
    for document in &documents {
        let text = std::fs::read_to_string(document)
            .map_err(Failure::io(format!("read {}", document.display())))?;
        let directory = document.parent().unwrap_or(&root);
        for target in relative_links(&text) {
            if !directory.join(&target).exists() {
                let shown = document.strip_prefix(&root).unwrap_or(document).display();
                wrong.push(format!("{shown}: link to {target}, which does not exist"));
            }
        }
    }
    wrong.extend(unlisted(&root.join("docs/src"), "SUMMARY.md", &documents)?);
    wrong.extend(unlisted(
        &root.join("docs/decisions"),
        "README.md",
        &documents,
    )?);
    if wrong.is_empty() {
        Ok(documents.len())
    } else {
        Err(Failure::Check(wrong.join("\n")))
    }
}

fn collect(directory: &Path, documents: &mut Vec<PathBuf>) -> Outcome {
    let failure = || Failure::io(format!("list {}", directory.display()));
    for entry in std::fs::read_dir(directory).map_err(failure())? {
        let entry = entry.map_err(failure())?;
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().map_err(failure())?;
        if kind.is_dir() && !SKIPPED.contains(&name.as_ref()) && !name.starts_with("target-") {
            collect(&path, documents)?;
        } else if kind.is_file() && name.ends_with(".md") {
            documents.push(path);
        }
    }
    documents.sort();
    Ok(())
}

/// Pages below `directory` that its `index` does not link to.
fn unlisted(directory: &Path, index: &str, documents: &[PathBuf]) -> Outcome<Vec<String>> {
    let path = directory.join(index);
    let text =
        std::fs::read_to_string(&path).map_err(Failure::io(format!("read {}", path.display())))?;
    let listed: Vec<PathBuf> = relative_links(&text)
        .iter()
        .map(|link| directory.join(link))
        .collect();
    Ok(documents
        .iter()
        .filter(|page| page.starts_with(directory) && **page != path && !listed.contains(page))
        .map(|page| format!("{} does not list {}", path.display(), page.display()))
        .collect())
}

/// Targets of `[text](target)` that are files, outside code, without their anchors.
fn relative_links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    let mut code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            code = !code;
        }
        if code {
            continue;
        }
        for part in line.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !file.starts_with("mailto:") {
                links.push(file.to_owned());
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_files_are_found_and_others_are_not() {
        let text = "[a](b.md#c) and [d](https://x.example/y), [e](#f)\n\
                    ```\n[g](h.md)\n```\n- [i](../j.md)";
        assert_eq!(relative_links(text), ["b.md", "../j.md"]);
    }

    #[test]
    fn a_page_that_nothing_lists_is_found() {
        let directory = std::env::temp_dir().join(format!("book-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a temporary directory can be made");
        let write = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).expect("a temporary file can be written");
        };
        write("SUMMARY.md", "- [listed](listed.md)");
        write("listed.md", "");
        write("forgotten.md", "");
        let mut documents = Vec::new();
        collect(&directory, &mut documents).expect("the directory can be listed");
        let wrong = unlisted(&directory, "SUMMARY.md", &documents).expect("the index is there");
        std::fs::remove_dir_all(&directory).expect("the directory is ours");
        assert_eq!(wrong.len(), 1);
        assert!(wrong[0].ends_with("forgotten.md"), "{wrong:?}");
    }
}
