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
