//! Compiles the migrations in again when one is added: the macro that embeds them sees only those it knew.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
