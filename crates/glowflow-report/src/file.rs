//! Replacing a file as a whole, so that a reader sees the old content or the new, never a part.

use crate::Error;
use std::{ffi::OsString, fs, path::Path};

/// Writes `content` to a temporary file beside `path` and renames it to `path`.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    // Hidden, and without the ending: viewers that watch the folder should not pick it up.
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    let temporary = path.with_file_name(name);
    fs::write(&temporary, content).map_err(Error::write(&temporary))?;
    fs::rename(&temporary, path).map_err(Error::write(path))
}
