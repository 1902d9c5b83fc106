//! `serve`.

use std::process::ExitCode;

use crate::args;

pub fn serve(args: &args::Serve) -> anyhow::Result<ExitCode> {
    let _ = args;
    Ok(ExitCode::SUCCESS)
}
