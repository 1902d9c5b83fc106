//! Helpers shared by the tests: shapes, generated images, and reading a whole dataset.

use std::path::Path;
use std::sync::Arc;

use glowflow_data::{Dataset, ImageShape, OpenOptions, Splits, open, save_png};

pub const fn shape(height: usize, width: usize, channels: usize) -> ImageShape {
    ImageShape { height, width, channels }
}

/// Pixels that differ between positions and between seeds.
pub fn pattern(shape: ImageShape, seed: usize) -> Vec<u8> {
    (0..shape.len()).map(|i| (seed * 37 + i * 11 + i / 7) as u8).collect()
}

pub fn open_default(path: &Path) -> Splits {
    open(path, &OpenOptions::default()).unwrap()
}

pub fn open_as(path: &Path, shape: ImageShape) -> Splits {
    open(path, &OpenOptions { shape: Some(shape), ..Default::default() }).unwrap()
}

/// The message of the error that opening must return.
pub fn open_error(path: &Path) -> String {
    match open(path, &OpenOptions::default()) {
        Ok(_) => panic!("{} should not open", path.display()),
        Err(error) => error.to_string(),
    }
}

pub fn read(dataset: &dyn Dataset, index: usize) -> Vec<u8> {
    let mut pixels = vec![0; dataset.shape().len()];
    dataset.read(index, &mut pixels).unwrap();
    pixels
}

/// A folder of `count` PNG images of pattern 0, 1, …
pub fn numbered_folder(count: usize, shape: ImageShape) -> (tempfile::TempDir, Arc<dyn Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..count {
        save_png(&folder.path().join(format!("{i:04}.png")), shape, &pattern(shape, i)).unwrap();
    }
    let dataset = open_default(folder.path()).train;
    (folder, dataset)
}

/// Writes an image and creates its parent folders.
pub fn save(folder: &Path, name: impl AsRef<Path>, seed: usize) {
    let (path, shape) = (folder.join(name), shape(4, 6, 3));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    save_png(&path, shape, &pattern(shape, seed)).unwrap();
}

/// Writes a file and creates its parent folders.
pub fn write(folder: &Path, name: impl AsRef<Path>, contents: impl AsRef<[u8]>) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, contents).unwrap();
}

/// The names of the images, in order.
pub fn names(dataset: &dyn Dataset) -> Vec<String> {
    (0..dataset.len()).map(|image| dataset.name(image)).collect()
}
