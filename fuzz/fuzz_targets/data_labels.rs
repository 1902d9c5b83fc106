//! An idx file of labels, next to one of 4 images.

#![no_main]

use libfuzzer_sys::fuzz_target;

/// 4 images of 1×1 pixels.
const IMAGES: [u8; 20] = [0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 1, 10, 20, 30, 40];

fuzz_target!(|bytes: &[u8]| {
    glowflow_fuzz::file("idx/train-images-idx3-ubyte", &IMAGES);
    let path = glowflow_fuzz::file("idx/train-labels-idx1-ubyte", bytes);
    glowflow_fuzz::read_dataset(path.parent().expect("the folder"));
});
