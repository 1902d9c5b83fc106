//! Recognises backup copies that programs leave next to a file (`a.jpg_original`, `a.jpg~`, `a.jpg.bak`) and
//! camera thumbnails (`a.thm`).

use std::path::Path;

const SUFFIXES: [&str; 4] = ["_original", "~", ".bak", ".orig"];
/// Extensions of files that cameras store a thumbnail for.
const WITH_THUMBNAIL: [&str; 11] =
    ["avi", "mp4", "mov", "mpg", "mts", "jpg", "jpeg", "crw", "cr2", "nef", "arw"];

/// Returns whether `path` is a copy of a file next to it.
pub(crate) fn is_backup(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let lower = name.to_ascii_lowercase();
    let is_copy = SUFFIXES.iter().filter(|suffix| lower.ends_with(*suffix)).any(|suffix| {
        let original = &name[..name.len() - suffix.len()];
        !original.is_empty() && path.with_file_name(original).is_file()
    });
    let has_original = |extension: &&str| {
        path.with_extension(extension).is_file() || path.with_extension(extension.to_uppercase()).is_file()
    };
    is_copy || lower.ends_with(".thm") && WITH_THUMBNAIL.iter().any(has_original)
}
