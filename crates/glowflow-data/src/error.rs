//! Errors between a path and a batch, each with advice.

use std::io;
use std::path::{Path, PathBuf};

use crate::ImageShape;
use crate::retry::is_transient;

/// An error while opening, reading, splitting or writing data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder is missing or may not be read.
    #[error("cannot read {path}: {reason}; check that it exists and is readable", path = .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        #[source]
        reason: io::Error,
    },

    /// The operating system failed to read a file that may be intact, for example because it ran out of file
    /// descriptors or memory, or because a network drive is unavailable.
    #[error("cannot read {path}: {source}", path = .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// An image could not be written.
    #[error("cannot write {path}: {reason}; check that the folder exists and the disk has space", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system or the encoder.
        reason: String,
    },

    /// A folder contains no image files.
    #[error(
        "no images in {path}: a folder should contain .png, .jpg, .jpeg, .webp or .bmp files (at any \
         depth), CIFAR-10 .bin files or MNIST idx files",
        path = .0.display()
    )]
    EmptyFolder(PathBuf),

    /// A folder contains only files that cannot be read as images.
    #[error("no images in {path} can be read: {found}", path = .path.display())]
    NothingReadable {
        /// The folder.
        path: PathBuf,
        /// Its contents, and advice.
        found: String,
    },

    /// A file has an unknown format.
    #[error(
        "{path} begins with {found}: not an image (PNG, JPEG, WebP, BMP), an idx file, an .npy or \
         .npz array or a CIFAR-10 .bin file; give one of these or a folder of images",
        path = .path.display()
    )]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// Its first bytes.
        found: String,
    },

    /// The contents of a CIFAR-10, idx, npy or npz file are invalid.
    #[error("{path}: {problem}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The problem, and advice.
        problem: String,
    },

    /// An unsupported image shape.
    #[error(
        "unsupported image shape {0} (height×width×channels): both sides must be 1 to 32768 \
         pixels, and channels 1 (grey) or 3 (RGB)"
    )]
    Shape(ImageShape),

    /// A buffer does not have the size of exactly one image.
    #[error("got {found} bytes for an image of {shape}, which has {expected}", expected = .shape.len())]
    PixelCount {
        /// The image's shape.
        shape: ImageShape,
        /// Bytes given.
        found: usize,
    },

    /// One image of a dataset cannot be read. The others can.
    #[error("broken image {name}: {reason}")]
    BrokenImage {
        /// Its name in the dataset.
        name: String,
        /// The reason for the failure.
        reason: String,
    },

    /// Both eyes of a face have the same position, so no image can be aligned to them.
    #[error("the eyes {0:?} have the same position; give two positions, as fractions of width and height")]
    SamePlace([[f64; 2]; 2]),

    /// Bytes in memory that are not a readable image.
    #[error("the picture cannot be read: {reason}; supported formats are PNG, JPEG, WebP and BMP")]
    NoImage {
        /// The problem with them.
        reason: String,
    },

    /// No image of a dataset can be read.
    #[error("all {images} images are broken; the first is {name}: {reason}; replace the files")]
    AllBroken {
        /// Number of images.
        images: usize,
        /// Name of the first of them.
        name: String,
        /// The reason why that one cannot be read.
        reason: String,
    },

    /// Classes were requested, but the data has none.
    #[error(
        "{path} has no labels: classes come from sub-folders of an image folder, a labels file \
         next to idx images, or an array `labels` in an .npz; add them, or do without classes",
        path = .0.display()
    )]
    NoLabels(PathBuf),

    /// A sub-folder is not among the given classes.
    #[error(
        "{file} is of class `{class}`, which is not among the known classes \
         ({known}); move or rename its folder"
    )]
    UnknownClass {
        /// An image of that class.
        file: String,
        /// The sub-folder's name.
        class: String,
        /// The given classes.
        known: String,
    },

    /// The test images have a class that the training images lack.
    #[error(
        "{file} is a test image of class `{class}`, and no training image is of that class; the training \
         images have the classes {known}; add training images of `{class}`, or remove it from the test images"
    )]
    UntrainedClass {
        /// An image of that class.
        file: String,
        /// The sub-folder's name.
        class: String,
        /// The classes of the training images.
        known: String,
    },

    /// The classes of a file do not match the given ones.
    #[error(
        "the classes of {} are {found}; they must be the first of the known classes {known}",
        path.display()
    )]
    OtherClasses {
        /// The file or folder.
        path: PathBuf,
        /// Its classes.
        found: String,
        /// The given classes.
        known: String,
    },

    /// An image is outside the class folders.
    #[error(
        "{0} is in no sub-folder, so it has no class; move it into the folder of its class, or do without \
         classes"
    )]
    OutsideClasses(String),

    /// A test fraction that leaves no image for training or none for testing.
    #[error(
        "a test fraction of {fraction} of {images} images leaves the training or the test set empty; \
         give another number between 0 and 1, such as 0.1"
    )]
    Fraction {
        /// The requested fraction.
        fraction: f64,
        /// The number of images to split.
        images: usize,
    },

    /// A batch of no images.
    #[error("the batch size must be at least 1, got 0 (train.batch)")]
    EmptyBatch,

    /// Fewer images than one batch.
    #[error(
        "{images} training images are fewer than one batch of {batch_size}; set a smaller \
         train.batch, or add images"
    )]
    TooFewImages {
        /// Number of images.
        images: usize,
        /// Images per batch.
        batch_size: usize,
    },

    /// A shift that is negative, not a number, or more than half the image.
    #[error(
        "invalid shift of {0}: it must be a fraction of the image's size, between 0 and 0.5, such as 0.1"
    )]
    Shift(f64),
}

impl Error {
    /// A failure to read `path`: [`Error::System`] if it may be transient, else [`Error::Read`].
    pub(crate) fn of_reading(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match is_transient(&error) {
            true => Self::System { path, source: error },
            false => Self::Read { path, reason: error },
        }
    }

    /// Returns whether a retry may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::System { .. })
    }

    /// Turns this error of one image into that of all `images`.
    pub(crate) fn of_all(self, images: usize) -> Self {
        match self {
            Self::BrokenImage { name, reason } => Self::AllBroken { images, name, reason },
            other => other,
        }
    }
}
