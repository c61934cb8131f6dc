//! Rewrites `openapi/sprited.json` from the code.

use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../openapi/sprited.json");
    std::fs::write(path, sprite_server::document())
}
