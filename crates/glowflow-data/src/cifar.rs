//! CIFAR-10 in its official binary format.
//!
//! A file is a sequence of records of 3,073 bytes: the label (0 to 9), then 32×32 pixels in planes: red,
//! green, blue. `batches.meta.txt` lists the class names, one per line.

use std::fs;
use std::path::{Path, PathBuf};

use crate::leftovers::{agree, counted};
use crate::listing::files_of;
use crate::memory::{Halves, RawImages};
use crate::retry::{is_transient, with_retries};
use crate::{Error, ImageShape};

const SHAPE: ImageShape = ImageShape { height: 32, width: 32, channels: 3 };
const PLANE: usize = 32 * 32;
const RECORD: usize = 1 + 3 * PLANE;
/// CIFAR-100 has two labels per record.
const RECORD_OF_100: usize = 2 + 3 * PLANE;
/// Images per official file.
const OFFICIAL: u64 = 10_000;

const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The files of a CIFAR-10 folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// `data_batch_*.bin` in order; `test_batch.bin` if there are no other files.
    train: Vec<PathBuf>,
    /// `test_batch.bin`, if there are training files too.
    test: Option<PathBuf>,
}

impl Folder {
    /// Searches `folder` and its `cifar-10-batches-bin`.
    pub fn find(folder: &Path) -> Result<Option<Self>, Error> {
        match Self::find_in(folder)? {
            None => Self::find_in(&folder.join("cifar-10-batches-bin")),
            found => Ok(found),
        }
    }

    fn find_in(folder: &Path) -> Result<Option<Self>, Error> {
        let is_batch = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("data_batch_") && name.ends_with(".bin")
        };
        let mut train: Vec<PathBuf> = files_of(folder)?.into_iter().filter(is_batch).collect();
        let mut test = Some(folder.join("test_batch.bin")).filter(|path| path.is_file());
        if train.is_empty() {
            train.extend(test.take());
        }
        Ok((!train.is_empty()).then(|| Self { path: folder.to_owned(), train, test }))
    }

    /// The files to read.
    pub fn files(&self) -> Vec<&Path> {
        self.train.iter().chain(&self.test).map(PathBuf::as_path).collect()
    }

    /// Reads all files.
    pub fn read(&self) -> Result<Halves, Error> {
        let test = self.test.iter().map(|path| read([path])).next();
        Ok((read(&self.train)?, test.transpose()?))
    }

    /// Describes the files that hold fewer images than the official ones.
    pub fn incomplete(&self) -> Option<String> {
        let images = |path: &&PathBuf| Some(path.metadata().ok()?.len() / RECORD as u64);
        let other = |path: &&PathBuf| images(path) != Some(OFFICIAL);
        let files: Vec<&PathBuf> = self.train.iter().chain(&self.test).filter(other).collect();
        let first = files.first()?;
        Some(format!(
            "{} {} incomplete: {} has {}, not {OFFICIAL}",
            counted(files.len(), "CIFAR-10 file"),
            agree(files.len(), "is", "are"),
            first.file_name().unwrap_or_default().display(),
            counted(usize::try_from(images(first)?).ok()?, "image")
        ))
    }

    /// Class names in label order.
    pub fn classes(&self) -> Vec<String> {
        let listed = fs::read_to_string(self.path.join("batches.meta.txt")).unwrap_or_default();
        let listed: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
        if listed.len() == CLASSES.len() { listed } else { standard_classes() }
    }
}

/// The official class names.
pub(crate) fn standard_classes() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

/// Returns whether a file is named like a CIFAR-10 binary.
pub(crate) fn is_binary(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("bin"))
}

/// Reads one file.
pub(crate) fn read_file(path: &Path) -> Result<Halves, Error> {
    Ok((read([path])?, None))
}

/// Reads several files and concatenates their images.
fn read(files: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<RawImages, Error> {
    let mut images = RawImages { shape: SHAPE, pixels: Vec::new(), labels: Vec::new() };
    for path in files {
        let path = path.as_ref();
        let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
        // A long file of another kind is rejected before it is read.
        let len =
            with_retries(is_transient, || path.metadata()).map_err(|error| Error::of_reading(path, error))?;
        check_length(len.len()).map_err(malformed)?;
        let bytes = with_retries(is_transient, || fs::read(path));
        let bytes = bytes.map_err(|error| Error::of_reading(path, error))?;
        check_length(bytes.len() as u64).map_err(malformed)?;
        images.pixels.reserve_exact(bytes.len() / RECORD * SHAPE.len());
        for (number, record) in bytes.chunks_exact(RECORD).enumerate() {
            let label = usize::from(record[0]);
            if label >= CLASSES.len() {
                return Err(malformed(format!(
                    "record {number} has the label {label}, but CIFAR-10 has labels 0 to 9; check \
                     that the file is the binary version of CIFAR-10"
                )));
            }
            images.labels.push(label);
            for i in 1..=PLANE {
                let pixel = [record[i], record[i + PLANE], record[i + 2 * PLANE]];
                images.pixels.extend_from_slice(&pixel);
            }
        }
    }
    Ok(images)
}

/// Checks the length of a file; the error states the problem.
fn check_length(len: u64) -> Result<(), String> {
    let holds = |record: usize| len > 0 && len.is_multiple_of(record as u64);
    if holds(RECORD) {
        Ok(())
    } else if holds(RECORD_OF_100) {
        Err(format!(
            "{len} bytes are a whole number of CIFAR-100 records of {RECORD_OF_100}, which are not supported; \
             convert the images to an .npz file or to PNG files"
        ))
    } else {
        Err(format!(
            "{len} bytes are not a whole number of CIFAR-10 records of {RECORD}; download the file again, and \
             check that it is the binary version of CIFAR-10"
        ))
    }
}
