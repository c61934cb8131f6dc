//! Disk images of ext4, made of files and read again, without root.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Outcome};
use crate::program::Program;

/// What is to be on a disk: a tree of links to the files themselves, which takes no room of its own.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    bytes: u64,
}

/// Room beside the files: tables, and what is written on the disk where it is used.
const SPARE_BYTES: u64 = 4 << 30;

impl Tree {
    /// An empty one, in a new directory.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(root: PathBuf) -> Outcome<Self> {
        fs::create_dir(&root).map_err(Failure::io(format!("make {}", root.display())))?;
        Ok(Self { root, bytes: 0 })
    }

    /// Adds a file with this content at `name`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, name: &str, content: &str) -> Outcome {
        let path = self.place(Path::new(name))?;
        self.bytes += 4096;
        fs::write(&path, content).map_err(Failure::io(format!("write {}", path.display())))
    }

    /// Adds a file, or a directory with all that is in it, at `name`.
    ///
    /// # Errors
    /// Something of it cannot be read or linked.
    pub fn add(&mut self, file: &Path, name: &Path) -> Outcome {
        let failed = |what: &str| Failure::io(format!("{what} {}", file.display()));
        let metadata = fs::symlink_metadata(file).map_err(failed("look at"))?;
        if metadata.is_dir() {
            for entry in fs::read_dir(file).map_err(failed("list"))? {
                let entry = entry.map_err(failed("list"))?;
                self.add(&entry.path(), &name.join(entry.file_name()))?;
            }
            return Ok(());
        }
        let path = self.place(name)?;
        self.bytes += std::os::unix::fs::MetadataExt::blocks(&metadata) * 512 + 4096;
        if metadata.is_symlink() {
            let to = fs::read_link(file).map_err(failed("read the link"))?;
            return std::os::unix::fs::symlink(to, &path).map_err(failed("link"));
        }
        // Another file system: a copy, with its holes.
        if fs::hard_link(file, &path).is_err() {
            Program::new("cp")
                .args([
                    "--preserve=mode,timestamps",
                    "--sparse=always",
                    "--reflink=auto",
                    "--",
                ])
                .args([file, &path])
                .read()?;
        }
        Ok(())
    }

    /// Makes the image, and removes the tree.
    ///
    /// # Errors
    /// `mkfs.ext4` fails.
    pub fn into_image(self, image: &Path) -> Outcome {
        make(
            image,
            self.bytes + self.bytes / 8 + SPARE_BYTES,
            Some(&self.root),
        )?;
        fs::remove_dir_all(&self.root)
            .map_err(Failure::io(format!("remove {}", self.root.display())))
    }

    fn place(&self, name: &Path) -> Outcome<PathBuf> {
        let path = self.root.join(name.strip_prefix("/").unwrap_or(name));
        let above = path.parent().expect("it lies below the root");
        fs::create_dir_all(above).map_err(Failure::io(format!("make {}", above.display())))?;
        Ok(path)
    }
}

/// Makes an image of `bytes`, empty or with the files of a directory.
///
/// # Errors
/// `mkfs.ext4` fails.
pub fn make(image: &Path, bytes: u64, from: Option<&Path>) -> Outcome {
    let file = File::create(image).map_err(Failure::io(format!("make {}", image.display())))?;
    file.set_len(bytes)
        .map_err(Failure::io(format!("size {}", image.display())))?;
    let mut program = Program::new("mkfs.ext4").args([
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1",
    ]);
    if let Some(from) = from {
        program = program.args(["-d"]).args([from]);
    }
    program.args([image]).read().map(drop)
}

/// Copies one file out of an image.
///
/// # Errors
/// It is not there, or cannot be written.
pub fn read_file(image: &Path, file: &str, to: &Path) -> Outcome {
    // debugfs succeeds whatever happens.
    let said = debugfs(image, &format!("dump {file} {}", quoted(to)?))?;
    let length = fs::metadata(to).map(|metadata| metadata.len());
    if matches!(length, Ok(length) if length > 0) {
        Ok(())
    } else {
        Err(Failure::Check(format!(
            "read {file} of {}: {said}",
            image.display()
        )))
    }
}

/// Copies all files out of an image into a directory.
///
/// # Errors
/// `debugfs` does not start.
pub fn read_all(image: &Path, to: &Path) -> Outcome {
    debugfs(image, &format!("rdump / {}", quoted(to)?)).map(drop)
}

fn debugfs(image: &Path, request: &str) -> Outcome<String> {
    let said = Program::new("debugfs")
        .args(["-R", request])
        .args([image])
        .say()?;
    Ok(said.stderr)
}

/// A path as debugfs reads it: it splits words, and takes quotes.
fn quoted(path: &Path) -> Outcome<String> {
    let text = path.display().to_string();
    if text.contains(['"', '\n']) {
        return Err(Failure::Refused(format!(
            "{text:?} is no name that debugfs can read"
        )));
    }
    Ok(format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_into_an_image_and_come_out_again() {
        if crate::host::find_program("mkfs.ext4").is_none() {
            eprintln!("skipped: mkfs.ext4 is missing");
            return;
        }
        let directory = std::env::temp_dir().join(format!("box disk {}", std::process::id()));
        fs::create_dir_all(directory.join("out")).expect("a directory can be made");
        let source = directory.join("source");
        fs::write(&source, "brought").expect("a file can be written");
        let mut tree = Tree::new(directory.join("tree")).expect("the directory is new");
        tree.write("box/command", "true\n")
            .expect("the tree is ours");
        tree.add(&source, Path::new("/at/some/place"))
            .expect("the file is there");
        let image = directory.join("image");
        tree.into_image(&image).expect("an image is made");
        let copy = directory.join("copy");
        read_file(&image, "/at/some/place", &copy).expect("the file is on it");
        let missing = read_file(&image, "/nothing", &directory.join("missing"));
        read_all(&image, &directory.join("out")).expect("the image can be read");
        let texts = [
            fs::read_to_string(copy).expect("it was copied"),
            fs::read_to_string(directory.join("out/box/command")).expect("it was copied"),
        ];
        fs::remove_dir_all(&directory).expect("the directory is ours");
        assert_eq!(texts, ["brought", "true\n"]);
        assert!(missing.is_err());
    }
}
