//! A model file. A valid one can be written and read again.

#![no_main]

use glowflow::ModelFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("model.safetensors", bytes);
    if let Ok(model) = ModelFile::read(&path) {
        let copy = path.with_file_name("copy.safetensors");
        model.write(&copy).expect("a valid model is written");
        let copy = ModelFile::read(&copy).expect("a written model is read");
        assert_eq!(copy.fingerprint(), model.fingerprint());
    }
});
