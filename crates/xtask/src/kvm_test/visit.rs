//! One visit to the box: what is brought, what is done there, and what is taken home.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Outcome};
use crate::host::{Host, Privilege, find_program, target_directory};
use crate::kvm_test::disk::{self, Tree};
use crate::kvm_test::emulator::{self, End, Lane, Terminal};
use crate::kvm_test::outer::Outer;
use crate::program::Program;

const START: &str = include_str!("start.sh");

/// Of a visit's time, what is kept for its beginning and its end: reports of a command that took too long come home.
const ENDING: Duration = Duration::from_secs(90);

/// What `timeout` ends with when the time was over. Source: timeout(1).
const TIME_OVER: i32 = 124;

/// Room for what is taken home; only what is written takes any.
const TAKEN_BYTES: u64 = 4 << 30;

/// Room for data of servers; only what is written takes any.
const DATA_BYTES: u64 = 32 << 30;

/// Where the server looks for finished base images, and for guest systems.
pub const IMAGE_CACHE: &str = "/var/cache/sprited";

/// Certificates that this computer's administrator trusts. They are part of a base image, so the box has them too.
const LOCAL_CERTIFICATES: &str = "/usr/local/share/ca-certificates";

/// A visit in preparation.
pub struct Visit<'a> {
    outer: &'a Outer,
    work: Work,
    tree: Tree,
    /// Directories that are in the box where they are on this computer.
    places: Vec<PathBuf>,
}

/// What came of a visit.
#[derive(Debug)]
pub struct Returned {
    /// How the command ended.
    pub status: i32,
    /// What was taken home of one box: its `/results`, and its console.
    pub results: PathBuf,
}

