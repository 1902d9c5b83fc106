//! A model card, `config.json`.

#![no_main]

use glowflow::card::{CONFIG_JSON, Card};
use glowflow::train::{evaluated, run_folder, trained};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file(&format!("card/{CONFIG_JSON}"), bytes);
    let folder = run_folder(&path);
    let _ = Card::read(folder);
    trained(folder);
    evaluated(folder);
});
