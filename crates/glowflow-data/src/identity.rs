//! Identity of files and folders: detects two paths to the same one.

use std::fs::Metadata;
use std::path::Path;

#[cfg(unix)]
pub(crate) use unix::{Identity, identity};

#[cfg(not(unix))]
pub(crate) use other::{Identity, identity};

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[derive(Clone)]
    pub(crate) struct Identity {
        key: Key,
        names: u64,
    }

    /// Size and time guard against file systems that reuse inode numbers.
    type Key = (u64, u64, u64, i64, i64);

    /// `None` if the file system has no inode numbers.
    pub(crate) fn identity(_: &Path, file: &Metadata) -> Option<Identity> {
        let key = (file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec());
        (file.ino() != 0).then_some(Identity { key, names: file.nlink() })
    }

    impl Identity {
        /// Returns whether the file may have other hard links.
        pub fn has_other_names(&self) -> bool {
            self.names > 1
        }
    }

    impl PartialEq for Identity {
        fn eq(&self, other: &Self) -> bool {
            self.key == other.key
        }
    }

    impl Eq for Identity {}

    impl std::hash::Hash for Identity {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.key.hash(state);
        }
    }
}

#[cfg(not(unix))]
mod other {
    use std::path::PathBuf;

    use super::*;

    #[derive(Clone, PartialEq, Eq, Hash)]
    pub(crate) struct Identity(PathBuf);

    /// The path without symbolic links. Hard links are not detected.
    pub(crate) fn identity(path: &Path, _: &Metadata) -> Option<Identity> {
        path.canonicalize().ok().map(Identity)
    }

    impl Identity {
        /// Returns whether the file may have other hard links.
        pub fn has_other_names(&self) -> bool {
            false
        }
    }
}
