//! Latents of images.

#![no_main]

use glowflow::latents_file::LatentsFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("pictures.latents", bytes);
    let _ = LatentsFile::read(&path);
    if let Ok(file) = LatentsFile::read_edited(&path) {
        assert!(file.latents.0.iter().all(|level| level.shape()[0] == file.images.len()));
    }
});
