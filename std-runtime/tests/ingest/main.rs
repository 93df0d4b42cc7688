//! Folders and streams of lines, over a node that answers from memory, and over real nodes.

#[path = "../common/mod.rs"]
mod common;
#[path = "../support/mod.rs"]
mod support;

mod folder;
mod lines;
mod nodes;
