//! Finds the images of a dataset by the names that tables use for them.
//!
//! A table may name an image by its path, by a longer or different path to the same file name, in different
//! case, with a different extension or none, or by its number. The closest image is the match; if several are
//! equally close, there is none.

use std::cmp::Reverse;
use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization;

use crate::Dataset;

/// Image extensions that a name in a table may have instead of the file's.
const ENDINGS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "heic", "avif", "ppm", "pgm",
    "npy",
];

/// Kinds of match between a name in a table and an image, the closest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Closeness {
    Equal,
    /// The path to the file within another folder, or a part of that path.
    PartOfPath,
    /// The file's name, in another folder.
    OtherFolder,
    /// The file's name in different case.
    OtherCase,
    /// The file's name without its extension.
    NoEnding,
    /// The file's name with another extension.
    OtherEnding,
    /// Another extension, or none, and different case.
    OtherEndingAndCase,
}

/// The images that a name may denote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    None,
    One(usize, Closeness),
    /// Two of several that are equally close.
    Several(usize, usize),
}

/// Index of the names of a dataset's images.
pub(crate) struct ImageNames {
    names: Vec<String>,
    /// By the full name; `None` if several images share it.
    by_name: HashMap<String, Option<usize>>,
    /// By the file's name in lower case without its extension.
    by_stem: HashMap<String, Vec<usize>>,
    /// True if images are named 0, 1, 2 …, as in arrays.
    numbered: bool,
}

impl ImageNames {
    /// Indexes the names of all images.
    pub fn of(dataset: &dyn Dataset) -> Self {
        let names: Vec<String> = (0..dataset.len()).map(|image| normal(&dataset.name(image))).collect();
        let numbered = names.iter().enumerate().all(|(image, name)| name.parse() == Ok(image));
        let mut by_stem = HashMap::<_, Vec<usize>>::new();
        let mut by_name = HashMap::with_capacity(names.len());
        for (image, name) in names.iter().enumerate() {
            by_name.entry(name.clone()).and_modify(|image| *image = None).or_insert(Some(image));
            by_stem.entry(stem(file_name(name)).to_lowercase()).or_default().push(image);
        }
        Self { names, by_name, by_stem, numbered }
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Finds the image that a table calls `name`.
    pub fn find(&self, name: &str) -> Found {
        let name = normal(name);
        if self.numbered {
            return self.find_number(&name);
        }
        // Most tables give names exactly, and many images may share a stem: person/001.jpg.
        if let Some(&Some(image)) = self.by_name.get(&name) {
            return Found::One(image, Closeness::Equal);
        }
        let file = file_name(&name).to_lowercase();
        let stems = [file.as_str(), stem(&file)];
        let stems = if stems[0] == stems[1] { &stems[..1] } else { &stems[..] };
        let candidates = stems.iter().filter_map(|&stem| self.by_stem.get(stem)).flatten();
        let mut best: Option<((Closeness, Reverse<usize>), Found)> = None;
        for &image in candidates {
            let Some(closeness) = closeness(&name, &self.names[image]) else { continue };
            let rank = (closeness, Reverse(common_folders(&name, &self.names[image])));
            match best {
                Some((closest, _)) if closest < rank => {}
                Some((closest, Found::One(other, _))) if closest == rank => {
                    best = Some((rank, Found::Several(other, image)));
                }
                Some((closest, _)) if closest == rank => {}
                _ => best = Some((rank, Found::One(image, closeness))),
            }
        }
        best.map_or(Found::None, |(_, found)| found)
    }

    /// Tables that went through floating point numbers have 7.0 for 7.
    fn find_number(&self, name: &str) -> Found {
        let whole = name.split_once('.').filter(|(_, rest)| rest.bytes().all(|b| b == b'0'));
        let number = whole.map_or(name, |(whole, _)| whole);
        match number.parse() {
            Ok(image) if image < self.names.len() => Found::One(image, Closeness::Equal),
            _ => Found::None,
        }
    }
}

/// Normalises a name: Unicode NFC, slashes between folders, no surrounding quotes or blanks.
pub(crate) fn normal(name: &str) -> String {
    let name = name.trim().trim_matches(['"', '\'']).trim();
    let parts = name.split(['/', '\\']).filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/").nfc().collect()
}

fn closeness(name: &str, image: &str) -> Option<Closeness> {
    if name == image {
        return Some(Closeness::Equal);
    }
    let (file, image_file) = (file_name(name), file_name(image));
    if file == image_file {
        let ends =
            |long: &str, short: &str| long.strip_suffix(short).is_some_and(|front| front.ends_with('/'));
        let part = ends(name, image) || ends(image, name);
        return Some(if part { Closeness::PartOfPath } else { Closeness::OtherFolder });
    }
    let lower = [file, image_file].map(str::to_lowercase);
    if lower[0] == lower[1] {
        return Some(Closeness::OtherCase);
    }
    // A name without extension may contain a dot: `john.smith`.
    let is_picture = file
        .rsplit_once('.')
        .is_some_and(|(_, ending)| ENDINGS.iter().any(|e| ending.eq_ignore_ascii_case(e)));
    if file == stem(image_file) {
        Some(Closeness::NoEnding)
    } else if is_picture && stem(file) == stem(image_file) {
        Some(Closeness::OtherEnding)
    } else if lower[0] == stem(&lower[1]) || is_picture && stem(&lower[0]) == stem(&lower[1]) {
        Some(Closeness::OtherEndingAndCase)
    } else {
        None
    }
}

/// Number of folders that two paths have in common, counted from the file upwards.
fn common_folders(a: &str, b: &str) -> usize {
    a.rsplit('/').skip(1).zip(b.rsplit('/').skip(1)).take_while(|(a, b)| a == b).count()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The name of a file without its extension.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem })
}
