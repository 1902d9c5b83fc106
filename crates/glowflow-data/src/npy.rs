//! NumPy's `.npy` format: one array.
//!
//! A file is `\x93NUMPY`, a version (two bytes), the length of the header (two bytes in version 1,
//! four in 2 and 3, little-endian), the header, which is a Python dictionary such as
//! `{'descr': '|u1', 'fortran_order': False, 'shape': (10, 28, 28), }`, and then the elements.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use crate::memory::RawImages;
use crate::{Error, elements};

/// How every `.npy` file begins.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";

/// Numpy itself refuses to read headers longer than 10,000 bytes.
const LONGEST_HEADER: usize = 10_000;
/// More classes than any data set has; a larger label is a value that is no label.
const MOST_CLASSES: u64 = 1 << 16;

/// What an array is like.
pub(crate) struct Header {
    /// Byte order, kind and size of an element, such as `|u1` or `<i8`.
    pub kind: String,
    pub dimensions: Vec<usize>,
    fortran_order: bool,
}

impl Header {
    /// Reads the front of an `.npy` file. Failures say what is wrong and what would be right.
    pub fn read(file: &mut impl Read) -> Result<Self, String> {
        let mut bytes = |count: usize| {
            let mut bytes = vec![0; count];
            let cut_short = |e| format!("cannot read the .npy header ({e}); save the array again");
            file.read_exact(&mut bytes).map_err(cut_short)?;
            Ok::<_, String>(bytes)
        };
        if bytes(MAGIC.len())? != MAGIC {
            return Err("does not begin like an .npy array; save it with numpy.save".into());
        }
        let length = match bytes(2)?[0] {
            1 => bytes(2)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            2 | 3 => bytes(4)?.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b)),
            version => {
                return Err(format!(
                    ".npy version {version} is unknown; save the array with version 1, 2 or 3"
                ));
            }
        };
        if length > LONGEST_HEADER {
            return Err(format!(
                "the .npy header has {length} bytes where at most {LONGEST_HEADER} are sensible; \
                 save the array again"
            ));
        }
        let text = String::from_utf8_lossy(&bytes(length)?).into_owned();
        Self::parse(&text).ok_or_else(|| {
            let shown: String = text.trim_end().chars().take(200).collect();
            format!("cannot make sense of the .npy header `{shown}`; save a plain array with numpy.save")
        })
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let (_, rest) = text.split_once(&format!("'{key}'"))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let kind = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0;
        let order = value("fortran_order")?;
        let shape = value("shape")?.strip_prefix('(')?.split_once(')')?.0;
        let numbers = shape.split(',').map(str::trim).filter(|n| !n.is_empty());
        Some(Self {
            kind: kind.to_owned(),
            fortran_order: match (order.starts_with("True"), order.starts_with("False")) {
                (true, _) => true,
                (_, true) => false,
                _ => return None,
            },
            dimensions: numbers.map(|n| n.parse().ok()).collect::<Option<_>>()?,
        })
    }

    /// Whether this could be an array of images: bytes in three or four dimensions.
    pub fn is_images(&self) -> bool {
        self.kind.trim_start_matches(['|', '<', '>', '=']) == "u1" && matches!(self.dimensions.len(), 3 | 4)
    }

    /// Reads the elements as images.
    pub fn images(&self, file: impl Read) -> Result<RawImages, String> {
        if !self.is_images() {
            return Err(format!(
                "an array of type {} and shape {:?}, where images are uint8 of shape \
                 (N, height, width) or (N, height, width, channels); convert it",
                self.kind, self.dimensions
            ));
        }
        let shape = elements::images_shape(&self.dimensions)?;
        let pixels = self.elements(file, 1)?;
        Ok(RawImages { shape, pixels, labels: Vec::new() })
    }

    /// Reads the elements as `count` labels.
    pub fn labels(&self, file: impl Read, count: usize) -> Result<Vec<usize>, String> {
        let wrong = || {
            format!(
                "labels of type {} and shape {:?}, where {count} integers are needed, one per \
                 image; convert them",
                self.kind, self.dimensions
            )
        };
        let kind = self.kind.as_bytes();
        let (big_endian, size) = match kind {
            [order @ (b'<' | b'>' | b'|' | b'='), b'i' | b'u', size @ (b'1' | b'2' | b'4' | b'8')] => {
                (*order == b'>', usize::from(size - b'0'))
            }
            _ => return Err(wrong()),
        };
        if elements::count(&self.dimensions) != Some(count) {
            return Err(wrong());
        }
        let number = |element: &[u8]| {
            let push = |n: u64, &byte: &u8| n << 8 | u64::from(byte);
            match big_endian {
                true => element.iter().fold(0, push),
                false => element.iter().rev().fold(0, push),
            }
        };
        let limit = match kind[1] {
            // The upper half of the range is the negative numbers.
            b'i' => MOST_CLASSES.min(1 << (8 * size - 1)),
            _ => MOST_CLASSES,
        };
        let label = |element: &[u8]| match number(element) {
            n if n < limit => Ok(n as usize),
            n => Err(format!(
                "the label {n:#x} is negative or not below {MOST_CLASSES}; number classes from 0"
            )),
        };
        self.elements(file, size)?.chunks_exact(size).map(label).collect()
    }

    /// The bytes behind the header.
    fn elements(&self, file: impl Read, size: usize) -> Result<Vec<u8>, String> {
        match self.fortran_order {
            true => Err("the array is in Fortran order; save numpy.ascontiguousarray of it".into()),
            false => elements::read(file, &self.dimensions, size),
        }
    }
}

/// Reads an `.npy` file of images.
pub(crate) fn read(path: &Path) -> Result<RawImages, Error> {
    let file = File::open(path).map_err(|reason| Error::Read { path: path.to_owned(), reason })?;
    let mut file = BufReader::new(file);
    let images = Header::read(&mut file).and_then(|header| header.images(file));
    images.map_err(|problem| Error::Malformed { path: path.to_owned(), problem })
}
