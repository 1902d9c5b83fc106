//! Paths of written images, derived from their names in the dataset.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

/// Extensions that are replaced by `.png`, in lower case. Other extensions are part of the name.
const ENDINGS: [&str; 16] = [
    "avif", "bmp", "gif", "heic", "jfif", "jpe", "jpeg", "jpg", "pbm", "pgm", "png", "pnm", "ppm", "tif",
    "tiff", "webp",
];

/// Longest file name that is written, in bytes. File systems allow 255; the rest is for the extension, a
/// number and the suffix of temporary files.
const MAX_NAME: usize = 200;

/// Distinct paths for written images below the output folder. Images whose names differ only in the extension
/// of a picture file are numbered, those with `.png` first. Names that differ only in case count as equal,
/// because they are on some systems.
pub fn picture_paths(names: &[String]) -> Vec<PathBuf> {
    let plain: Vec<PathBuf> = names.iter().map(|name| plain_path(name)).collect();
    // A file must not have the name of another image's folder.
    let parents = plain.iter().flat_map(|path| path.ancestors().skip(1));
    let mut taken: HashSet<String> = parents.map(key).collect();
    let mut last_numbers: HashMap<String, usize> = HashMap::new();
    let mut place = |plain: &PathBuf| -> PathBuf {
        let number = last_numbers.entry(key(plain)).or_insert(0);
        loop {
            *number += 1;
            let mut path = plain.clone().into_os_string();
            if *number > 1 {
                path.push(format!("-{number}"));
            }
            path.push(".png");
            if taken.insert(key(Path::new(&path))) {
                return path.into();
            }
        }
    };
    let mut paths = vec![PathBuf::new(); names.len()];
    // Those that keep their names come first.
    for kept in [true, false] {
        for ((path, plain), name) in paths.iter_mut().zip(&plain).zip(names) {
            if Path::new(name).extension().is_some_and(|ending| ending == "png") == kept {
                *path = place(plain);
            }
        }
    }
    paths
}

/// A key that is equal for paths that denote the same file on a case-insensitive file system.
pub fn key(path: &Path) -> String {
    path.to_string_lossy().to_lowercase()
}

/// Keeps only the normal components of an image's name, so that no file of latents can write outside the
/// output folder; removes control characters and shortens long names.
fn plain_path(name: &str) -> PathBuf {
    let name = name.replace(char::is_control, "_");
    let parts = Path::new(&name).components().filter_map(|part| match part {
        Component::Normal(part) => Some(shortened(&part.to_string_lossy())),
        _ => None,
    });
    let path = without_ending(parts.collect());
    if path.as_os_str().is_empty() { "image".into() } else { path }
}

/// `a/photo` of `a/photo.jpg`.
fn without_ending(path: PathBuf) -> PathBuf {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
        path.with_extension("")
    } else {
        path
    }
}

/// A name of at most `MAX_NAME` bytes. The end of a longer name is replaced by its checksum.
fn shortened(name: &str) -> String {
    const CHECKSUM: usize = 9;
    if name.len() <= MAX_NAME {
        return name.to_owned();
    }
    let start = &name[..name.floor_char_boundary(MAX_NAME - CHECKSUM)];
    format!("{start}~{:08x}", crc32fast::hash(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(names: &[&str]) -> Vec<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        picture_paths(&names).iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn names_are_kept_if_possible() {
        assert_eq!(paths(&["a.png", "b/c.jpg", "caf\\xe9"]), ["a.png", "b/c.png", "caf\\xe9.png"]);
        assert_eq!(paths(&["a", "a.png", "a.JPG", "a.v2"]), ["a-2.png", "a.png", "a-3.png", "a.v2.png"]);
        assert_eq!(paths(&[".png", "x/.jpg"]), [".png.png", "x/.jpg.png"]);
        assert_eq!(paths(&["a", "a", "a-2"]), ["a.png", "a-2.png", "a-2-2.png"]);
        assert_eq!(paths(&["..", "../x", "", "/y"]), ["image.png", "x.png", "image-2.png", "y.png"]);
    }

    #[test]
    fn no_two_paths_are_one_file_on_any_system() {
        assert_eq!(paths(&["A.png", "a.png", "B/x", "b/X"]), ["A.png", "a-2.png", "B/x.png", "b/X-2.png"]);
        assert_eq!(paths(&["a\nb", "a_b"]), ["a_b.png", "a_b-2.png"]);
        // A folder has the name that a file would have.
        assert_eq!(paths(&["a", "a.png/b"]), ["a-2.png", "a.png/b.png"]);
        let lengths = [199, 200, 201, 255, 1020];
        let long: Vec<String> = lengths
            .iter()
            .flat_map(|&length| ["x", "é"].map(|letter| letter.repeat(length / letter.len())))
            .flat_map(|name| [format!("{name}1"), format!("{name}2"), format!("{name}/1")])
            .collect();
        let paths = picture_paths(&long);
        assert_eq!(paths.iter().map(|path| key(path)).collect::<HashSet<_>>().len(), long.len());
        for name in paths.iter().flat_map(|path| path.iter()) {
            assert!(name.len() <= MAX_NAME + ".png".len() + "-2".len(), "{name:?}");
        }
    }
}
