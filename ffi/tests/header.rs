//! Keeps `include/replcore.h` what the sources say.

#[test]
fn the_checked_in_header_is_what_the_sources_make() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::generate_with_config(folder, config).unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    // The heading is for rustdoc and its lints; a reader of C has no use for it.
    let made = String::from_utf8(made).unwrap().replace(" # Safety\n", " Asks of the caller:\n");
    let path = folder.join("../include/replcore.h");
    if std::env::var_os("REPLCORE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        made == checked_in,
        "include/replcore.h is not what ffi/src makes; run\n    \
         REPLCORE_WRITE_HEADER=1 cargo test -p replcore-ffi --test header\nand look at the changes"
    );
}

#[test]
fn the_soname_has_the_number_of_the_abi_also_when_cargo_c_installs_it() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = std::fs::read_to_string(folder.join("../include/replcore.h")).unwrap();
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let abi = header.lines().find_map(|line| line.strip_prefix("#define REPLCORE_ABI ")).unwrap();
    let (_, library) = manifest.split_once("[package.metadata.capi.library]").unwrap();
    assert!(library.contains(&format!("version = \"{abi}.0.0\"")), "ABI {abi}: {library}");
}
