//! The program `glowflow`.

use std::process::ExitCode;

fn main() -> ExitCode {
    glowflow_cli::run(std::env::args_os()).into()
}
