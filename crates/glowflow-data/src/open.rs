//! Opens a path as datasets: detects the format of the data.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::file_kind::FileKind;
use crate::folder::ImageFolder;
use crate::leftovers::{agree, counted};
use crate::memory::{Halves, InMemory};
use crate::names::name_of;
use crate::retry::{is_transient, with_retries};
use crate::scan::{Found, has_image_extension, head_of, scan};
use crate::{Dataset, Error, ImageShape, archive, cifar, folder_splits, idx, image_file, impostor, npy, npz};

/// Options of [`open`].
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    /// The shape to fit every image to, or `None` to keep images as stored: an image folder then has the
    /// shape of its first readable image.
    pub shape: Option<ImageShape>,
    /// True if classes are required. An image folder then takes the names of its sub-folders, and data
    /// without labels is an error. Other data has its labels in either case.
    pub labels: bool,
    /// The classes in label order if they are given, for example by the training data or a trained model;
    /// empty to take them from the data. An image folder then has these; other data must have a prefix of
    /// them.
    pub classes: Vec<String>,
    /// Bytes of decoded images that an image folder may cache, for data that is read repeatedly; 0 disables
    /// the cache.
    pub cache_bytes: usize,
    /// The name of a file that marks the folder of a training run, if there may be runs inside a folder of
    /// images. Images in such folders are left out.
    pub run_marker: Option<&'static str>,
}

/// The datasets found at a path.
#[derive(Clone)]
pub struct Splits {
    /// The training images, or all images if the data has no test set.
    pub train: Arc<dyn Dataset>,
    /// The test images, if the data has its own.
    pub test: Option<Arc<dyn Dataset>>,
    /// Remarks on the data for the user, such as files left out, one sentence each.
    pub notices: Vec<String>,
}

impl Splits {
    fn with_notices(mut self, notices: Vec<String>) -> Self {
        self.notices.extend(notices);
        self
    }
}

/// Opens the images at `path`, which may be
///
/// - a folder with the CIFAR-10 binaries (or with `cifar-10-batches-bin` in it) or one such file,
/// - a folder with MNIST-style files `train-images-idx3-ubyte`, … (also `.gz`, and with the name of a
///   set in front, as EMNIST has them) or one idx file,
/// - an `.npy` file of integers from 0 to 255, shaped (N, height, width) or (N, height, width, channels),
/// - an `.npz` file with such an array, and with labels in an array `labels` or `y`, or with training
///   and test sets such as `x_train`, `y_train`, `x_test` and `y_test` or `train_images`, …,
/// - any other folder: its PNG, JPEG, WebP and BMP files, at any depth; if some of them are in a folder
///   `train` and others in `test` or `val`, these are the training and the test images,
/// - a single image file.
///
/// Formats are detected by content. Other files of a folder are reported in [`Splits::notices`]. Broken
/// images of a folder are not an error here: they are detected when they are read and listed by
/// [`Dataset::broken`].
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
    let metadata = with_retries(is_transient, || fs::metadata(path));
    let kind = metadata.map_err(|error| Error::of_reading(path, error))?.file_type();
    let splits = if kind.is_dir() {
        open_folder(path, options)?
    } else if kind.is_file() {
        open_file(path, options)?
    } else {
        // A pipe would block, and can be read only once.
        let problem = "is a pipe or a device; give a file or a folder".to_owned();
        return Err(Error::Malformed { path: path.to_owned(), problem });
    };
    if options.labels && splits.train.classes().is_empty() {
        return Err(Error::NoLabels(path.to_owned()));
    }
    Ok(splits)
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Splits, Error> {
    let found = scan(path, options.run_marker)?;
    match (cifar::Folder::find(path)?, idx::Folder::find(path)?) {
        (None, None) => folder_splits::open(path, found, options),
        (Some(_), Some(_)) => Err(Error::Malformed {
            path: path.to_owned(),
            problem: "holds CIFAR-10 files and idx files; keep each in a folder of its own".into(),
        }),
        (Some(folder), None) => {
            let splits = in_memory(path, folder.read()?, Some(folder.classes()), options)?;
            let mut splits = report_other_images(splits, path, &found, "CIFAR-10", &folder.files());
            splits.notices.extend(folder.incomplete());
            Ok(splits)
        }
        (None, Some(folder)) => {
            let (halves, notices) = folder.read(options.labels)?;
            let splits = in_memory(path, halves, None, options)?.with_notices(notices);
            Ok(report_other_images(splits, path, &found, "idx", &folder.files()))
        }
    }
}

