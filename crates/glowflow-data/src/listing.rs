//! Lists the files directly in a folder.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::Error;
use crate::retry::{is_transient, with_retries};
use crate::system_files::is_system;

/// Paths of the files in `folder` and of links to files, sorted. Hidden and system files are left out. A
/// folder that does not exist or may not be read yields none.
pub(crate) fn files_of(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let listed = with_retries(is_transient, || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
    });
    let mut files = match listed {
        Ok(files) => files,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
            ) =>
        {
            vec![]
        }
        Err(error) => return Err(Error::of_reading(folder, error)),
    };
    files.retain(|path| path.is_file() && !is_system(path, false));
    files.sort();
    Ok(files)
}
