//! A checkpoint of another program: PyTorch's formats, safetensors or npz, as a model of each program.

#![no_main]

use glowflow_import::{Checkpoint, Settings, Source, import};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("checkpoint", bytes);
    let Ok(checkpoint) = Checkpoint::read(&path) else { return };
    let given = Settings { image: Some([32, 32]), bits: Some(8), permutation: None };
    for source in Source::ALL {
        for settings in [Settings::default(), given] {
            if let Ok(imported) = import(checkpoint.clone(), source, &settings) {
                let _ = imported.model();
            }
        }
    }
});
