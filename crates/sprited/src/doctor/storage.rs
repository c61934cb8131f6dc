//! Room and tools: the pool, the base image, what makes them.

use sprite_disk::image::{self, Recipe};
use sprite_disk::{Backing, Prospect, ToolError};

use super::check::{Check, told};
use crate::config::Config;
use crate::image::recipe;

/// Less than this is told before it is too little: a base image, and the first work of a few sprites.
const COMFORTABLE: u64 = 10 << 30;

pub(super) fn look(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut missing = Vec::new();
    match Prospect::of(&config.data_dir) {
        Ok(prospect) => {
            checks.push(pool(&prospect));
            for obstacle in &prospect.obstacles {
                checks.push(Check::problem(
                    "pool",
                    obstacle.to_string(),
                    obstacle.remedy(),
                ));
            }
            missing.extend(prospect.missing);
        }
        Err(_) if !rustix::process::geteuid().is_root() => checks.push(Check::unseen("pool")),
        Err(error) => checks.push(Check::problem(
            "pool",
            told(&error),
            "choose another place with --data-dir",
        )),
    }
    match recipe(&config.image) {
        Ok(recipe) => {
            let (made, check) = base_image(&recipe, config);
            checks.push(check);
            if !made {
                missing.extend(image::missing_tools(&recipe));
            }
        }
        Err(failure) => checks.push(Check::problem(
            "base image",
            failure.to_string().trim_end().replace('\n', "; "),
            "choose another with --image",
        )),
    }
    checks.push(tools(&missing));
    checks
}

fn pool(prospect: &Prospect) -> Check {
    const NAME: &str = "pool";
    let what = match (prospect.backing, prospect.made) {
        (Backing::Directory, _) => "the data directory itself, whose file system shares blocks",
        (Backing::File, true) => "an XFS file, mounted",
        (Backing::File, false) => {
            "will be an XFS file, mounted, because the file system there does not share blocks"
        }
    };
    let free = prospect.space.pool_free.min(prospect.space.outer_free);
    let found = format!("{what}; {} GiB free", free >> 30);
    match prospect.space.shortage() {
        Some(shortage) => Check::problem(
            NAME,
            shortage.to_string(),
            "free some space, or choose another disk with --data-dir",
        ),
        None if free < COMFORTABLE => Check::warning(
            NAME,
            found,
            "free some space: a base image takes about 1 GiB, a sprite what it writes",
        ),
        None => Check::ok(NAME, found),
    }
}

fn base_image(recipe: &Recipe, config: &Config) -> (bool, Check) {
    const NAME: &str = "base image";
    let id = recipe.id();
    // A cache that cannot be read is like an empty one: the image may be made again.
    let cached = image::cached(&config.image_cache).unwrap_or_default();
    let made = cached.iter().any(|image| image.id == id);
    let found = if made {
        format!("{}, made", recipe.describe())
    } else {
        format!(
            "{}, made at the first start, which takes some minutes and the network",
            recipe.describe()
        )
    };
    (made, Check::ok(NAME, found))
}

fn tools(missing: &[ToolError]) -> Check {
    const NAME: &str = "tools";
    if missing.is_empty() {
        return Check::ok(NAME, "all that is needed is installed");
    }
    let (mut names, mut packages) = (Vec::new(), Vec::new());
    for error in missing {
        match error {
            ToolError::Missing { tool, package } => {
                if !names.contains(tool) {
                    names.push(tool);
                }
                if !packages.contains(package) {
                    packages.push(package);
                }
            }
            // Nothing was run.
            ToolError::Run { .. } | ToolError::Failed { .. } => {}
        }
    }
    Check::problem(
        NAME,
        format!("missing: {}", names.join(", ")),
        format!("apt-get install {}", packages.join(" ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use sprite_disk::Space;

    fn prospect(free: u64) -> Prospect {
        let total = 100 << 30;
        Prospect {
            backing: Backing::File,
            made: true,
            space: Space {
                pool_total: total,
                pool_free: total,
                outer_total: total,
                outer_free: free,
            },
            missing: Vec::new(),
            obstacles: Vec::new(),
        }
    }

    #[test]
    fn little_room_is_told_before_it_is_too_little() {
        for (free, word) in [(50 << 30, "Ok"), (9 << 30, "Warning"), (1 << 30, "Problem")] {
            let check = format!("{:?}", pool(&prospect(free)));
            assert!(check.contains(&format!("verdict: {word}")), "{check}");
        }
    }

    #[test]
    fn missing_tools_are_one_line_to_type() {
        let missing = |tool, package| ToolError::Missing { tool, package };
        let check = tools(&[
            missing("mkfs.ext4", "e2fsprogs"),
            missing("resize2fs", "e2fsprogs"),
            missing("mmdebstrap", "mmdebstrap"),
            missing("mkfs.ext4", "e2fsprogs"),
        ]);
        let check = format!("{check:?}");
        assert!(
            check.contains("missing: mkfs.ext4, resize2fs, mmdebstrap"),
            "{check}"
        );
        assert!(
            check.contains("apt-get install e2fsprogs mmdebstrap\""),
            "{check}"
        );
    }
}
