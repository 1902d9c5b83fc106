//! Search for the MPI library.
//!
//! The environment variable [`LIBRARY`] specifies the file. Otherwise the names of the launcher's family are
//! tried, first in the folders `lib` and `lib64` of the launcher's installation, then in the system's search
//! path (including `LD_LIBRARY_PATH`).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::abi::Abi;
use crate::{Family, Launcher, RanksError};

/// Environment variable with the path of the MPI library, or of its folder.
pub const LIBRARY: &str = "GLOWFLOW_MPI_LIBRARY";

#[cfg(not(target_os = "macos"))]
mod names {
    pub const STANDARD: &str = "libmpi_abi.so.1";
    pub const OPEN_MPI: &str = "libmpi.so.40";
    pub const MPICH: &str = "libmpi.so.12";
    /// Debian's file name.
    pub const MPICH_DEBIAN: &str = "libmpich.so.12";
    pub const ANY: &str = "libmpi.so";
}

#[cfg(target_os = "macos")]
mod names {
    pub const STANDARD: &str = "libmpi_abi.1.dylib";
    pub const OPEN_MPI: &str = "libmpi.40.dylib";
    pub const MPICH: &str = "libmpi.12.dylib";
    pub const MPICH_DEBIAN: &str = "libpmpi.12.dylib";
    pub const ANY: &str = "libmpi.dylib";
}

/// File names of MPI libraries, most likely first.
fn names(family: Family) -> &'static [&'static str] {
    use names::{ANY, MPICH, MPICH_DEBIAN, OPEN_MPI, STANDARD};
    match family {
        Family::OpenMpi => &[OPEN_MPI, STANDARD, ANY],
        Family::Mpich => &[STANDARD, MPICH, MPICH_DEBIAN, ANY],
        Family::Unknown => &[STANDARD, OPEN_MPI, MPICH, MPICH_DEBIAN, ANY],
    }
}

/// Files to try, in order. `prefix` is the parent folder of the launcher's `bin`.
fn candidates(family: Family, named: Option<&OsStr>, prefix: Option<&Path>) -> Vec<PathBuf> {
    let names = names(family);
    let files_in =
        |folder: PathBuf| names.iter().map(move |name| folder.join(name)).filter(|path| path.exists());
    match named.map(Path::new) {
        Some(folder) if folder.is_dir() => files_in(folder.into()).collect(),
        Some(file) => vec![file.into()],
        None => {
            let folders = prefix.into_iter().flat_map(|prefix| ["lib", "lib64"].map(|lib| prefix.join(lib)));
            folders.flat_map(files_in).chain(names.iter().map(PathBuf::from)).collect()
        }
    }
}

/// The parent of the `bin` folder of this process's parent, which usually is the launcher.
fn launcher_prefix() -> Option<PathBuf> {
    let parent = fs::read_link(format!("/proc/{}/exe", std::os::unix::process::parent_id())).ok()?;
    let bin = parent.parent().filter(|bin| bin.ends_with("bin"))?;
    bin.parent().map(Path::to_path_buf)
}

/// Opens the first usable MPI library.
pub(crate) fn open(launcher: Option<&Launcher>) -> Result<Abi, RanksError> {
    let family = launcher.map_or(Family::Unknown, |launcher| launcher.family);
    let named = std::env::var_os(LIBRARY).filter(|name| !name.is_empty());
    let prefix = launcher.and_then(|_| launcher_prefix());
    let mut tried = Vec::new();
    for path in candidates(family, named.as_deref(), prefix.as_deref()) {
        match Abi::open(&path) {
            Ok(abi) => return Ok(abi),
            Err(reason) => tried.push(reason),
        }
    }
    if tried.is_empty() {
        tried.push(format!("{LIBRARY} names a folder without one"));
    }
    let launcher = launcher.map_or("a program", |launcher| launcher.name).into();
    Err(RanksError::NoLibrary { launcher, tried: tried.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_is_the_only_candidate() {
        let named = Some(OsStr::new("/opt/mpi/libmpi.so.12"));
        assert_eq!(candidates(Family::OpenMpi, named, None), [Path::new("/opt/mpi/libmpi.so.12")]);
    }

    #[test]
    fn the_launchers_own_library_comes_first() {
        let prefix = tempfile::tempdir().unwrap();
        fs::create_dir(prefix.path().join("lib")).unwrap();
        let own = prefix.path().join("lib").join(names::MPICH);
        fs::write(&own, "").unwrap();
        let found = candidates(Family::Mpich, None, Some(prefix.path()));
        assert_eq!(found[0], own);
        assert_eq!(found[1..], names(Family::Mpich).iter().map(PathBuf::from).collect::<Vec<_>>());
        let folder = prefix.path().join("lib");
        assert_eq!(candidates(Family::Mpich, Some(folder.as_os_str()), None), [own]);
    }
}
