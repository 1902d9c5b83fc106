//! Replacing a file as a whole, so that a reader sees the old content or the new, never a part.
//!
//! Links are followed. What is there already and no regular file, such as a pipe or `/dev/null`, is written to and not replaced.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::Error;

/// Replaces a file by a picture or a table. It is not flushed to the disk, which takes time while a run goes on: a loss
/// of power may leave it empty, and then it can be made again.
///
/// # Errors
/// [`Error::Write`]; whatever was at `path` is then still there.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Error> {
    write(path, content, false).map_err(Error::write(path))
}

/// Replaces a file by what cannot be made again, such as a model: it is on the disk before the old one is gone.
///
/// # Errors
/// The system's reason; whatever was at `path` is then still there.
pub fn replace_for_good(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, true)
}

/// Checks that a file could be replaced, before there is work to lose.
///
/// # Errors
/// [`Error::Write`].
pub fn check_writable(path: &Path) -> Result<(), Error> {
    let check = || {
        let Some(target) = target(path) else { return Ok(()) };
        if target.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        let temporary = temporary(&target);
        create(&temporary)?;
        fs::remove_file(&temporary)
    };
    check().map_err(explained).map_err(Error::write(path))
}

fn write(path: &Path, content: &[u8], flush: bool) -> io::Result<()> {
    let Some(target) = target(path) else {
        let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(content));
        return written.map_err(explained);
    };
    let temporary = temporary(&target);
    let written = create(&temporary).and_then(|mut file| {
        file.write_all(content)?;
        if flush { file.sync_all() } else { Ok(()) }
    });
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, &target)) {
        let _ = fs::remove_file(&temporary);
        return Err(explained(error));
    }
    // Without this the rename itself may be lost with the power. Not every system can do it.
    if flush && let Ok(folder) = File::open(folder(&target)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The file to replace, which is where links lead; `None` where something is there that is no file.
fn target(path: &Path) -> Option<PathBuf> {
    /// As many links as Linux follows.
    const LINKS: usize = 40;
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return None;
    }
    let mut target = path.to_owned();
    for _ in 0..LINKS {
        let Ok(to) = fs::read_link(&target) else { break };
        target = folder(&target).join(to);
    }
    Some(target)
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file beside `path`. Hidden, and without the ending: viewers that watch the folder should not pick it up.
fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    path.with_file_name(name)
}

/// Creates a file anew, so that nothing is written through a link that somebody has put there.
fn create(path: &Path) -> io::Result<File> {
    // What a program that was killed has left.
    let _ = fs::remove_file(path);
    File::create_new(path)
}

/// The system's reason, and the way out.
fn explained(error: io::Error) -> io::Error {
    let way_out = match error.kind() {
        ErrorKind::NotFound => "make the folder first, or name another",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::NotADirectory => "name a file in a folder",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that can be written to"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, or name a file on another disk",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {way_out}"))
}
