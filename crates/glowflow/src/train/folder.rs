//! A run's folder: locked against other processes, checked to be free for a new run, and restored if a run
//! cannot begin.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::checkpoint::{CHECKPOINT, LINK, PREVIOUS};
use super::config::{CONFIG, DataConfig, RunConfig};
use crate::card::{CONFIG_JSON, README};
use crate::faces::EYES;
use crate::model::MODEL;
use crate::{Error, data};

/// Name of the log.
pub const METRICS: &str = "metrics.jsonl";
/// Name of the folder of TensorBoard's logs.
pub const EVENTS: &str = "events";
/// Name of the best model on test images.
pub const BEST: &str = "best.safetensors";
/// Name of the grid of samples.
pub const SAMPLES: &str = "samples.png";
/// Name of the learning curve.
pub const CURVE: &str = "curve.png";

/// Files that a run writes before its first checkpoint is complete, except its events.
const FILES: [&str; 11] =
    [CONFIG, METRICS, MODEL, CHECKPOINT, BEST, SAMPLES, CURVE, LINK, EYES, CONFIG_JSON, README];

/// Locks a run's folder against training by a second process.
pub fn lock(folder: &Path) -> Result<Option<File>, Error> {
    // Systems that cannot lock a folder continue without a lock.
    let Ok(handle) = File::open(folder) else { return Ok(None) };
    match handle.try_lock() {
        Err(TryLockError::WouldBlock) => Err(Error::Input(format!(
            "another process is training in {}: wait for its end, or choose another folder",
            folder.display()
        ))),
        _ => Ok(Some(handle)),
    }
}

/// Checks that the folder of a new run contains no file that the run would replace, or train on.
pub fn check_free(out: &Path, config: &RunConfig) -> Result<(), Error> {
    let resume = |name: &str| match name {
        MODEL | BEST | METRICS => None,
        PREVIOUS => Some(out.join(name)),
        _ => Some(out.to_owned()),
    };
    let names = [CONFIG, CHECKPOINT, PREVIOUS, MODEL, BEST, METRICS];
    if let Some(found) = names.into_iter().find(|name| out.join(name).exists()) {
        return Err(Error::RunExists { folder: out.to_owned(), found, resume: resume(found) });
    }
    // Without a run in the folder, they are the user's.
    if let Some(picture) = [SAMPLES, CURVE].map(|name| out.join(name)).into_iter().find(|path| path.is_file())
    {
        return Err(Error::Input(format!(
            "{} exists and would be replaced: choose another folder, or move it",
            picture.display()
        )));
    }
    let among = |path: &PathBuf| match (path.canonicalize(), out.canonicalize()) {
        (Ok(data), Ok(out)) => out.starts_with(data),
        _ => false,
    };
    let empty = fs::read_dir(out).map_err(Error::io(out))?.next().is_none();
    if !empty && [&config.data.path, &config.data.test].into_iter().flatten().any(among) {
        return Err(Error::Input(format!(
            "{} holds some of the data, and a run's pictures would be among them: choose another folder",
            out.display()
        )));
    }
    Ok(())
}

/// Checks that the folder of a run that trains on the built-in data does not hide that data, which is selected
/// if no folder has its name.
pub fn check_portraits_stay_visible(out: &Path, data: &DataConfig) -> Result<(), Error> {
    let hides = |data: &PathBuf| {
        let paths = (std::path::absolute(out), std::path::absolute(data));
        data::is_portraits(data) && matches!(paths, (Ok(out), Ok(data)) if out.starts_with(&data))
    };
    if [&data.path, &data.test].into_iter().flatten().any(hides) {
        return Err(Error::Input(format!(
            "a folder {} would hide the built-in data of this name: choose another folder",
            out.display()
        )));
    }
    Ok(())
}

/// Contents of a folder before a run began in it.
pub struct Snapshot {
    folder: PathBuf,
    /// Missing folders, innermost first.
    missing: Vec<PathBuf>,
    names: HashSet<OsString>,
    events: HashSet<OsString>,
}

impl Snapshot {
    /// Records the contents of a folder, if it exists.
    pub fn of(folder: &Path) -> Self {
        let missing = folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists());
        Self {
            folder: folder.to_owned(),
            missing: missing.map(Path::to_owned).collect(),
            names: names(folder),
            events: names(&folder.join(EVENTS)),
        }
    }

    /// Removes everything that a run has created since, so that the folder is free for another attempt. Files
    /// that cannot be removed stay.
    pub fn restore(&self) {
        let made = |name: &&OsString| !self.names.contains(*name) && is_of_a_run(name);
        for name in names(&self.folder).iter().filter(made) {
            let _ = fs::remove_file(self.folder.join(name));
        }
        let events = self.folder.join(EVENTS);
        for name in names(&events).difference(&self.events) {
            if name.to_string_lossy().ends_with(".glowflow") {
                let _ = fs::remove_file(events.join(name));
            }
        }
        if !self.names.contains(&OsString::from(EVENTS)) {
            let _ = fs::remove_dir(events);
        }
        // Folders that are no longer empty stay.
        self.missing.iter().for_each(|folder| _ = fs::remove_dir(folder));
    }
}

/// The names in a folder; none if it cannot be read.
fn names(folder: &Path) -> HashSet<OsString> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// Returns whether a run writes files of this name.
fn is_of_a_run(name: &OsString) -> bool {
    FILES.iter().any(|file| name == file)
}
