//! The first program of a guest that only prints: the floor of booting one.

fn main() {
    println!("{}", sprite_bench::talk::PRINTED);
    loop {
        // The kernel panics when its first program ends.
        std::thread::park();
    }
}
