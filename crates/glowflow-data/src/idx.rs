//! The idx format of MNIST and its variants, plain or gzip-compressed.
//!
//! A file is two zero bytes, the element type (8 for unsigned bytes), the number of dimensions, each
//! dimension as a big-endian 32-bit integer, and then the elements. Images have the dimensions N, height,
//! width and optionally channels; labels have the single dimension N. EMNIST stores its images transposed;
//! files named `emnist…` are transposed back on read.

use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use crate::array_shape::image_shape;
use crate::idx_names::{Half, is_transposed, parse};
use crate::listing::files_of;
use crate::memory::{Halves, RawImages};
use crate::source::{Source, read_file};
use crate::{Error, elements};

/// Magic bytes of a gzip file.
pub(crate) const GZIP: &[u8] = &[0x1F, 0x8B];

/// The code of unsigned bytes.
const BYTES: u8 = 8;

/// The files of an MNIST-style folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// Sorted by the name of the set. A valid folder has exactly one.
    sets: Vec<Set>,
    files: Vec<PathBuf>,
}

/// The files of one set of images.
#[derive(Default)]
struct Set {
    name: String,
    train: Files,
    test: Files,
}

/// One half (training or test) of a set.
#[derive(Default)]
struct Files {
    images: Option<PathBuf>,
    labels: Option<PathBuf>,
}

impl Folder {
    /// Finds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k` or `test`, also
    /// with a dot before `idx`, with a final `.gz`, with the name of a set as prefix
    /// (`emnist-letters-train-…`), and in capitals.
    pub fn find(folder: &Path) -> Result<Option<Self>, Error> {
        let files = files_of(folder)?.into_iter();
        let mut found: Vec<_> = files.filter_map(|path| Some((parse(&path)?, path))).collect();
        // If a file exists in both forms, the plain one is read.
        found.sort_by_key(|(name, _)| name.compressed);
        let mut sets: Vec<Set> = vec![];
        let files = found.iter().map(|(_, path)| path.clone()).collect();
        for (name, path) in found {
            let at = sets.iter().position(|set| set.name == name.set).unwrap_or_else(|| {
                sets.push(Set { name: name.set.clone(), ..Set::default() });
                sets.len() - 1
            });
            let files = match name.half {
                Half::Train => &mut sets[at].train,
                Half::Test => &mut sets[at].test,
            };
            let file = if name.images { &mut files.images } else { &mut files.labels };
            file.get_or_insert(path);
        }
        sets.retain(|set| set.train.images.is_some() || set.test.images.is_some());
        sets.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((!sets.is_empty()).then(|| Self { path: folder.to_owned(), sets, files }))
    }

    /// The files of the folder that belong to its sets, both plain and compressed.
    pub fn files(&self) -> Vec<&Path> {
        self.files.iter().map(PathBuf::as_path).collect()
    }

    /// Reads all files and returns remarks for the user. `labels` states whether classes are required.
    pub fn read(&self, labels: bool) -> Result<(Halves, Vec<String>), Error> {
        let [set] = &*self.sets else {
            let names: Vec<&str> = self
                .sets
                .iter()
                .map(|set| if set.name.is_empty() { "one without a name" } else { &set.name })
                .collect();
            return Err(Error::Malformed {
                path: self.path.clone(),
                problem: format!(
                    "holds several sets of images ({}); move each into a folder of its own",
                    names.join(", ")
                ),
            });
        };
        let mut notices = vec![];
        let mut read = |files: &Files| {
            files.images.as_ref().map(|images| files.read(images, labels, &mut notices)).transpose()
        };
        let halves = match (read(&set.train)?, read(&set.test)?) {
            (Some(train), test) => (train, test),
            (None, Some(test)) => (test, None),
            (None, None) => return Err(Error::EmptyFolder(self.path.clone())),
        };
        Ok((halves, notices))
    }
}

