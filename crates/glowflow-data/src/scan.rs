//! Finds the images of a folder and their classes.
//!
//! Files are found at any depth by their extension (`.png`, `.jpg`, `.jpeg`, `.webp`, `.bmp`, in
//! upper or lower case) and numbered in the byte order of their paths relative to the folder.
//! Hidden files and folders are left out, and folders below that hold a `model.safetensors`, for the pictures there are a
//! training run's; symbolic links are followed, except into a folder they
//! lie in themselves.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::Error;

/// What tells a run's folder from one with data.
const MODEL: &str = "model.safetensors";
const EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Paths of the images under `root`, relative to it and in byte order.
pub(crate) fn find_images(root: &Path) -> Result<Vec<PathBuf>, Error> {
    let visible = |entry: &walkdir::DirEntry| {
        entry.depth() == 0
            || !entry.file_name().as_encoded_bytes().starts_with(b".") && !entry.path().join(MODEL).exists()
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(root).follow_links(true).into_iter().filter_entry(visible) {
        match entry {
            // Only regular files: opening a pipe would wait for ever.
            Ok(entry) if entry.file_type().is_file() && has_image_extension(entry.path()) => {
                files.push(relative(entry.path(), root));
            }
            Ok(_) => {}
            Err(error) if error.loop_ancestor().is_some() => {}
            Err(error) => match error.path() {
                // A folder that may not be read: nobody knows what is in it, so it is named like a broken image.
                Some(path) if path != root && denied(&error) => files.push(relative(path, root)),
                // A link to nothing. Named like an image it counts as one, a broken one.
                Some(path) if path != root && path.is_symlink() => {
                    if has_image_extension(path) {
                        files.push(relative(path, root));
                    }
                }
                path => {
                    let path = path.unwrap_or(root).to_owned();
                    let reason = error.into();
                    return Err(Error::Read { path, reason });
                }
            },
        }
    }
    if files.is_empty() {
        return Err(Error::EmptyFolder(root.to_owned()));
    }
    files.sort_by(|a, b| bytes(a).cmp(bytes(b)));
    Ok(files)
}

fn denied(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == ErrorKind::PermissionDenied)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

fn relative(path: &Path, root: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_owned()
}

pub(crate) fn has_image_extension(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// The classes and the label of each file: the first folder of its path.
///
/// Classes are in byte order, or as in `known` unless that is empty.
pub(crate) fn classes_of(files: &[PathBuf], known: &[String]) -> Result<(Vec<String>, Vec<usize>), Error> {
    let class_of = |file: &PathBuf| {
        let mut parts = file.iter();
        match (parts.next(), parts.next()) {
            (Some(folder), Some(_)) => Ok(folder.to_string_lossy().into_owned()),
            _ => Err(Error::OutsideClasses(file.display().to_string())),
        }
    };
    let names: Vec<String> = files.iter().map(class_of).collect::<Result<_, _>>()?;
    let mut classes = known.to_vec();
    if classes.is_empty() {
        classes.clone_from(&names);
        classes.sort();
        classes.dedup();
    }
    let positions: BTreeMap<&str, usize> = classes.iter().map(String::as_str).zip(0..).collect();
    let label_of = |(name, file): (&String, &PathBuf)| {
        positions.get(name.as_str()).copied().ok_or_else(|| Error::UnknownClass {
            file: file.display().to_string(),
            class: name.clone(),
            known: classes.join(", "),
        })
    };
    let labels = names.iter().zip(files).map(label_of).collect::<Result<_, _>>()?;
    Ok((classes, labels))
}
