//! The `faceid` program.

fn main() {}
