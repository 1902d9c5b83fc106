//! Replaces files atomically: a reader sees the old content or the new, never a part.
//!
//! Links are followed. A target that is not a regular file, such as a pipe or `/dev/null`, is written to
//! instead of replaced. Content is first written to a uniquely named temporary file in the same folder, so
//! any number of writers may replace a file concurrently: the last one wins.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

/// Prefix of temporary files. They are hidden and have no extension, so that viewers that watch the folder
/// ignore them.
const PREFIX: &str = ".glowflow-";
/// Number of random letters and digits after the prefix.
const RANDOM: usize = 12;

/// Replaces a file by an image or a table. It is not flushed to disk, which would delay a run: a power
/// failure may leave it empty, and it can then be regenerated.
///
/// # Errors
/// The system's error, with advice; the previous content of `path` is then intact.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, false)
}

/// Replaces a file by content that cannot be regenerated, such as a model: it is on disk before the old
/// content is gone.
///
/// # Errors
/// The system's error, with advice; the previous content of `path` is then intact.
pub fn replace_for_good(path: &Path, content: &[u8]) -> io::Result<()> {
    write(path, content, true)
}

/// Writes a new file in `folder` under the first free name of `stem.extension`, `stem-2.extension` and so on;
/// returns its path.
///
/// # Errors
/// The system's error, with advice.
pub fn write_new(folder: &Path, stem: &str, extension: &str, content: &[u8]) -> io::Result<PathBuf> {
    let mut path = folder.join(format!("{stem}.{extension}"));
    let mut temporary = temporary(&path, content, false).map_err(explained)?;
    for number in 2.. {
        match temporary.persist_noclobber(&path) {
            Err(error) if error.error.kind() == ErrorKind::AlreadyExists => temporary = error.file,
            Err(error) => return Err(explained(error.error)),
            Ok(_) => break,
        }
        path = folder.join(format!("{stem}-{number}.{extension}"));
    }
    Ok(path)
}

/// Checks that a file can be replaced, before there is work to lose.
///
/// # Errors
/// The system's error, with advice.
pub fn check_writable(path: &Path) -> io::Result<()> {
    let check = || {
        let Some(target) = target(path) else { return Ok(()) };
        match fs::symlink_metadata(&target) {
            Ok(found) if found.is_dir() => return Err(ErrorKind::IsADirectory.into()),
            // For example a name that is too long.
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        temporary(&target, &[], false).map(drop)
    };
    check().map_err(explained)
}

fn write(path: &Path, content: &[u8], flush: bool) -> io::Result<()> {
    let Some(target) = target(path) else {
        let written = OpenOptions::new().write(true).open(path).and_then(|mut file| file.write_all(content));
        return written.map_err(explained);
    };
    let temporary = temporary(&target, content, flush).map_err(explained)?;
    temporary.persist(&target).map_err(|error| explained(error.error))?;
    // Without this a power failure can undo the rename itself. Not every system supports it.
    if flush && let Ok(folder) = File::open(folder(&target)) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// The file to replace, after following links; `None` if the path exists and is neither a file nor a folder.
fn target(path: &Path) -> Option<PathBuf> {
    /// The limit on Linux.
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

/// Creates a temporary file with `content` in the folder of `target`. It is removed unless it replaces the
/// target, and locked as long as it exists.
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

/// Creates a locked temporary file in a folder.
fn create(folder: &Path) -> io::Result<NamedTempFile> {
    loop {
        // The reason without the temporary file's name.
        let mut reason = None;
        let create = |path: &Path| File::create_new(path).map_err(|error| reason.insert(error).kind().into());
        let made = tempfile::Builder::new().prefix(PREFIX).rand_bytes(RANDOM).make_in(folder, create);
        let temporary = made.map_err(|error| reason.unwrap_or(error))?;
        // Another process may have removed it as abandoned before it was locked. On file systems without
        // locks no process removes temporary files.
        if temporary.as_file().lock().is_err() || temporary.path().exists() {
            return Ok(temporary);
        }
    }
}

/// Removes temporary files of killed programs from a folder: those without a lock. Runs once per folder,
/// because a folder may have many files.
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

/// Returns whether a name has the form of this crate's temporary files.
fn is_temporary(name: &OsStr) -> bool {
    let random = name.as_encoded_bytes().strip_prefix(PREFIX.as_bytes());
    random.is_some_and(|name| name.len() == RANDOM && name.iter().all(u8::is_ascii_alphanumeric))
}

/// Opens and locks a file if no process holds a lock on it.
fn abandoned(path: &Path) -> io::Result<File> {
    // Only regular files are opened: opening a pipe would block until it has a writer.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(ErrorKind::InvalidInput.into());
    }
    let file = OpenOptions::new().write(true).open(path)?;
    file.try_lock()?;
    Ok(file)
}

/// Adds advice to the system's error.
fn explained(error: io::Error) -> io::Error {
    let way_out = match error.kind() {
        ErrorKind::NotFound => "create the folder first, or give another",
        ErrorKind::IsADirectory => "give a file in it",
        ErrorKind::NotADirectory => "give a file in a folder",
        ErrorKind::InvalidFilename => "give it a shorter name",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => "give a file in a writable folder",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "free disk space, or give a file on another disk"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {way_out}"))
}