/// A directory for disks and links, gone with the visit.
struct Work(PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Where what visits took home is kept, each in the place of the one before it.
pub fn results() -> PathBuf {
    target_directory().join("box/results")
}

impl<'a> Visit<'a> {
    /// Begins to pack.
    ///
    /// # Errors
    /// No directory can be made for it.
    pub fn prepare(outer: &'a Outer) -> Outcome<Self> {
        let above = target_directory().join("box");
        fs::create_dir_all(&above).map_err(Failure::io(format!("make {}", above.display())))?;
        sweep(&above)?;
        let work = above.join(format!("visit-{}", std::process::id()));
        fs::create_dir(&work).map_err(Failure::io(format!("make {}", work.display())))?;
        let work = Work(work);
        let tree = Tree::new(work.0.join("brought"))?;
        Ok(Self {
            outer,
            work,
            tree,
            places: Vec::new(),
        })
    }

    /// Makes a directory of this computer one of the box's, at the same place; it holds what is brought of it.
    pub fn place(&mut self, directory: &Path) {
        if !self.places.iter().any(|place| directory.starts_with(place)) {
            self.places.push(directory.to_owned());
        }
    }

    /// Brings a file or a whole directory, which must lie below a [`Visit::place`].
    ///
    /// # Errors
    /// It cannot be read.
    pub fn bring(&mut self, file: &Path) -> Outcome {
        debug_assert!(self.places.iter().any(|place| file.starts_with(place)));
        let below = file.strip_prefix("/").unwrap_or(file);
        self.tree.add(file, &Path::new("at").join(below))
    }

    /// Brings a program of this computer into the box's `/mnt/box`.
    ///
    /// # Errors
    /// It is not there.
    pub fn bring_program(&mut self, name: &str) -> Outcome {
        let program = find_program(name)
            .ok_or_else(|| Failure::Refused(format!("{name} is not installed")))?;
        let program = fs::canonicalize(&program)
            .map_err(Failure::io(format!("look at {}", program.display())))?;
        self.tree.add(&program, &Path::new("box").join(name))
    }

    /// Brings a file into the box's `/mnt/box` under another name; where it is there.
    ///
    /// # Errors
    /// It is not there.
    pub fn bring_file(&mut self, file: &Path, name: &str) -> Outcome<PathBuf> {
        self.tree.add(file, &Path::new("box").join(name))?;
        Ok(Path::new("/mnt/box").join(name))
    }

    /// Brings a text as a file of the box's `/mnt/box`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&mut self, name: &str, text: &str) -> Outcome {
        self.tree.write(&format!("box/{name}"), text)
    }

    /// Brings the minimal base image and the guest system, made on this computer, where it takes a minute instead of
    /// ten. A user who cannot become root leaves that to the server in the box.
    ///
    /// # Errors
    /// They cannot be made, or copied.
    pub fn bring_images(&mut self, host: &Host, sprited: &Path) -> Outcome {
        let certificates = Path::new(LOCAL_CERTIFICATES);
        if certificates.exists() {
            self.place(certificates);
            self.bring(certificates)?;
        }
        if host.privilege == Privilege::None {
            return Ok(());
        }
        let build = Program::new(sprited).args(["image", "build", "--from", "minimal"]);
        let id = host.as_root(build)?.read()?;
        let image = ["ext4", "json"].map(|ending| format!("{}.{ending}", id.trim()));
        let copies = self.work.0.join("cache");
        fs::create_dir(&copies).map_err(Failure::io(format!("make {}", copies.display())))?;
        self.place(Path::new(IMAGE_CACHE));
        let guest = self.make_guest(host, sprited)?;
        for name in image.into_iter().chain(guest) {
            let copy = copies.join(&name);
            let cp = Program::new("cp")
                .args(["--recursive", "--preserve=timestamps"])
                .args(["--sparse=always", "--reflink=auto", "--"])
                .args([Path::new(IMAGE_CACHE).join(&name), copy.clone()]);
            host.as_root(cp)?.read()?;
            let own = Program::new("chown").args(["--recursive", "--reference"]);
            host.as_root(own.args([&copies, &copy]))?.read()?;
            let at = Path::new("at").join(IMAGE_CACHE.trim_start_matches('/'));
            self.tree.add(&copy, &at.join(&name))?;
        }
        Ok(())
    }

    /// Has the newest guest system made in the cache, and finds it there. Where this computer's distribution has no
    /// kernel for it, the one that an earlier run left does, or the server in the box makes one.
    fn make_guest(&self, host: &Host, sprited: &Path) -> Outcome<Option<String>> {
        let data = self.work.0.join("guest");
        let update = || {
            let update = Program::new(sprited).args(["guest", "update", "--data-dir"]);
            host.as_root(update.args([&data]))?.say()
        };
        let mut said = update()?;
        if !said.status.success() && find_program("apt-get").is_some() {
            // apt knows nothing before it was told to look.
            host.as_root(Program::new("apt-get").args(["update", "-q"]))?
                .say()?;
            said = update()?;
        }
        let rm = Program::new("rm").args(["-rf", "--one-file-system", "--"]);
        host.as_root(rm.args([&data]))?.read()?;
        if said.status.success() {
            let id = said.stdout.split_whitespace().next();
            return Ok(id.map(|id| format!("guest-{id}")));
        }
        eprintln!("no guest system was made here: {}", said.stderr.trim());
        newest_guest(host)
    }

    /// Goes there, has a shell run `command`, and comes back with `/results`.
    ///
    /// # Errors
    /// As [`emulator::run`]; or the box ended without saying how the command did. What could be saved is in
    /// [`results`].
    pub fn go(self, command: &str, terminal: Terminal, limit: Duration) -> Outcome<Returned> {
        let mut all = self.go_to_several(1, command, terminal, limit)?;
        all.pop().expect("one box was asked for")
    }

    /// Goes to several boxes side by side, has a shell run `command` in each, and comes back with what came of each
    /// of them. The command finds the box's number, from 1, as `$lane`.
    ///
    /// # Errors
    /// The visit cannot be packed.
    pub fn go_to_several(
        mut self,
        boxes: usize,
        command: &str,
        terminal: Terminal,
        limit: Duration,
    ) -> Outcome<Vec<Outcome<Returned>>> {
        self.describe(command, terminal, limit)?;
        let brought = self.work.0.join("brought.img");
        timed("pack", || self.tree.into_image(&brought))?;
        let all = results();
        match fs::remove_dir_all(&all) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io(format!("make room in {}", all.display()))(
                    error,
                ));
            }
            Ok(()) | Err(_) => {}
        }
        let lanes: Vec<Lane<'_>> = (1..=boxes)
            .map(|number| Lane {
                number,
                of: boxes,
                brought: &brought,
                work: self.work.0.join(number.to_string()),
            })
            .collect();
        let outer = self.outer;
        Ok(std::thread::scope(|scope| {
            let stays: Vec<_> = lanes
                .iter()
                .map(|lane| scope.spawn(|| stay(outer, lane, terminal, limit)))
                .collect();
            stays
                .into_iter()
                .map(|stay| stay.join().expect("a stay ends with its outcome"))
                .collect()
        }))
    }

    /// Packs what the box reads of the visit itself.
    fn describe(&mut self, command: &str, terminal: Terminal, limit: Duration) -> Outcome {
        self.tree.write("box/start", START)?;
        self.tree.write("box/command", command)?;
        match terminal {
            Terminal::Persons => self.tree.write("box/persons-terminal", "")?,
            Terminal::Repeated => {
                let seconds = limit.saturating_sub(ENDING).as_secs();
                self.tree.write("box/seconds", &seconds.to_string())?;
            }
        }
        let places: Vec<String> = self
            .places
            .iter()
            .map(|place| format!("{}\n", place.display()))
            .collect();
        self.tree.write("box/places", &places.concat())?;
        for place in &self.places {
            // Also one of which nothing is brought.
            let there = format!("at{}/.brought", place.display());
            self.tree.write(&there, "")?;
        }
        Ok(())
    }
}

