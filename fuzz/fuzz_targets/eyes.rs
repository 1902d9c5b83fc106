//! Positions of the eyes, `eyes.toml`.

#![no_main]

use glowflow::faces::{self, EYES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file(&format!("eyes/{EYES}"), bytes);
    let _ = faces::read(path.parent().expect("the folder"));
});
