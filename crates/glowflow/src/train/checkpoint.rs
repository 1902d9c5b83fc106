//! Checkpoints: the complete state of a run in one safetensors file.
//!
//! Weights, both moments and the average are stored under `weights/`, `first/`, `second/` and `ema/` followed
//! by the parameter's name; everything else is the JSON object `glowflow.checkpoint`. A checksum of the
//! content detects damage. The previous checkpoint is kept as well.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::config::RunConfig;
use super::folder::BEST;
use super::run::run_folder;
use super::state::{Progress, TrainState};
use crate::Error;
use crate::model::{MODEL, layout};
use crate::params::{put_constants, put_flat, take_constants, take_flat};
use crate::tensor_file::TensorFile;

/// Name of the last checkpoint in a run's folder.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the previous checkpoint.
pub const PREVIOUS: &str = "checkpoint.previous.safetensors";

/// Name of the temporary hard link to the last checkpoint.
pub(super) const LINK: &str = "checkpoint.link.tmp";

const HEADER: &str = "glowflow.checkpoint";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Version of the format.
    version: u32,
    /// CRC-32 over configuration, progress, and the checksums of all tensors by name.
    checksum: u32,
    config: RunConfig,
    progress: Progress,
}

fn checksum(file: &TensorFile, config: &RunConfig, progress: &Progress) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    // The text does not depend on whether the values were computed or read from a file: the shortest form of
    // a number is exact.
    let text = serde_json::to_string(&(config, progress)).unwrap_or_default();
    hasher.update(text.as_bytes());
    for (name, tensor) in &file.tensors {
        hasher.update(name.as_bytes());
        hasher.update(&tensor.checksum().to_le_bytes());
    }
    hasher.finalize()
}

/// Saves a state as the last checkpoint in `folder`. The checkpoint that was the last becomes the previous one.
///
/// # Errors
/// [`Error::Io`]; the existing checkpoints are then intact.
pub fn save(folder: &Path, config: &RunConfig, state: &TrainState) -> Result<(), Error> {
    replace_last(folder, |last| write(last, config, state))
}

/// Replaces the last checkpoint in `folder`, which is of the same step. The previous one remains.
///
/// # Errors
/// [`Error::Io`]; the existing checkpoints are then intact.
pub(super) fn save_again(folder: &Path, config: &RunConfig, state: &TrainState) -> Result<(), Error> {
    write(&folder.join(CHECKPOINT), config, state)
}

fn write(path: &Path, config: &RunConfig, state: &TrainState) -> Result<(), Error> {
    let mut file = TensorFile::default();
    let layout = layout(&config.model);
    put_constants(&mut file, &layout, &state.constants);
    for (prefix, values) in [
        ("weights/", &state.weights),
        ("first/", &state.first),
        ("second/", &state.second),
        ("ema/", &state.ema),
    ] {
        put_flat(&mut file, &layout.parameters, prefix, values);
    }
    put_flat(&mut file, &layout.buffers, "weights/", &state.buffers);
    put_flat(&mut file, &layout.buffers, "ema/", &state.buffers_ema);
    let header = Header {
        version: 1,
        checksum: checksum(&file, config, &state.progress),
        config: config.clone(),
        progress: state.progress.clone(),
    };
    file.write(path, HEADER, &header)
}

/// Makes the last checkpoint the previous one, if `write` replaces it; otherwise both remain.
fn replace_last(folder: &Path, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
    let (last, previous) = (folder.join(CHECKPOINT), folder.join(PREVIOUS));
    if !last.exists() {
        return write(&last);
    }
    let link = folder.join(LINK);
    let written = link_to(&last, &link)
        .map_err(Error::io(&link))
        .and_then(|()| write(&last))
        .and_then(|()| fs::rename(&link, &previous).map_err(Error::io(&previous)));
    // It remains if there was an error, or if it already was a link to the same file as `previous`: POSIX
    // specifies that renaming then does nothing.
    let _ = fs::remove_file(&link);
    written
}

/// Hard-links the file `from` as `link`, replacing an existing file. File systems without hard links get a
/// copy on disk.
fn link_to(from: &Path, link: &Path) -> io::Result<()> {
    let _ = fs::remove_file(link);
    fs::hard_link(from, link).or_else(|_| {
        fs::copy(from, link)?;
        // Windows flushes only files that are open for writing.
        fs::OpenOptions::new().write(true).open(link)?.sync_all()
    })
}

/// Makes `path`, from which a run continues, its last checkpoint if it was the previous one: the next
/// [`save`] must not replace it with the skipped checkpoint, which may be damaged.
///
/// Removes the link that a killed save has left.
pub(crate) fn go_on_from(path: &Path) -> Result<(), Error> {
    let (link, last) = (path.with_file_name(LINK), path.with_file_name(CHECKPOINT));
    let _ = fs::remove_file(&link);
    if !path.ends_with(PREVIOUS) {
        return Ok(());
    }
    link_to(path, &link).and_then(|()| fs::rename(&link, &last)).map_err(Error::io(&last))?;
    // As in `replace_last`.
    let _ = fs::remove_file(&link);
    Ok(())
}

