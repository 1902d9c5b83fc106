//! A study, as TOML.

#![no_main]

use glowflow::study::{Overrides, Study};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("study.toml", bytes);
    if let Ok(study) = Study::read(&path, Overrides::default()) {
        study.to_toml().expect("a valid study is written");
    }
});
