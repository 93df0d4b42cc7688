//! The `replcore` program.

fn main() {}