impl Files {
    /// Reads images with their labels, if any; `needed` states whether they are required.
    fn read(&self, of: &Path, needed: bool, notices: &mut Vec<String>) -> Result<RawImages, Error> {
        let mut images = read_images(of)?;
        let Some(path) = &self.labels else { return Ok(images) };
        let malformed = |problem| Error::Malformed { path: path.clone(), problem };
        let count = images.pixels.len() / images.shape.len();
        let read = read_file(path, |file| {
            let mut file = unpacked(file).map_err(|error| Error::of_reading(path, error))?;
            let header = Header::read(&mut file).map_err(malformed)?;
            let is_labels = (header.element, header.dimensions.len()) == (BYTES, 1);
            let labels = match is_labels {
                true => elements::read_bytes(file, &header.dimensions).map_err(malformed)?,
                false => vec![],
            };
            Ok((header, labels))
        });
        let (header, labels) = read?;
        if (header.element, header.dimensions.len()) != (BYTES, 1) {
            let problem = format!(
                "holds {} in {} dimensions, but labels are bytes in one (idx1-ubyte)",
                element_name(header.element),
                header.dimensions.len()
            );
            if needed {
                return Err(malformed(format!("{problem}; convert it")));
            }
            notices.push(format!("no labels: {} {problem}", path.display()));
            return Ok(images);
        }
        if labels.len() != count {
            return Err(malformed(format!(
                "{} labels for the {count} images of {}; download both files again",
                labels.len(),
                of.display()
            )));
        }
        images.labels = labels.into_iter().map(usize::from).collect();
        Ok(images)
    }
}

/// Reads an idx file of images, without labels.
pub(crate) fn read_images(path: &Path) -> Result<RawImages, Error> {
    read_file(path, |file| read_images_from(file, path))
}

fn read_images_from(file: Source, path: &Path) -> Result<RawImages, Error> {
    let malformed = |problem| Error::Malformed { path: path.to_owned(), problem };
    let mut file = unpacked(file).map_err(|error| Error::of_reading(path, error))?;
    let header = Header::read(&mut file).map_err(malformed)?;
    if header.element != BYTES {
        return Err(malformed(format!(
            "holds {}, but images are unsigned bytes (code 08); convert it to bytes",
            element_name(header.element)
        )));
    }
    if !matches!(header.dimensions.len(), 3 | 4) {
        return Err(malformed(format!(
            "has {} dimensions, but images have 3 or 4; check that images and labels are not swapped",
            header.dimensions.len()
        )));
    }
    let mut images = image_shape(&header.dimensions)
        .and_then(|shape| {
            let pixels = elements::read_bytes(file, &header.dimensions)?;
            Ok(RawImages { shape, pixels, labels: Vec::new() })
        })
        .map_err(malformed)?;
    if is_transposed(path) {
        transpose(&mut images);
    }
    Ok(images)
}

/// Swaps rows and columns of every image.
fn transpose(images: &mut RawImages) {
    let (height, width, channels) = (images.shape.height, images.shape.width, images.shape.channels);
    let mut upright = Vec::with_capacity(images.shape.len());
    for image in images.pixels.chunks_exact_mut(images.shape.len()) {
        upright.clear();
        for column in 0..width {
            for row in 0..height {
                let at = (row * width + column) * channels;
                upright.extend_from_slice(&image[at..at + channels]);
            }
        }
        image.copy_from_slice(&upright);
    }
    (images.shape.height, images.shape.width) = (width, height);
}

/// The header of an idx file.
struct Header {
    /// The code of the element type.
    element: u8,
    dimensions: Vec<usize>,
}

impl Header {
    fn read(file: &mut impl Read) -> Result<Self, String> {
        let mut word = || {
            let mut bytes = [0; 4];
            let cut_short = |error| format!("cut short or damaged ({error}); download the file again");
            file.read_exact(&mut bytes).map_err(cut_short)?;
            Ok::<_, String>(bytes)
        };
        let front = word()?;
        let [0, 0, element @ (0x08 | 0x09 | 0x0B..=0x0E), rank] = front else {
            return Err(format!(
                "begins with {front:02x?}, but an idx file of unsigned bytes begins with [00, 00, 08, dimensions]; \
                 convert it to bytes"
            ));
        };
        let dimensions = (0..rank).map(|_| Ok(u32::from_be_bytes(word()?) as usize));
        Ok(Self { element, dimensions: dimensions.collect::<Result<_, String>>()? })
    }
}

fn element_name(code: u8) -> String {
    let name = match code {
        BYTES => "unsigned bytes",
        0x09 => "signed bytes",
        0x0B => "16-bit integers",
        0x0C => "32-bit integers",
        0x0D => "32-bit floats",
        _ => "64-bit floats",
    };
    format!("{name} (code {code:02x})")
}

/// Decompresses a gzip file while it is read.
fn unpacked(file: Source) -> io::Result<Box<dyn Read>> {
    let mut file = BufReader::new(file);
    Ok(if file.fill_buf()?.starts_with(GZIP) { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}
