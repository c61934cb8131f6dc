//! Rewrites the documents below `openapi/` from the code.

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi");
    std::fs::write(directory.join("sprited.json"), sprite_server::document())?;
    std::fs::write(
        directory.join("inside.json"),
        sprite_server::document_inside(),
    )?;
    std::fs::write(
        directory.join("streams.json"),
        sprite_server::document_of_streams(),
    )
}
