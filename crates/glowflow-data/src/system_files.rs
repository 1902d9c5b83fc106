//! Names of files and folders that systems, storage devices and programs create for themselves, such as
//! thumbnail folders.

use std::path::Path;

const FOLDERS: [&str; 14] = [
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@tmp",
    "@__thumb",
    "__macosx",
    "lost+found",
    "network trash folder",
    "recycler",
    "system volume information",
    "temporary items",
];
const FILES: [&str; 4] = ["desktop.ini", "ehthumbs.db", "icon\r", "thumbs.db"];

/// Returns whether a file or folder is hidden or belongs to the system.
pub(crate) fn is_system(path: &Path, is_folder: bool) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let listed = if is_folder { FOLDERS.contains(&name.as_str()) } else { FILES.contains(&name.as_str()) };
    name.starts_with('.')
        || listed
        || is_folder && (is_previews(&name) || is_photos_library_part(path, &name))
}

/// Preview folders of a Lightroom catalogue.
fn is_previews(name: &str) -> bool {
    name.ends_with(".lrdata")
}

/// Folders of an Apple Photos library, except those with the photographs themselves.
fn is_photos_library_part(path: &Path, name: &str) -> bool {
    let parent = path.parent().and_then(Path::extension).unwrap_or_default();
    parent.eq_ignore_ascii_case("photoslibrary") && !["originals", "masters"].contains(&name)
}
