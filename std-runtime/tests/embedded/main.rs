//! The same leaf machine under other drivers than tokio, against a real hub: a C program on a plain
//! file, Python under asyncio, and firmware in an emulated microcontroller on a bad serial line.

mod c_abi;
mod c_leaf;
#[path = "../common/mod.rs"]
mod common;
mod firmware;
mod noise;
mod python;
mod relay;
mod tools;
