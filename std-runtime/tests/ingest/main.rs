//! Folders and streams of lines, over a node that answers from memory.

#[path = "../support/mod.rs"]
mod support;

mod folder;
mod lines;
