//! NumPy's `.npz` format: a zip archive of `.npy` arrays.
//!
//! Arrays are recognised by their names, as used by Keras (`x_train`, `y_train`, …), by MedMNIST
//! (`train_images`, `train_labels`, …) and informally (`images`, `labels`); see
//! [`array_names`](crate::array_names). Without such a name the only array that looks like images, or
//! `arr_0`, is read. Validation images are the test set if there is no other.

use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use crate::Error;
use crate::array_names::{Content, Part, role};
use crate::memory::{Halves, RawImages};
use crate::npy::{Header, Labels};
use crate::source::{Source, read_file};

/// Reads all images and returns remarks for the user. `labels` states whether classes are required.
pub(crate) fn read(path: &Path, labels: bool) -> Result<(Halves, Vec<String>), Error> {
    read_file(path, |file| {
        Archive::open(file)
            .and_then(|mut archive| {
                archive.needs_labels = labels;
                Ok((archive.halves()?, archive.notices))
            })
            .map_err(|problem| Error::Malformed { path: path.to_owned(), problem })
    })
}

/// An array of an archive.
#[derive(Debug)]
struct Array {
    /// Its name, without `.npy`.
    name: String,
    /// Its index in the archive.
    index: usize,
    part: Part,
    content: Content,
    header: Result<Header, String>,
}

impl Array {
    fn is_images(&self) -> bool {
        self.header.as_ref().is_ok_and(Header::is_images)
    }

    /// Returns whether this is a numeric array with at least `dimensions` dimensions.
    fn is_numbers(&self, dimensions: usize) -> bool {
        let numbers = |header: &Header| header.element.is_ok() && header.dimensions.len() >= dimensions;
        self.header.as_ref().is_ok_and(numbers)
    }

    fn images_rank(&self) -> Option<usize> {
        if let Content::Images(rank) = self.content { Some(rank) } else { None }
    }

    fn labels_rank(&self) -> Option<usize> {
        if let Content::Labels(rank) = self.content { Some(rank) } else { None }
    }
}

struct Archive {
    zip: ZipArchive<BufReader<Source>>,
    /// In the order of the archive.
    arrays: Vec<Array>,
    needs_labels: bool,
    notices: Vec<String>,
}

impl Archive {
    fn open(file: Source) -> Result<Self, String> {
        let mut zip = ZipArchive::new(BufReader::new(file))
            .map_err(|e| format!("not a readable .npz ({e}); save it again with numpy.savez"))?;
        let mut arrays = vec![];
        for index in 0..zip.len() {
            let name = zip.name_for_index(index).and_then(|name| name.ok());
            let Some(name) = name.and_then(|name| Some(name.strip_suffix(".npy")?.to_owned())) else {
                continue;
            };
            let (part, content) = role(&name);
            let header = member(&mut zip, index).and_then(|mut file| Header::read(&mut file));
            arrays.push(Array { name, index, part, content, header });
        }
        Ok(Self { zip, arrays, needs_labels: false, notices: vec![] })
    }

    fn halves(&mut self) -> Result<Halves, String> {
        let named = |part| {
            self.choose(|array| array.images_rank().filter(|_| array.part == part && array.is_numbers(3)))
        };
        let [train, whole, test, validation] =
            [named(Part::Train)?, named(Part::Whole)?, named(Part::Test)?, named(Part::Validation)?];
        let mut main = train.or(whole);
        if main.is_none() && test.or(validation).is_none() {
            main = self.unnamed()?;
        }
        let (main, test, left_out) = match (main, test.or(validation)) {
            (Some(main), other) => (main, other, validation.filter(|_| test.is_some())),
            (None, Some(only)) => (only, None, validation.filter(|&other| other != only)),
            (None, None) => return Err(self.no_images()),
        };
        let used = [Some(main), test, left_out];
        let other: Vec<&str> = self
            .arrays
            .iter()
            .enumerate()
            .filter_map(|(at, array)| {
                let spare = !used.contains(&Some(at)) && array.is_images() && array.labels_rank().is_none();
                spare.then_some(array.name.as_str())
            })
            .collect();
        if !other.is_empty() {
            let notice =
                format!("images are the array `{}`; not used: {}", self.arrays[main].name, other.join(", "));
            self.notices.push(notice);
        }
        if let Some(test) = test.filter(|&test| self.arrays[test].part == Part::Validation) {
            self.notices.push(format!("the test set is the array `{}`", self.arrays[test].name));
        }
        if let Some(array) = left_out.map(|at| &self.arrays[at]) {
            let shape = array.header.as_ref().map_or(String::new(), |header| header.summary());
            self.notices
                .push(format!("the array `{}` ({shape}) is not used: there is a test set", array.name));
        }
        Ok((self.images(main)?, test.map(|test| self.images(test)).transpose()?))
    }

    /// The array of the lowest rank. A tie is an error.
    fn choose(&self, rank: impl Fn(&Array) -> Option<usize>) -> Result<Option<usize>, String> {
        let ranks = self.arrays.iter().map(rank);
        let mut ranked: Vec<(usize, usize)> =
            ranks.enumerate().filter_map(|(at, rank)| Some((rank?, at))).collect();
        ranked.sort_unstable();
        match *ranked {
            [(rank, first), (other, second), ..] if rank == other => Err(self.equals(&[first, second])),
            [(_, first), ..] => Ok(Some(first)),
            [] => Ok(None),
        }
    }

