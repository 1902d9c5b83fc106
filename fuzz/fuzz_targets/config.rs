//! A configuration, `config.toml`. A valid one can be written and read again.

#![no_main]

use glowflow::train::{CONFIG, RunConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file(CONFIG, bytes);
    let _ = RunConfig::read(&path);
    if let Ok(config) = RunConfig::resolve(None, Some(&path), &[]) {
        let text = config.to_toml().expect("a valid configuration is written");
        let copy = glowflow_fuzz::file("copy.toml", text.as_bytes());
        RunConfig::resolve(None, Some(&copy), &[]).expect("a written configuration is read");
    }
});
