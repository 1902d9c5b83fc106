//! Replacing a file as a whole, so that a reader sees the old content or the new, never a part.
//!
//! Links are followed. Anything there that is not a regular file, such as a pipe or `/dev/null`, is written to and not
//! replaced. Content goes to a temporary file in the same folder first, under a name of its own, so that any number of
//! writers may replace one file at once: the last one wins.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

use crate::Error;

/// How names of temporary files begin. They are hidden and have no extension: viewers that watch the folder should not
/// pick them up.
const PREFIX: &str = ".glowflow-";
/// Random letters and digits behind the prefix.
const RANDOM: usize = 12;

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

/// Writes a new file in `folder` under the first free name of `stem.extension`, `stem-2.extension` and so on; returns its
/// path.
///
/// # Errors
/// [`Error::Write`].
pub fn write_new(folder: &Path, stem: &str, extension: &str, content: &[u8]) -> Result<PathBuf, Error> {
    let mut path = folder.join(format!("{stem}.{extension}"));
    let mut temporary = temporary(&path, content, false).map_err(explained).map_err(Error::write(&path))?;
    for number in 2.. {
        match temporary.persist_noclobber(&path) {
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => temporary = error.file,
            Err(error) => return Err(Error::write(&path)(explained(error.error))),
            Ok(_) => break,
        }
        path = folder.join(format!("{stem}-{number}.{extension}"));
    }
    Ok(path)
}

/// Checks that a file could be replaced, before there is work to lose.
///
/// # Errors
/// [`Error::Write`].
pub fn check_writable(path: &Path) -> Result<(), Error> {
    let check = || {
        let Some(target) = target(path) else { return Ok(()) };
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            // Such as a name that is too long.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        temporary(&target, &[], false).map(drop)
    };
    check().map_err(explained).map_err(Error::write(path))
}

fn write(path: &Path, content: &[u8], flush: bool) -> io::Result<()> {
    let Some(target) = target(path) else {
        let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(content));
        return written.map_err(explained);
    };
    let temporary = temporary(&target, content, flush).map_err(explained)?;
    temporary.persist(&target).map_err(|error| explained(error.error))?;
    // Without this the rename itself may be lost with the power. Not every system can do it.
    if flush && let Ok(folder) = File::open(folder(&target)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The file to replace, which is where links lead; `None` if something is there that is not a file.
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

/// A temporary file with `content` in the folder of `target`, which removes itself unless it takes the target's place.
/// It is locked as long as it exists.
fn temporary(target: &Path, content: &[u8], flush: bool) -> io::Result<NamedTempFile> {
    let folder = folder(target);
    remove_abandoned(folder);
    let mut temporary = create(folder)?;
    temporary.as_file_mut().write_all(content)?;
    if let Ok(replaced) = fs::metadata(target)
        && replaced.is_file()
    {
        let _ = temporary.as_file().set_permissions(replaced.permissions());
    }
    if flush {
        temporary.as_file().sync_all()?;
    }
    Ok(temporary)
}

/// A new temporary file in a folder, locked.
fn create(folder: &Path) -> io::Result<NamedTempFile> {
    loop {
        // The reason alone, without the temporary file's name.
        let mut reason = None;
        let create = |path: &Path| File::create_new(path).map_err(|error| reason.insert(error).kind().into());
        let made = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).make_in(folder, create);
        let temporary = made.map_err(|error| reason.unwrap_or(error))?;
        // Before it was locked, another process may have taken it for abandoned. Not every file system has locks, and
        // then nobody does.
        if temporary.as_file().lock().is_err() || temporary.path().exists() {
            return Ok(temporary);
        }
    }
}

/// Removes what killed programs have left in a folder: temporary files that nobody holds a lock on. Once for each folder,
/// which may have many files.
fn remove_abandoned(folder: &Path) {
    static SEEN: Mutex<Option<HashSet<PathBuf>>> = Mutex::new(None);
    let Ok(folder) = folder.canonicalize() else { return };
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if !seen.get_or_insert_default().insert(folder.clone()) {
        return;
    }
    drop(seen);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary(&entry.file_name())
            && let Ok(_locked) = abandoned(&entry.path())
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether a file has a name that this module gives to temporary ones.
fn is_temporary(name: &OsStr) -> bool {
    let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    random.is_some_and(|name| name.len() == RANDOM && name.iter().all(u8::is_ascii_alphanumeric))
}

/// Locks a file that nobody else holds a lock on.
fn abandoned(path: &Path) -> io::Result<File> {
    // Nothing but files is opened: a pipe of such a name would wait for its writer.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// The system's reason, and the way out.
fn explained(error: io::Error) -> io::Error {
    let way_out = match error.kind() {
        ErrorKind::NotFound => "make the folder first, or name another",
        ErrorKind::IsADirectory => "name a file in it",
        ErrorKind::NotADirectory => "name a file in a folder",
        ErrorKind::InvalidFilename => "give it a shorter name",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that can be written to"
        }
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "make room, or name a file on another disk",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {way_out}"))
}
