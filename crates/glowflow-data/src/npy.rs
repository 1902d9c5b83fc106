//! NumPy's `.npy` format: one array.
//!
//! A file is `\x93NUMPY`, a version (two bytes), the length of the header (two bytes in version 1,
//! four in 2 and 3, little-endian), the header, which is a Python dictionary such as
//! `{'descr': '|u1', 'fortran_order': False, 'shape': (10, 28, 28), }`, and then the elements.

use std::io::{BufReader, Read};
use std::path::Path;

use crate::array_shape::{second_reading, tuple, unambiguous_image_shape};
use crate::element_type::{ElementType, Kind};
use crate::memory::RawImages;
use crate::npy_header::Dictionary;
use crate::source::read_file;
use crate::{Error, elements, pixels};

/// Magic bytes of an `.npy` file.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Headers have about a hundred bytes; some writers pad them to a page or more.
const MAX_HEADER: usize = 1 << 20;
/// More than any dataset has classes; a larger label is not a class.
const MAX_CLASSES: u64 = 1 << 16;

/// The header of an `.npy` file.
#[derive(Debug)]
pub(crate) struct Header {
    pub dimensions: Vec<usize>,
    /// Element type, or the name of a non-numeric one.
    pub element: Result<ElementType, String>,
    fortran_order: bool,
    /// Bytes before the elements.
    pub length: u64,
}

/// Labels, or the reason why they are not class labels.
pub(crate) type Labels = Result<Vec<usize>, String>;

impl Header {
    /// Reads the header of an `.npy` file.
    pub fn read(file: &mut impl Read) -> Result<Self, String> {
        let mut length = 0;
        let mut bytes = |count: usize| {
            let mut bytes = vec![0; count];
            let cut_short = |e| format!("cannot read the .npy header ({e}); save the array again");
            file.read_exact(&mut bytes).map_err(cut_short)?;
            length += count as u64;
            Ok::<_, String>(bytes)
        };
        if bytes(MAGIC.len())? != MAGIC {
            return Err("does not begin like an .npy array; save it with numpy.save".into());
        }
        let size = match bytes(2)?[0] {
            1 => bytes(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            2 | 3 => bytes(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            version => {
                return Err(format!(
                    ".npy version {version} is unknown; save the array with version 1, 2 or 3"
                ));
            }
        };
        if size > MAX_HEADER {
            return Err(format!(
                "the .npy header has {size} bytes, more than the maximum of {MAX_HEADER}; \
                 save the array again"
            ));
        }
        let text = String::from_utf8_lossy(&bytes(size)?).into_owned();
        let Some(Dictionary { description, fortran_order, shape }) = Dictionary::parse(&text) else {
            let shown: String = text.trim_end().chars().take(200).collect();
            return Err(format!(
                "cannot parse the .npy header `{shown}`; save a plain array with numpy.save"
            ));
        };
        let element = description.map_or(Err("records".into()), |d| ElementType::parse(&d));
        Ok(Self { dimensions: shape, element, fortran_order, length })
    }

    /// Returns whether this is an array of bytes with three or four dimensions.
    pub fn is_images(&self) -> bool {
        matches!(self.dimensions.len(), 3 | 4) && self.element.as_ref().is_ok_and(|e| e.is_byte())
    }

    /// Reads the elements as images from a file with `available` remaining bytes, if known.
    pub fn images(&self, file: impl Read, available: Option<u64>) -> Result<RawImages, String> {
        let element = self.element.clone().map_err(|kind| {
            format!(
                "an array of {kind}; pictures must be uint8 of shape (N, height, width) or (N, height, \
                 width, channels); convert it, for example with numpy.stack(pictures)"
            )
        })?;
        let shape = unambiguous_image_shape(&self.dimensions)?;
        if let Some(available) = available {
            elements::check_length(&self.dimensions, element.size, available)?;
        }
        let mut pixels = pixels::read(file, &self.dimensions, element)?;
        if self.fortran_order {
            pixels = first_index_last(&pixels, &self.dimensions);
        }
        Ok(RawImages { shape, pixels, labels: Vec::new() })
    }

    /// Reads the elements as labels of `count` images. The outer error means a damaged file.
    pub fn labels(&self, file: impl Read, count: usize) -> Result<Labels, String> {
        let shape = tuple(&self.dimensions);
        let element = match &self.element {
            Ok(element) => *element,
            Err(kind) => {
                return Ok(Err(format!(
                    "labels are {kind}, but classes are numbered from 0; save \
                     numpy.unique(labels, return_inverse=True)[1] instead"
                )));
            }
        };
        if elements::count(&self.dimensions) != Some(count) {
            return Ok(Err(match *self.dimensions {
                [images, columns] if images == count => format!(
                    "labels of shape {shape} are {columns} numbers per image, but a class is one; save \
                     labels.argmax(axis=1) if they are one-hot"
                ),
                _ => format!("labels of shape {shape} for {count} images; one per image is needed"),
            }));
        }
        let (mut labels, mut other) = (Vec::new(), None);
        elements::read_each(file, &self.dimensions, element.size, |piece| {
            element.values(piece, |value| {
                if value < 0.0 || value >= MAX_CLASSES as f64 || value.fract() != 0.0 {
                    other.get_or_insert(value);
                }
                labels.push(value as usize);
            });
            Ok(())
        })?;
        Ok(match other {
            None => Ok(labels),
            Some(value) => Err(format!(
                "the label {value} is not a whole number from 0 to {}; number classes from 0",
                MAX_CLASSES - 1
            )),
        })
    }

    /// A remark for the user on how the images were interpreted.
    pub fn notice(&self) -> Option<String> {
        second_reading(&self.dimensions)
    }

    /// A short description, such as `float32 (10, 28, 28)`.
    pub fn summary(&self) -> String {
        let kind = match &self.element {
            Ok(ElementType { kind: Kind::Bool, .. }) => "bool".to_owned(),
            Ok(element) => element.to_string(),
            Err(kind) => kind.clone(),
        };
        format!("{kind} {}", tuple(&self.dimensions))
    }
}

/// Reorders the elements of an array in Fortran order (first index fastest) to row-major order.
fn first_index_last(elements: &[u8], dimensions: &[usize]) -> Vec<u8> {
    let mut transposed = vec![0; elements.len()];
    let (first, rest) = (dimensions[0], &dimensions[1..]);
    let inner: usize = rest.iter().product();
    for at in 0..inner {
        // The position in the file of index `at` of the other dimensions.
        let (mut remaining, mut digits) = (at, vec![]);
        for &n in rest.iter().rev() {
            digits.push((remaining % n, n));
            remaining /= n;
        }
        let from = digits.iter().fold(0, |sum, (digit, n)| sum * n + digit) * first;
        for (i, &element) in elements[from..from + first].iter().enumerate() {
            transposed[i * inner + at] = element;
        }
    }
    transposed
}

/// Reads an `.npy` file of images and returns remarks for the user.
pub(crate) fn read(path: &Path) -> Result<(RawImages, Vec<String>), Error> {
    read_file(path, |file| {
        let len = file.regular_len().map_err(|error| Error::of_reading(path, error))?;
        let mut file = BufReader::new(file);
        let images = Header::read(&mut file).and_then(|header| {
            let available = len.map(|len| len.saturating_sub(header.length));
            let images = header.images(file, available)?;
            Ok((images, header.notice().into_iter().collect()))
        });
        images.map_err(|problem| Error::Malformed { path: path.to_owned(), problem })
    })
}
