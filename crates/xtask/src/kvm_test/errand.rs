//! One program taken to where KVM is: on this computer if it lends its virtualization, else in the box.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::{Failure, Outcome};
use crate::host::{Consent, Host, target_directory};
use crate::kvm_test::emulator::Terminal;
use crate::kvm_test::outer::Outer;
use crate::kvm_test::visit::{IMAGE_CACHE, Visit, timed};
use crate::kvm_test::{Place, native};
use crate::program::Program;
use crate::server::Build;

/// A program that needs root, KVM, a network of its own and the cache of guest systems.
#[derive(Debug)]
pub struct Errand {
    /// The program.
    pub program: PathBuf,
    /// Its words. Behind them it gets the cache, and the name of the file that it is to write.
    pub words: Vec<PathBuf>,
    /// Files and directories that it reads; all of them below the target directory.
    pub reads: Vec<PathBuf>,
    /// What it writes, without a directory.
    pub writes: &'static str,
    /// How long the box may take for it.
    pub within: Duration,
}

/// What an errand brought home.
#[derive(Debug)]
pub struct Brought {
    /// What the program wrote.
    pub file: PathBuf,
    /// Whether it ran in the box, where processors are emulated.
    pub emulated: bool,
}

impl Errand {
    /// Runs it, and gives back what it wrote.
    ///
    /// # Errors
    /// It ends without success, or the box does not come back.
    pub fn run(&self, host: &Host, place: Place, consent: Consent) -> Outcome<Brought> {
        let obstacle = match place {
            Place::Best => native::reluctance(),
            Place::Box | Place::Shell => Some("asked for".to_owned()),
        };
        match obstacle {
            None => {
                eprintln!("on this computer's own KVM");
                let file = self.here(host, consent)?;
                Ok(Brought {
                    file,
                    emulated: false,
                })
            }
            Some(why) => {
                eprintln!("in the box: {why}");
                let file = self.in_box(host, consent)?;
                Ok(Brought {
                    file,
                    emulated: true,
                })
            }
        }
    }

    fn here(&self, host: &Host, consent: Consent) -> Outcome<PathBuf> {
        let step =
            "virtual machines run in a network namespace of their own, and are gone at the end"
                .to_owned();
        host.agree(&[step], consent)?;
        let written = target_directory().join(self.writes);
        host.as_root(self.command(&written))?.run()?;
        Ok(written)
    }

    fn in_box(&self, host: &Host, consent: Consent) -> Outcome<PathBuf> {
        let outer = timed("outer system", || Outer::ready(host, consent))?;
        let mut visit = Visit::prepare(&outer)?;
        visit.place(&target_directory());
        visit.bring(&self.program)?;
        for file in &self.reads {
            visit.bring(file)?;
        }
        timed("images", || {
            visit.bring_images(host, &Build::Debug.directory().join("sprited"))
        })?;
        let there = Path::new("/results").join(self.writes);
        let command = format!("{}\n", self.command(&there).shown());
        let returned = visit.go(&command, Terminal::Repeated, self.within)?;
        match returned.status {
            0 => Ok(returned.results.join(self.writes)),
            status => Err(Failure::Check(format!(
                "{} ended with {status}",
                self.program.display()
            ))),
        }
    }

    fn command(&self, written: &Path) -> Program {
        Program::new("unshare")
            .args(["--net", "--"])
            .args([&self.program])
            .args(&self.words)
            .args([Path::new(IMAGE_CACHE), written])
    }
}