/// Adds a remark on the contents of the folder `root` other than the images of the kind `what`, read from
/// `used`.
fn report_other_images(mut splits: Splits, root: &Path, found: &Found, what: &str, used: &[&Path]) -> Splits {
    if let Some(first) = found.images.first() {
        let others = agree(found.images.len(), "it", "them");
        let own = agree(found.images.len(), "its", "their");
        let read = splits.train.len() + splits.test.as_ref().map_or(0, |test| test.len());
        splits.notices.push(format!(
            "reading the {}; {} {} ignored, such as {}. Move {others} to a folder of {own} own to use {others}",
            counted(read, &format!("{what} image")),
            counted(found.images.len(), "image file"),
            agree(found.images.len(), "is", "are"),
            name_of(first)
        ));
    }
    let used: Vec<&Path> = used.iter().filter_map(|file| file.strip_prefix(root).ok()).collect();
    splits.notices.extend(found.leftovers.notices(&used));
    splits
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Splits, Error> {
    let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
    let (head, len) = with_retries(is_transient, || Ok((head_of(path)?, path.metadata()?.len())))
        .map_err(|error| Error::of_reading(path, error))?;
    let kind = FileKind::of(path, &head, len);

    let mut notices = vec![];
    let halves = if head.starts_with(npy::MAGIC) {
        let images;
        (images, notices) = npy::read(path)?;
        (images, None)
    } else if head.starts_with(b"PK") {
        if let Some(problem) = archive::zip_without_arrays(path) {
            return Err(malformed(problem));
        }
        let halves;
        (halves, notices) = npz::read(path, options.labels)?;
        halves
    } else if image_file::format_of(&head).is_some() || has_image_extension(path) {
        let image = ImageFolder::single(path, options)?;
        return Ok(Splits { train: Arc::new(image), test: None, notices: Vec::new() });
    } else if let Some(what) = impostor(&head).filter(|_| kind != FileKind::OtherImage("SVG image")) {
        return Err(malformed(format!("is {what}")));
    } else if archive::is_tar(path) {
        return Err(malformed("is a tar archive: unpack it and give the folder".into()));
    } else if cifar::is_binary(path) {
        let classes = cifar::standard_classes();
        return in_memory(path, cifar::read_file(path)?, Some(classes), options);
    } else if let Some(refusal) = kind.refusal() {
        return Err(malformed(format!("is {refusal}")));
    } else if head.starts_with(&[0, 0]) || head.starts_with(idx::GZIP) {
        (idx::read_images(path)?, None)
    } else {
        let found = format!("“{}”", head[..head.len().min(16)].escape_ascii());
        return Err(Error::UnknownKind { path: path.to_owned(), found });
    };
    Ok(in_memory(path, halves, None, options)?.with_notices(notices))
}

/// Opens images in memory. Classes without names are numbered.
fn in_memory(
    path: &Path,
    (train, test): Halves,
    classes: Option<Vec<String>>,
    options: &OpenOptions,
) -> Result<Splits, Error> {
    let shape = options.shape.unwrap_or(train.shape);
    let all_labels = || train.labels.iter().chain(test.iter().flat_map(|test| &test.labels));
    let mut notices = vec![];
    if let (None, true, Some(least @ 1..)) = (&classes, options.labels, all_labels().min()) {
        notices.push(format!("labels start at {least}: no image is of class 0"));
    }
    let mut classes = classes.unwrap_or_else(|| numbered_classes(all_labels()));
    let labelled = test.as_ref().map(|test| !test.labels.is_empty());
    let problem = match (!train.labels.is_empty(), labelled.filter(|_| options.labels)) {
        (true, Some(false)) => Some(
            "the test images have no labels, but the training images do; add labels, or give the training \
             images alone",
        ),
        (false, Some(true)) => Some(
            "the training images have no labels, but the test images do; add labels, or do without classes",
        ),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(Error::Malformed { path: path.to_owned(), problem: problem.into() });
    }
    if options.labels && !options.classes.is_empty() && !classes.is_empty() {
        let known = options.classes.clone();
        if !known.starts_with(&classes) {
            let (found, known) = (classes.join(", "), known.join(", "));
            return Err(Error::OtherClasses { path: path.to_owned(), found, known });
        }
        classes = known;
    }
    let dataset = |images| -> Arc<dyn Dataset> { Arc::new(InMemory::new(images, shape, classes.clone())) };
    Ok(Splits { train: dataset(train), test: test.map(dataset), notices })
}

/// Names for numeric classes: `0`, `1`, … up to the largest label.
fn numbered_classes<'a>(labels: impl Iterator<Item = &'a usize>) -> Vec<String> {
    let count = labels.max().map_or(0, |&largest| largest + 1);
    (0..count).map(|label| label.to_string()).collect()
}
