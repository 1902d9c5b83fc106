//! A checkpoint of a run. Its checksum is mandatory, so mutations reach the header and the tensors' metadata.

#![no_main]

use glowflow::train::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let path = glowflow_fuzz::file(checkpoint::CHECKPOINT, bytes);
    let _ = checkpoint::load(&path);
});
