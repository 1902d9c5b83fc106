//! A new folder for a run without `--out`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A folder created for a run. Dropping it removes the folder if it is still empty.
pub struct NewFolder(PathBuf);

impl NewFolder {
    /// Creates `name`, or `name-2` and so on if that is taken. Concurrent processes get distinct folders.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let mut path = PathBuf::from(name);
        for number in 2.. {
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    path = format!("{name}-{number}").into();
                }
                made => {
                    made.with_context(|| format!("creating the folder {}", path.display()))?;
                    break;
                }
            }
        }
        Ok(Self(path))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        // Fails if the folder is not empty.
        let _ = std::fs::remove_dir(&self.0);
    }
}