/// One box, from its start to what it leaves in [`results`].
fn stay(outer: &Outer, lane: &Lane<'_>, terminal: Terminal, limit: Duration) -> Outcome<Returned> {
    let results = results().join(lane.number.to_string());
    let failed = || Failure::io(format!("keep {}", results.display()));
    fs::create_dir(&lane.work).map_err(Failure::io(format!("make {}", lane.work.display())))?;
    let start = || {
        disk::make(&lane.taken(), TAKEN_BYTES, None)?;
        let data = lane.data();
        fs::File::create(&data)
            .and_then(|file| file.set_len(DATA_BYTES))
            .map_err(Failure::io(format!("make {}", data.display())))?;
        timed(&format!("box {}", lane.number), || {
            emulator::run(outer, lane, terminal, limit)
        })
    };
    let mut ran = start();
    let gave_up = match ran {
        Ok(End::Still) => Some("processor stood still"),
        Ok(End::Off) if lane.panicked() => Some("kernel gave up"),
        Ok(End::Off) | Err(_) => None,
    };
    if let Some(gave_up) = gave_up {
        eprintln!(
            "FLAKY the emulated {gave_up} in box {}; once more:\n{}",
            lane.number,
            lane.last_lines()
        );
        ran = start();
    }
    fs::create_dir_all(&results).map_err(failed())?;
    disk::read_all(&lane.taken(), &results)?;
    fs::copy(lane.console(), results.join("console")).map_err(failed())?;
    if ran? == End::Still {
        return Err(Failure::Check(format!(
            "the emulated processor of box {} stood still twice",
            lane.number
        )));
    }
    let status = fs::read_to_string(results.join("status")).unwrap_or_default();
    match status.trim().parse() {
        Ok(status) => {
            if status == TIME_OVER {
                eprintln!("the time of the box was over: {} s", limit.as_secs());
            }
            Ok(Returned { status, results })
        }
        Err(_) => Err(Failure::Check(format!(
            "the box ended before its command did; its console ended with:\n{}",
            lane.last_lines()
        ))),
    }
}

/// The newest guest system of this computer's cache, if it has one.
fn newest_guest(host: &Host) -> Outcome<Option<String>> {
    let list = Program::new("find").args([IMAGE_CACHE, "-maxdepth", "1", "-type", "d"]);
    let list = list.args(["-name", "guest-*", "-printf", r"%T@ %f\n"]);
    let found = host.as_root(list)?.read()?;
    Ok(newest(&found))
}

/// The name of the line with the greatest time.
fn newest(found: &str) -> Option<String> {
    found
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, name)| !name.ends_with(".build"))
        .max_by(|(one, _), (other, _)| {
            let time = |text: &str| text.parse::<f64>().unwrap_or_default();
            time(one).total_cmp(&time(other))
        })
        .map(|(_, name)| name.to_owned())
}

/// Removes what visits left that were killed.
fn sweep(above: &Path) -> Outcome {
    let failed = || Failure::io(format!("clear {}", above.display()));
    for entry in fs::read_dir(above).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let name = entry.file_name();
        let Some(pid) = name
            .to_string_lossy()
            .strip_prefix("visit-")
            .map(str::to_owned)
        else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path()).map_err(failed())?;
        }
    }
    Ok(())
}

/// Does a step and says how long it took.
pub fn timed<T>(what: &str, step: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let begun = Instant::now();
    let done = step();
    eprintln!("{:>8.1} s  {what}", begun.elapsed().as_secs_f64());
    done
}

#[cfg(test)]
mod tests {
    use super::newest;

    #[test]
    fn of_several_guest_systems_the_newest_is_taken() {
        let found = "99.5 guest-a\n1795339251.25 guest-b\n1795339252.0 guest-c.build\n";
        assert_eq!(newest(found).as_deref(), Some("guest-b"));
        assert_eq!(newest(""), None);
    }
}
