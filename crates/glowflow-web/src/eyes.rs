//! Eye positions in the model's images: the only data that a request can store.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use glowflow::faces::{self, Faces};

use crate::Problem;

/// The known position of the faces in the model's images.
#[derive(Debug)]
pub(crate) struct KnownEyes {
    model: PathBuf,
    faces: RwLock<Option<Faces>>,
    /// Held while the file is written, so that it agrees with `faces`.
    writing: Mutex<()>,
    stored: bool,
}

impl KnownEyes {
    pub fn new(model: &Path, faces: Option<Faces>) -> Self {
        let model = model.to_owned();
        Self { model, faces: RwLock::new(faces), writing: Mutex::new(()), stored: false }
    }

    /// Sets whether requests can store positions.
    pub fn storing(self, stored: bool) -> Self {
        Self { stored, ..self }
    }

    /// Returns whether requests can store positions.
    pub fn are_stored(&self) -> bool {
        self.stored
    }

    /// The current position; `None` if unknown.
    pub fn get(&self) -> Option<Faces> {
        *self.faces.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file with the model. Its name and folder are fixed, and it contains at most four numbers.
    pub fn store(&self, faces: Faces) -> Result<(), Problem> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        faces::write(&self.model, faces)?;
        *self.faces.write().unwrap_or_else(PoisonError::into_inner) = Some(faces);
        Ok(())
    }
}