/// Locates the checkpoint to resume from: a file, or the last one in a run's folder; `None` if the run was
/// stopped before its first checkpoint.
pub fn find(path: &Path) -> Option<PathBuf> {
    if path.is_file() {
        return Some(path.to_owned());
    }
    let last = path.join(CHECKPOINT);
    last.is_file().then_some(last)
}

/// The step of the last checkpoint in a run's folder; `None` if there is no readable one.
pub(super) fn last_step(folder: &Path) -> Option<u64> {
    Some(last_progress(folder)?.step)
}

/// The progress in the last checkpoint in a run's folder, read from its header alone; `None` if there is no
/// readable one.
pub(crate) fn last_progress(folder: &Path) -> Option<Progress> {
    let header: Header = TensorFile::read_header(&folder.join(CHECKPOINT), HEADER).ok()?;
    Some(header.progress)
}

/// Loads a checkpoint.
///
/// # Errors
/// [`Error::Io`]; [`Error::LastCheckpoint`] if it is damaged and there is a previous checkpoint, else
/// [`Error::File`].
pub fn load(path: &Path) -> Result<(RunConfig, TrainState), Error> {
    read(path).map_err(|error| {
        let previous = path.with_file_name(PREVIOUS);
        match error {
            Error::File { path: damaged, reason } if path.ends_with(CHECKPOINT) && previous.is_file() => {
                Error::LastCheckpoint { path: damaged, reason, previous }
            }
            other => other,
        }
    })
}

fn read(path: &Path) -> Result<(RunConfig, TrainState), Error> {
    let mut file = TensorFile::read(path)?;
    if [MODEL, BEST].iter().any(|name| path.ends_with(name)) && path.with_file_name(CHECKPOINT).is_file() {
        let run = run_folder(path).display();
        return Err(Error::file(
            path,
            format!("it is a model, and not a checkpoint: continue its run, {run}"),
        ));
    }
    let header: Header = file.header(HEADER, path)?;
    if header.version != 1 {
        let version = header.version;
        return Err(Error::file(
            path,
            format!("it is a checkpoint of version {version}; this program reads version 1"),
        ));
    }
    if checksum(&file, &header.config, &header.progress) != header.checksum {
        return Err(Error::file(path, "its checksum does not match: the file is damaged"));
    }
    let config = header.config;
    // Rates are validated more strictly than in older versions, and a resumed run may change them.
    config.model.validate().map_err(|e| Error::file(path, e.to_string()))?;
    let layout = layout(&config.model);
    let constants = take_constants(&mut file, &layout, path)?;
    let mut take = |prefix| {
        let mut values = take_flat(&mut file, &layout.parameters, prefix, path)?;
        layout.clear_unread(&mut values);
        Ok::<_, Error>(values)
    };
    let (weights, first, second, ema) = (take("weights/")?, take("first/")?, take("second/")?, take("ema/")?);
    let mut take = |prefix| take_flat(&mut file, &layout.buffers, prefix, path);
    let (buffers, buffers_ema) = (take("weights/")?, take("ema/")?);
    let progress = header.progress;
    let state = TrainState { constants, weights, buffers, first, second, ema, buffers_ema, progress };
    Ok((config, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Also with the link of a run that was killed while saving, and with both names for one file.
    #[test]
    fn the_last_checkpoint_becomes_the_previous_one_unless_writing_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let names = [CHECKPOINT, PREVIOUS].map(|name| path.join(name));
        let contents = || names.clone().map(|name| fs::read_to_string(name).unwrap_or_default());
        let save = |text: &str| {
            replace_last(path, |last| {
                fs::write(last.with_extension("new"), text)
                    .and_then(|()| fs::rename(last.with_extension("new"), last))
                    .map_err(Error::io(last))
            })
        };
        save("1").unwrap();
        assert_eq!(contents(), ["1", ""]);
        save("2").unwrap();
        fs::write(path.join(LINK), "old").unwrap();
        assert!(replace_last(path, |last| Err(Error::file(last, "the disk is full"))).is_err());
        assert_eq!(contents(), ["2", "1"]);
        go_on_from(&names[1]).unwrap();
        assert_eq!(contents(), ["1", "1"]);
        save("3").unwrap();
        assert_eq!(contents(), ["3", "1"]);
        // Killed during a save, of which the run was the last.
        fs::write(path.join(LINK), "1").unwrap();
        go_on_from(&names[0]).unwrap();
        assert_eq!(fs::read_dir(path).unwrap().count(), 2, "nothing else is left");
    }
}
