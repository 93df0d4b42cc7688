//! The `replcore` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    replcore_runtime::cli::main()
}
