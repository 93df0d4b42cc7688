//! The Python package: its own tests, run with the daemon and the library of this build. See
//! `ffi/python`.

use std::process::Command;

use crate::tools::{build_folder, has, leave_out, root, run};

#[test]
fn the_python_package_passes_its_tests_against_the_real_daemon() {
    if !has("python3") {
        return leave_out("the Python package", "python3");
    }
    let folder = build_folder();
    run(Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["build", "--quiet", "--package", "replcore-ffi", "--target-dir"])
        .arg(folder.parent().unwrap()));
    let library = if cfg!(target_os = "macos") { "libreplcore.dylib" } else { "libreplcore.so" };
    let package = root().join("ffi/python");
    // Everything that Python itself warns of is shown, and what is never awaited fails.
    run(Command::new("python3")
        .current_dir(package.join("tests"))
        .args(["-W", "error", "-m", "unittest", "discover"])
        .env("PYTHONPATH", package.join("src"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("REPLCORE_LIBRARY", folder.join("../debug").join(library))
        .env("REPLCORE_PROGRAM", env!("CARGO_BIN_EXE_replcore")));
}
