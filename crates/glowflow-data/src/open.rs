//! From a path to datasets: recognises what lies there and opens it.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::folder::ImageFolder;
use crate::memory::{Halves, InMemory};
use crate::{Dataset, Error, ImageShape, cifar, idx, image_file, npy, npz, scan};

/// How to open data.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// The shape every image is brought to, or `None` to take images as they are: an image folder
    /// then has the shape of its first readable image.
    pub shape: Option<ImageShape>,
    /// Whether classes are needed. An image folder then takes the names of its sub-folders; data
    /// without labels is an error. Other data has its labels in any case.
    pub labels: bool,
    /// The classes in label order where they are fixed beforehand, say by the training data or a trained model;
    /// empty to take them from the data. An image folder then has these; of other data the classes
    /// must be the first of them.
    pub classes: Vec<String>,
    /// Bytes of decoded images that an image folder may keep in memory.
    pub cache_bytes: usize,
}

impl Default for OpenOptions {
    /// Images as they are, no classes, 2 GiB of decoded images.
    fn default() -> Self {
        Self { shape: None, labels: false, classes: Vec::new(), cache_bytes: 2 << 30 }
    }
}

/// What data consists of.
#[derive(Clone)]
pub struct Splits {
    /// The training images, or all images where the data has no test set of its own.
    pub train: Arc<dyn Dataset>,
    /// The test images, where the data has its own.
    pub test: Option<Arc<dyn Dataset>>,
    /// Facts about the data that a user should see, such as files left out, one sentence each.
    pub notices: Vec<String>,
}

/// Opens the images at `path`, which may be
///
/// - a folder with the CIFAR-10 binaries (or with `cifar-10-batches-bin` in it) or one such file,
/// - a folder with MNIST-style files `train-images-idx3-ubyte`, … (also `.gz`) or one idx file,
/// - an `.npy` file of uint8, shaped (N, height, width) or (N, height, width, channels),
/// - an `.npz` file with such an array, and with labels in an array `labels` or `y`, or with
///   `x_train`, `y_train`, `x_test` and `y_test`,
/// - any other folder: its PNG, JPEG, WebP and BMP files, at any depth,
/// - one image file.
///
/// Files are recognised by content. Broken images of a folder do not fail here: they are found when
/// they are read and listed by [`Dataset::broken`].
///
/// ```
/// use glowflow_data::{ImageShape, OpenOptions, open, save_png};
///
/// let folder = tempfile::tempdir()?;
/// let wide = ImageShape { height: 2, width: 4, channels: 1 };
/// save_png(&folder.path().join("a.png"), wide, &[0, 10, 20, 30, 40, 50, 60, 70])?;
///
/// let square = ImageShape { height: 2, width: 2, channels: 3 };
/// let data = open(folder.path(), &OpenOptions { shape: Some(square), ..Default::default() })?;
/// let mut pixels = vec![0; square.len()];
/// data.train.read(0, &mut pixels)?;
/// assert_eq!(pixels, [10, 10, 10, 20, 20, 20, 50, 50, 50, 60, 60, 60]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(path: &Path, options: &OpenOptions) -> Result<Splits, Error> {
    if let Some(shape) = options.shape {
        shape.check()?;
    }
    let failed = |reason| Error::Read { path: path.to_owned(), reason };
    let is_folder = fs::metadata(path).map_err(failed)?.is_dir();
    let splits = if is_folder { open_folder(path, options)? } else { open_file(path, options)? };
    if options.labels && splits.train.classes().is_empty() {
        return Err(Error::NoLabels(path.to_owned()));
    }
    Ok(splits)
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Splits, Error> {
    if let Some(folder) = cifar::Folder::find(path) {
        return in_memory(path, folder.read()?, Some(folder.classes()), options);
    }
    if let Some(folder) = idx::Folder::find(path) {
        return in_memory(path, folder.read()?, None, options);
    }
    let folder = ImageFolder::open(path, options)?;
    Ok(Splits { train: Arc::new(folder), test: None, notices: Vec::new() })
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Splits, Error> {
    let failed = |reason| Error::Read { path: path.to_owned(), reason };
    let mut head = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(16).read_to_end(&mut head).map_err(failed)?;

    let halves = if head.starts_with(npy::MAGIC) {
        (npy::read(path)?, None)
    } else if head.starts_with(b"PK") {
        npz::read(path)?
    } else if image_file::format_of(&head).is_some() || scan::has_image_extension(path) {
        let image = ImageFolder::single(path, options)?;
        return Ok(Splits { train: Arc::new(image), test: None, notices: Vec::new() });
    } else if cifar::is_binary(path) {
        let classes = cifar::standard_classes();
        return in_memory(path, cifar::read_file(path)?, Some(classes), options);
    } else if head.starts_with(&[0, 0]) || head.starts_with(idx::GZIP) {
        (idx::read_images(path)?, None)
    } else {
        return Err(Error::UnknownKind {
            path: path.to_owned(),
            found: format!("“{}”", head.escape_ascii()),
        });
    };
    in_memory(path, halves, None, options)
}

/// Classes without names are numbered.
fn in_memory(
    path: &Path,
    (train, test): Halves,
    classes: Option<Vec<String>>,
    options: &OpenOptions,
) -> Result<Splits, Error> {
    let shape = options.shape.unwrap_or(train.shape);
    let mut classes = classes.unwrap_or_else(|| {
        let test_labels = test.iter().flat_map(|test| &test.labels);
        numbered_classes(train.labels.iter().chain(test_labels))
    });
    if options.labels && !options.classes.is_empty() && !classes.is_empty() {
        let known = options.classes.clone();
        if !known.starts_with(&classes) {
            let (found, known) = (classes.join(", "), known.join(", "));
            return Err(Error::OtherClasses { path: path.to_owned(), found, known });
        }
        classes = known;
    }
    let dataset = |images| -> Arc<dyn Dataset> { Arc::new(InMemory::new(images, shape, classes.clone())) };
    Ok(Splits { train: dataset(train), test: test.map(dataset), notices: Vec::new() })
}

/// Class names for labels that are only numbers: `0`, `1`, … up to the largest that occurs.
fn numbered_classes<'a>(labels: impl Iterator<Item = &'a usize>) -> Vec<String> {
    let count = labels.max().map_or(0, |&largest| largest + 1);
    (0..count).map(|label| label.to_string()).collect()
}
