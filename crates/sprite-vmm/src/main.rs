//! `sprite-vmm`: one process that runs one machine.

fn main() {}
