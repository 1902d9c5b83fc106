//! Everything that can go wrong between a path and a batch, each with its way out.

use std::io;
use std::path::{Path, PathBuf};

use crate::ImageShape;
use crate::retry::is_passing;

/// Why data could not be opened, read, divided or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder is missing or may not be read.
    #[error("cannot read {path}: {reason}; check that it exists and may be read", path = .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },

    /// The operating system failed to read a file that may be sound, for want of file descriptors or
    /// memory, say, or because a network drive is away.
    #[error("cannot read {path}: {source}", path = .path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },

    /// An image could not be written.
    #[error("cannot write {path}: {reason}; check that the folder exists and has room", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system or the encoder said.
        reason: String,
    },

    /// A folder has nothing in it that looks like an image.
    #[error(
        "no images in {path}: a folder should hold .png, .jpg, .jpeg, .webp or .bmp files (at any \
         depth), CIFAR-10 .bin files or MNIST idx files",
        path = .0.display()
    )]
    EmptyFolder(PathBuf),

    /// A folder has only files that cannot be read as images.
    #[error("no images in {path} that can be read: {found}", path = .path.display())]
    NothingReadable {
        /// The folder.
        path: PathBuf,
        /// What is in it instead, and the way out.
        found: String,
    },

    /// A file is of no known kind.
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

    /// The contents of a CIFAR-10, idx, npy or npz file are not what they should be.
    #[error("{path}: {problem}", path = .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what would be right.
        problem: String,
    },

    /// A shape that no image of ours can have.
    #[error(
        "images of {0} (height×width×channels) are not possible: both sides must be 1 to 32768 \
         pixels, and channels 1 (grey) or 3 (RGB)"
    )]
    Shape(ImageShape),

    /// A buffer does not have room for exactly one image.
    #[error("{found} bytes given for an image of {shape}, which takes {expected}", expected = .shape.len())]
    PixelCount {
        /// The image's shape.
        shape: ImageShape,
        /// Bytes given.
        found: usize,
    },

    /// One image of a dataset cannot be read. The others can.
    #[error("broken image {name}: {reason}")]
    BrokenImage {
        /// What the dataset calls it.
        name: String,
        /// Why it cannot be read.
        reason: String,
    },

    /// Both eyes of a face are given at one place, so no picture can be aligned to them.
    #[error("the eyes {0:?} are at the same place; give two places, as fractions of width and height")]
    SamePlace([[f64; 2]; 2]),

    /// Bytes in memory that are no image that can be read.
    #[error("no picture that can be read: {reason}; PNG, JPEG, WebP and BMP can")]
    NoImage {
        /// What is wrong with them.
        reason: String,
    },

    /// Not one image of a dataset can be read.
    #[error("all {images} images are broken; the first is {name}: {reason}; replace the files")]
    AllBroken {
        /// How many there are.
        images: usize,
        /// The first of them.
        name: String,
        /// Why that one cannot be read.
        reason: String,
    },

    /// Classes were asked for and the data has none.
    #[error(
        "{path} has no labels: classes come from sub-folders of an image folder, a labels file \
         beside idx images, or an array `labels` in an .npz; add them, or do without classes",
        path = .0.display()
    )]
    NoLabels(PathBuf),

    /// A sub-folder is not among the classes that were fixed beforehand.
    #[error(
        "{file} is of class `{class}`, which is not among the known classes \
         ({known}); move or rename its folder"
    )]
    UnknownClass {
        /// An image of that class.
        file: String,
        /// The sub-folder's name.
        class: String,
        /// The classes there are.
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

    /// The classes of a file are not those that were known.
    #[error(
        "the classes of {} are {found}; the known classes are {known}, of which they must be the first",
        path.display()
    )]
    OtherClasses {
        /// The file or folder.
        path: PathBuf,
        /// Its classes.
        found: String,
        /// The classes there are.
        known: String,
    },

    /// An image lies outside the class folders.
    #[error(
        "{0} lies in no sub-folder, so it has no class; move it into the folder of its class, or do without \
         classes"
    )]
    OutsideClasses(String),

    /// A fraction that leaves nothing to train on or nothing to test on.
    #[error(
        "a test fraction of {fraction} of {images} images does not leave images on both sides; \
         give a number between 0 and 1, such as 0.1, that does"
    )]
    Fraction {
        /// The fraction asked for.
        fraction: f64,
        /// The number of images to divide.
        images: usize,
    },

    /// A batch of no images.
    #[error("a batch size of 0 is not possible; give 1 or more (train.batch)")]
    EmptyBatch,

    /// Fewer images than one batch takes.
    #[error(
        "{images} training images are fewer than one batch of {batch_size}; set a smaller \
         train.batch, or add images"
    )]
    TooFewImages {
        /// Number of images.
        images: usize,
        /// Images a batch takes.
        batch_size: usize,
    },

    /// A shift that is negative, not a number or more than half the image.
    #[error(
        "a shift of {0} is not possible: it is a fraction of the image's size, between 0 and 0.5, such as 0.1"
    )]
    Shift(f64),
}

impl Error {
    /// A failure to read `path`, which says something about it only if it does not pass.
    pub(crate) fn of_reading(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        match is_passing(&error) {
            true => Self::System { path, source: error },
            false => Self::Read { path, reason: error },
        }
    }

    /// Whether a second try may succeed.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::System { .. })
    }

    /// This error of one image as that of all `images`.
    pub(crate) fn of_all(self, images: usize) -> Self {
        match self {
            Self::BrokenImage { name, reason } => Self::AllBroken { images, name, reason },
            other => other,
        }
    }
}
