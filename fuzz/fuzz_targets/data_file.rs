//! A file of images, whose format is detected: npy, npz, idx, gzip, archives and images.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: glowflow_fuzz::allow_caught_panics(), |bytes: &[u8]| {
    let path = glowflow_fuzz::file("data", bytes);
    glowflow_fuzz::read_dataset(&path);
});
