//! Positions of the eyes in a run's images, stored with its model.

use std::path::Path;

use glowflow_data::portraits;

use super::config::RunConfig;
use crate::faces::{self, Faces};
use crate::{Error, data};

/// Stores the face positions of a new run in the folder `out`: the `given` positions if any, else those
/// already in the folder, else those of the data or of the run's initial model. Writes nothing if no
/// positions are available.
///
/// # Errors
/// As [`faces::read`] and [`faces::write`].
pub fn store(out: &Path, config: &RunConfig, given: Option<Faces>) -> Result<(), Error> {
    let known = match given {
        Some(faces) => Some(faces),
        None if faces::read(out)?.is_some() => None,
        None => match of_data(config)? {
            Some(faces) => Some(faces),
            None => config.train.from.as_deref().map(faces::read).transpose()?.flatten(),
        },
    };
    known.map_or(Ok(()), |faces| faces::write(out, faces))
}

/// Positions provided with the data.
fn of_data(config: &RunConfig) -> Result<Option<Faces>, Error> {
    match config.data.path.as_deref() {
        Some(path) if data::is_portraits(path) => Ok(Some(Faces::Aligned(portraits::EYES))),
        Some(path) if path.is_dir() => faces::read(path),
        _ => Ok(None),
    }
}
