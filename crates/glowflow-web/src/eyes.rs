//! Positions of the eyes in the model's images: the one thing that a request can store.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock};

use glowflow::faces::{self, Faces};

use crate::Problem;

/// Knowledge about the faces in the model's images.
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

    /// Lets requests store positions, or not.
    pub fn storing(self, stored: bool) -> Self {
        Self { stored, ..self }
    }

    /// Whether requests can store positions.
    pub fn are_stored(&self) -> bool {
        self.stored
    }

    /// What is known now; `None` if nothing is.
    pub fn get(&self) -> Option<Faces> {
        *self.faces.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file with the model. Its name and folder are fixed, and its contents are four numbers at most.
    pub fn store(&self, faces: Faces) -> Result<(), Problem> {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        faces::write(&self.model, faces)?;
        *self.faces.write().unwrap_or_else(PoisonError::into_inner) = Some(faces);
        Ok(())
    }
}
