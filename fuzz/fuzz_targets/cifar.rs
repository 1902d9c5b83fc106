//! A CIFAR-10 binary, alone and in a folder with class names.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file("cifar/data_batch_1.bin", bytes);
    glowflow_fuzz::read_dataset(&path);
    let names = &bytes[..bytes.len().min(200)];
    let path = glowflow_fuzz::file("cifar/batches.meta.txt", names);
    glowflow_fuzz::read_dataset(path.parent().expect("the folder"));
});
