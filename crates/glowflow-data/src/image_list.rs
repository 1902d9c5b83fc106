//! Lists the image files of a folder, for programs that process them one by one at their own sizes.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::scan::{Found, scan};

/// Image files found at a path.
pub struct ImageList {
    /// The folder that paths are relative to.
    pub root: PathBuf,
    /// Paths of the images, in byte order.
    pub images: Vec<PathBuf>,
    /// Remarks on files left out, one sentence per kind.
    pub notices: Vec<String>,
}

/// Finds the image files in a folder, at any depth, as [`open`](crate::open) does; for a file, that file.
/// `run_marker` is as in [`OpenOptions`](crate::OpenOptions::run_marker).
///
/// # Errors
/// [`Error::Read`] if `path` does not exist; [`Error::EmptyFolder`] and [`Error::NothingReadable`] for a
/// folder without images.
pub fn find_images(path: &Path, run_marker: Option<&'static str>) -> Result<ImageList, Error> {
    if path.is_file() {
        let root = path.parent().unwrap_or(Path::new("")).to_owned();
        let images = vec![path.file_name().unwrap_or_default().into()];
        return Ok(ImageList { root, images, notices: vec![] });
    }
    let Found { images, leftovers } = scan(path, run_marker)?;
    let notices = leftovers.notices(&[]);
    if images.is_empty() {
        return Err(match leftovers.is_empty() {
            true => Error::EmptyFolder(path.to_owned()),
            false => Error::NothingReadable { path: path.to_owned(), found: notices.join("; ") },
        });
    }
    Ok(ImageList { root: path.to_owned(), images, notices })
}
