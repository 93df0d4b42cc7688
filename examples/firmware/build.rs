//! Chooses the board by the target, and puts the linker's view of its memory where the linker looks
//! for it.
use std::{env, fs, path::PathBuf};

const BOARDS: [(&str, &str); 4] = [
    ("thumbv6m-none-eabi", "microbit"),
    ("thumbv7m-none-eabi", "lm3s6965"),
    ("thumbv7em-none-eabihf", "mps2"),
    ("riscv32imac-unknown-none-elf", "virt"),
];

fn main() {
    let target = env::var("TARGET").unwrap();
    let board = BOARDS.iter().find(|board| board.0 == target);
    let Some((_, board)) = board else { panic!("no board for {target}; there are {BOARDS:?}") };
    let ethernet = env::var_os("CARGO_FEATURE_ETHERNET").is_some();
    assert!(!ethernet || *board == "mps2", "of the boards only mps2 has Ethernet here");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    fs::copy(format!("memory/{board}.x"), out.join("memory.x")).unwrap();
    println!(
        "cargo:rustc-check-cfg=cfg(board, values(\"microbit\", \"lm3s6965\", \"mps2\", \"virt\"))"
    );
    println!("cargo:rustc-cfg=board=\"{board}\"");
    println!("cargo:rustc-link-search={}", out.display());
    println!("cargo:rustc-link-arg-bins=--nmagic");
    // Functions with the same code are one.
    println!("cargo:rustc-link-arg-bins=--icf=all");
    if *board == "virt" {
        println!("cargo:rustc-link-arg-bins=-Tmemory.x");
    }
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    println!("cargo:rerun-if-changed=memory/{board}.x");
}