    /// The image array if none has both a known name and the dimensions.
    fn unnamed(&self) -> Result<Option<usize>, String> {
        let unknown = |array: &Array| array.content == Content::Unknown && array.part == Part::Whole;
        let likely: [&dyn Fn(&Array) -> bool; 3] = [
            &|array| unknown(array) && array.is_images(),
            &|array| unknown(array) && array.is_numbers(3),
            &|array| array.content == Content::Neither && array.is_images(),
        ];
        let unlikely: [&dyn Fn(&Array) -> bool; 2] =
            [&|array| unknown(array) && array.is_numbers(2), &|array| {
                unknown(array) && array.header.is_err()
            }];
        for fits in likely {
            if let Some(found) = self.only(fits)? {
                return Ok(Some(found));
            }
        }
        let is_named = |array: &Array| array.images_rank().is_some();
        if let Some(named) = self.arrays.iter().position(is_named) {
            return Ok(Some(named));
        }
        for fits in unlikely {
            if let Some(found) = self.only(fits)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The array that fits: `arr_0`, or the only one.
    fn only(&self, fits: &dyn Fn(&Array) -> bool) -> Result<Option<usize>, String> {
        let found: Vec<usize> = (0..self.arrays.len()).filter(|&at| fits(&self.arrays[at])).collect();
        let first = found.iter().find(|&&at| self.arrays[at].name == "arr_0");
        match (&*found, first) {
            (_, Some(&first)) | (&[first], _) => Ok(Some(first)),
            ([], _) => Ok(None),
            (several, _) => Err(self.equals(several)),
        }
    }

    fn equals(&self, arrays: &[usize]) -> String {
        let names: Vec<String> = arrays.iter().map(|&at| format!("`{}`", self.arrays[at].name)).collect();
        format!(
            "the arrays {} are ambiguous; save only one of them, or name it `images` or `labels`",
            names.join(" and ")
        )
    }

    fn no_images(&self) -> String {
        let list = |array: &Array| match &array.header {
            Ok(header) => format!("{}: {}", array.name, header.summary()),
            Err(_) => array.name.clone(),
        };
        let arrays: Vec<String> = self.arrays.iter().map(list).collect();
        format!(
            "none of its arrays ({}) contains images, which are uint8 of shape (N, height, width) or (N, height, \
             width, channels); convert one",
            arrays.join("; ")
        )
    }

    /// Reads the images of array `at`, with their labels if there are any.
    fn images(&mut self, at: usize) -> Result<RawImages, String> {
        let mut images = self.with(at, |header, file, available| header.images(file, Some(available)))?;
        let array = &self.arrays[at];
        let notice = array.header.as_ref().ok().and_then(Header::notice);
        self.notices.extend(notice.map(|notice| format!("array `{}`: {notice}", array.name)));
        let count = images.pixels.len() / images.shape.len();
        if let Some((labels, name)) = self.labels_of(at, count)? {
            let read: Labels = self.with(labels, |header, file, _| header.labels(file, count))?;
            match read {
                Ok(labels) => images.labels = labels,
                Err(problem) if self.needs_labels => return Err(format!("array `{name}`: {problem}")),
                Err(problem) => self.notices.push(format!("no labels from the array `{name}`: {problem}")),
            }
        }
        Ok(images)
    }

    /// The label array of array `at`, which holds `count` images, and its name.
    fn labels_of(&mut self, at: usize, count: usize) -> Result<Option<(usize, String)>, String> {
        let part = self.arrays[at].part;
        // If several arrays are named like labels, those with one entry per image come first.
        let one_per_image = |array: &Array| {
            array.header.as_ref().is_ok_and(|header| header.dimensions.first() == Some(&count))
        };
        let named = |part| {
            let rank = |array: &Array| array.labels_rank().filter(|_| array.part == part);
            match self.choose(|array| rank(array).filter(|_| one_per_image(array))) {
                Ok(None) => self.choose(rank),
                found => found,
            }
        };
        let mut found = match named(part) {
            Ok(None) if part == Part::Train => named(Part::Whole),
            found => found,
        };
        if let (Err(problem), false) = (&found, self.needs_labels) {
            self.notices.push(format!("no labels: {problem}"));
            found = Ok(None);
        }
        let mut found = found?;
        if found.is_none() && self.arrays[at].name == "arr_0" {
            let one_each = |header: &Header| header.element.is_ok() && header.dimensions == [count];
            let second = |array: &Array| array.name == "arr_1" && array.header.as_ref().is_ok_and(one_each);
            found = self.arrays.iter().position(second);
            if found.is_some() {
                self.notices.push("labels are the array `arr_1`".into());
            }
        }
        Ok(found.map(|at| (at, self.arrays[at].name.clone())))
    }

    /// Passes an array's header, the file positioned after it, and the number of remaining bytes to a
    /// function.
    fn with<T>(
        &mut self,
        at: usize,
        work: impl FnOnce(&Header, &mut dyn Read, u64) -> Result<T, String>,
    ) -> Result<T, String> {
        let array = &self.arrays[at];
        let in_array = |problem| format!("array `{}`: {problem}", array.name);
        let header = array.header.as_ref().map_err(|problem| in_array(problem.clone()))?;
        let mut file = member(&mut self.zip, array.index).map_err(in_array)?;
        let available = file.size().saturating_sub(header.length);
        Header::read(&mut file).and_then(|_| work(header, &mut file, available)).map_err(in_array)
    }
}

fn member<'a>(
    zip: &'a mut ZipArchive<BufReader<Source>>,
    index: usize,
) -> Result<zip::read::ZipFile<'a, BufReader<Source>>, String> {
    zip.by_index(index)
        .map_err(|e| format!("cannot be unpacked ({e}); save it again with numpy.savez_compressed"))
}
