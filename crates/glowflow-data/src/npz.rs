//! NumPy's `.npz` format: a zip archive of `.npy` arrays.
//!
//! Training images are the array `x_train` or else the first array of bytes in three or four
//! dimensions; their labels are `y_train` or else `labels` or `y`, where there is such an array.
//! `x_test` and `y_test` are a test set.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use zip::ZipArchive;

use crate::Error;
use crate::memory::{Halves, RawImages};
use crate::npy::Header;

/// Reads all images there are.
pub(crate) fn read(path: &Path) -> Result<Halves, Error> {
    let file = File::open(path).map_err(|reason| Error::Read { path: path.to_owned(), reason })?;
    Archive::open(file)
        .and_then(|mut archive| archive.halves())
        .map_err(|problem| Error::Malformed { path: path.to_owned(), problem })
}

struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// Names of the arrays (without `.npy`) in the archive's order, with their positions in it.
    arrays: Vec<(String, usize)>,
}

impl Archive {
    fn open(file: File) -> Result<Self, String> {
        let zip = ZipArchive::new(BufReader::new(file))
            .map_err(|e| format!("not a readable .npz ({e}); save it again with numpy.savez"))?;
        let array = |index| {
            let name = zip.name_for_index(index)?.ok()?;
            Some((name.strip_suffix(".npy")?.to_owned(), index))
        };
        let arrays = (0..zip.len()).filter_map(array).collect();
        Ok(Self { zip, arrays })
    }

    fn halves(&mut self) -> Result<Halves, String> {
        if self.has("x_train") {
            let train = self.images("x_train", &["y_train"])?;
            let test = match self.has("x_test") {
                true => Some(self.images("x_test", &["y_test"])?),
                false => None,
            };
            return Ok((train, test));
        }
        let names: Vec<String> = self.arrays.iter().map(|(name, _)| name.clone()).collect();
        for name in &names {
            if self.with(name, |header, _| Ok(header.is_images()))? {
                return Ok((self.images(name, &["labels", "y"])?, None));
            }
        }
        Err(format!(
            "none of its arrays ({}) is images: uint8 of shape (N, height, width) or (N, height, \
             width, channels); convert one",
            names.join(", ")
        ))
    }

    /// The array `name` as images, with the first of the arrays `labels` that exists.
    fn images(&mut self, name: &str, labels: &[&str]) -> Result<RawImages, String> {
        let mut images = self.with(name, |header, file| header.images(file))?;
        if let Some(labels) = labels.iter().find(|labels| self.has(labels)) {
            let count = images.pixels.len() / images.shape.len();
            images.labels = self.with(labels, |header, file| header.labels(file, count))?;
        }
        Ok(images)
    }

    fn has(&self, name: &str) -> bool {
        self.arrays.iter().any(|(array, _)| array == name)
    }

    /// Opens an array and hands over its header and the file behind it.
    fn with<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(Header, &mut dyn std::io::Read) -> Result<T, String>,
    ) -> Result<T, String> {
        let in_array = |problem| format!("array `{name}`: {problem}");
        let array = self.arrays.iter().find(|(array, _)| array == name);
        let (_, index) = array.ok_or_else(|| in_array("is missing".into()))?;
        let mut file = self.zip.by_index(*index).map_err(|e| {
            in_array(format!("cannot be unpacked ({e}); save it again with numpy.savez_compressed"))
        })?;
        Header::read(&mut file).and_then(|header| work(header, &mut file)).map_err(in_array)
    }
}
