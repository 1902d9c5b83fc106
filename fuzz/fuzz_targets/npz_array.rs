//! Arrays in an npz archive with correct checksums: images, and labels from the second `\x93NUMPY` on.

#![no_main]

use glowflow_import::Checkpoint;
use libfuzzer_sys::fuzz_target;

const MAGIC: &[u8] = b"\x93NUMPY";

fuzz_target!(|bytes: &[u8]| {
    let second = bytes.windows(MAGIC.len()).skip(1).position(|window| window == MAGIC);
    let (images, labels) = bytes.split_at(second.map_or(bytes.len(), |at| at + 1));
    let mut entries = vec![("images.npy", images)];
    if !labels.is_empty() {
        entries.push(("labels.npy", labels));
    }
    let path = glowflow_fuzz::file("arrays.npz", &glowflow_fuzz::archive(&entries));
    glowflow_fuzz::read_dataset(&path);
    let _ = Checkpoint::read(&path);
});
