//! Parts that fuzz targets share: files for functions that read paths, archives with correct checksums, and
//! reading of datasets.

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use glowflow_data::{OpenOptions, open};
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A run of the first format of files, without checksums: 16×16 images, 2 levels, 2 steps, hidden 4.
pub const RUN: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/glowflow-cli/tests/fixtures/first_format/run");

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("no temporary folder"));

/// Writes a file in a folder of this process and returns its path. `name` may contain folders. An existing
/// file of that name is overwritten.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    fs::create_dir_all(path.parent().expect("a file has a parent")).expect("the folder cannot be created");
    fs::write(&path, bytes).expect("the file cannot be written");
    path
}

/// A zip archive of stored entries, with their checksums.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut zip = ZipWriter::new(Cursor::new(vec![]));
    for (name, contents) in entries {
        zip.start_file(*name, stored).expect("a valid name");
        zip.write_all(contents).expect("memory can be written");
    }
    zip.finish().expect("memory can be written").into_inner()
}

/// Opens the data at `path`, without and with labels, and reads its first images.
pub fn read_dataset(path: &Path) {
    for labels in [false, true] {
        let Ok(splits) = open(path, &OpenOptions { labels, ..OpenOptions::default() }) else { continue };
        for dataset in [Some(splits.train), splits.test].into_iter().flatten() {
            for index in 0..dataset.len().min(4) {
                let mut pixels = vec![0; dataset.shape().len()];
                let _ = dataset.read(index, &mut pixels);
                let label = dataset.label(index);
                assert!(label.is_none_or(|label| label < dataset.classes().len()), "label {label:?}");
            }
        }
    }
}

/// Restores the panic hook, which libFuzzer's has replaced by one that ends the process. Panics that the
/// library catches, such as those of image decoders, then do not count as findings; all others do.
pub fn allow_caught_panics() {
    drop(std::panic::take_hook());
}
