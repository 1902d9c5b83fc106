//! The idx format of MNIST and its relatives, plain or compressed with gzip.
//!
//! A file is two zero bytes, the element type (8 for unsigned bytes), the number of dimensions, each
//! dimension as a big-endian 32-bit number, and then the elements. Images have the dimensions
//! N, height, width and perhaps channels; labels have the one dimension N.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::memory::{Halves, RawImages};
use crate::{Error, elements};

/// How every gzip file begins.
pub(crate) const GZIP: &[u8] = &[0x1F, 0x8B];

/// The files of an MNIST-style folder.
pub(crate) struct Folder {
    /// Those named `train-…`; those named `t10k-…` where there is nothing else.
    train: Files,
    /// Those named `t10k-…`, where they are there beside others.
    test: Option<Files>,
}

impl Folder {
    /// Looks for `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`, also
    /// with a dot before `idx` and with `.gz` at the end.
    pub fn find(folder: &Path) -> Option<Self> {
        let halves = ["train", "t10k"].map(|half| Files::find(folder, half));
        let mut halves = halves.into_iter().flatten();
        Some(Self { train: halves.next()?, test: halves.next() })
    }

    /// Reads all files.
    pub fn read(&self) -> Result<Halves, Error> {
        let test = self.test.as_ref().map(Files::read).transpose()?;
        Ok((self.train.read()?, test))
    }
}

/// One half of a folder.
struct Files {
    images: PathBuf,
    labels: Option<PathBuf>,
}

impl Files {
    fn find(folder: &Path, half: &str) -> Option<Self> {
        let find = |what: &str, kind: &str| {
            let names = ["-", "."].map(|dash| format!("{half}-{what}{dash}{kind}-ubyte"));
            let names = names.into_iter().flat_map(|name| [format!("{name}.gz"), name]);
            names.map(|name| folder.join(name)).find(|path| path.is_file())
        };
        Some(Self { images: find("images", "idx3")?, labels: find("labels", "idx1") })
    }

    fn read(&self) -> Result<RawImages, Error> {
        let mut images = read_images(&self.images)?;
        if let Some(path) = &self.labels {
            let (_, labels) = read(path, &[1])?;
            let count = images.pixels.len() / images.shape.len();
            if labels.len() != count {
                return Err(Error::Malformed {
                    path: path.clone(),
                    problem: format!(
                        "{} labels for the {count} images of {}; fetch both files again",
                        labels.len(),
                        self.images.display()
                    ),
                });
            }
            images.labels = labels.into_iter().map(usize::from).collect();
        }
        Ok(images)
    }
}

/// Reads an idx file of images, without labels.
pub(crate) fn read_images(path: &Path) -> Result<RawImages, Error> {
    let (dimensions, pixels) = read(path, &[3, 4])?;
    let shape = elements::images_shape(&dimensions)
        .map_err(|problem| Error::Malformed { path: path.to_owned(), problem })?;
    Ok(RawImages { shape, pixels, labels: Vec::new() })
}

/// Opens a file and, where it is gzip, unpacks it as it is read.
fn open_unpacked(path: &Path) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(File::open(path)?);
    Ok(if file.fill_buf()?.starts_with(GZIP) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// Dimensions and elements of an idx file whose number of dimensions is one of `ranks`.
fn read(path: &Path, ranks: &[u8]) -> Result<(Vec<usize>, Vec<u8>), Error> {
    let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
    let cut_short =
        |error: io::Error| malformed(format!("cut short or damaged ({error}); fetch the file again"));
    let mut file = open_unpacked(path).map_err(|reason| Error::Read { path: path.to_owned(), reason })?;
    let mut word = || {
        let mut bytes = [0; 4];
        file.read_exact(&mut bytes).map(|()| bytes)
    };

    let magic = word().map_err(cut_short)?;
    let [0, 0, 8, rank] = magic else {
        return Err(malformed(format!(
            "begins with {magic:02x?}, where an idx file of unsigned bytes has [00, 00, 08, \
             dimensions]; convert it to bytes"
        )));
    };
    if !ranks.contains(&rank) {
        return Err(malformed(format!(
            "has {rank} dimensions where {ranks:?} are possible; see that images and labels are not mixed up"
        )));
    }
    let mut dimensions = Vec::new();
    for _ in 0..rank {
        dimensions.push(u32::from_be_bytes(word().map_err(cut_short)?) as usize);
    }

    let elements = elements::read(file, &dimensions, 1).map_err(malformed)?;
    Ok((dimensions, elements))
}
