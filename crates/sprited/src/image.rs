//! `sprited image`: base images.

use std::path::Path;

use sprite_disk::Progress;
use sprite_disk::image::{self, Built, Recipe, Variant};

use crate::cli::{ImageBuildFlags, ImageCacheFlags};
use crate::failure::Failure;
use crate::progress::Lines;

/// The recipe that a person names.
pub(crate) fn recipe(source: &str) -> Result<Recipe, Failure> {
    let made = match source {
        "default" => Recipe::debian(Variant::Default),
        "minimal" => Recipe::debian(Variant::Minimal),
        other => match other.strip_prefix("tar:") {
            Some(path) => Recipe::tar(Path::new(path)),
            None => {
                return Err(Failure::plain(format!("no image is called {other:?}"))
                    .hint("use default, minimal, or tar:PATH"));
            }
        },
    };
    made.map_err(|error| Failure::new("read what the image is made of", &error))
}

/// The image of a recipe, made if the cache does not have it.
pub(crate) fn make(
    recipe: &Recipe,
    cache: &Path,
    progress: &dyn Progress,
) -> Result<Built, Failure> {
    image::build(recipe, cache, progress)
        .map_err(|error| Failure::new(format!("make base image {}", recipe.describe()), &error))
}

pub(crate) fn build(flags: &ImageBuildFlags) -> Result<(), Failure> {
    let built = make(
        &recipe(&flags.from)?,
        &flags.cache.image_cache,
        &Lines::default(),
    )?;
    println!("{}", built.id);
    Ok(())
}

pub(crate) fn list(flags: &ImageCacheFlags) -> Result<(), Failure> {
    let cache = &flags.image_cache;
    let images = match image::cached(cache) {
        Ok(images) => images,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Failure::new(format!("list {}", cache.display()), &error)),
    };
    for image in images {
        println!(
            "{}  {:>6} MiB  {}",
            image.id,
            image.used_bytes >> 20,
            image.description
        );
    }
    Ok(())
}
