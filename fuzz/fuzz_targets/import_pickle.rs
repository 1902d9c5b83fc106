//! The pickle of a PyTorch checkpoint, in an archive with correct checksums and one storage.

#![no_main]

use glowflow_import::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let storage = [0x3f; 256];
    let zip = glowflow_fuzz::archive(&[("archive/data.pkl", bytes), ("archive/data/0", &storage)]);
    let path = glowflow_fuzz::file("checkpoint.pt", &zip);
    if let Ok(checkpoint) = Checkpoint::read(&path) {
        assert!(!checkpoint.tensors.is_empty());
    }
});
