//! The least that a program can do: the floor of starting one.

fn main() {}
