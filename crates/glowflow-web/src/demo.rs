//! What the server shows: a model with what is known of it.

use std::path::Path;
use std::sync::Arc;

use glowflow::Glow;
use glowflow::latent::{DIRECTIONS, Directions};
use glowflow::train::{LastEvaluation, last_evaluation, run_folder};
use tokio::sync::Semaphore;

use crate::Limits;
use crate::gate::Gate;
use crate::store::Store;

/// Where the eyes lie in the images that a model was trained on, as parts of width and height: photographs are aligned to
/// them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eyes {
    /// The eye on the left of the picture, x and y.
    pub left: [f64; 2],
    /// The one on the right.
    pub right: [f64; 2],
}

impl Default for Eyes {
    /// In CelebA's aligned photographs, cut to a square.
    fn default() -> Self {
        Self { left: [0.39, 0.51], right: [0.61, 0.51] }
    }
}

/// A model on show.
pub struct Demo {
    pub(crate) glow: Glow,
    pub(crate) directions: Option<Directions>,
    unread: Option<glowflow::Error>,
    pub(crate) evaluation: Option<LastEvaluation>,
    pub(crate) eyes: Eyes,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    /// A permit for each byte that uploads may hold.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) store: Store,
}

impl Demo {
    /// Shows a model, and what is known of it in the run's folder, or beside the file, that it was loaded from. Directions are those of
    /// the file `directions`, or, where nothing is said, those in the run's folder or beside the file, if any.
    ///
    /// # Errors
    /// Errors of reading model and directions, and [`glowflow::Error::Input`] where the model's images cannot be shown.
    pub fn load(
        glow: Glow,
        model: &Path,
        directions: Option<&Path>,
        eyes: Eyes,
        limits: Limits,
    ) -> Result<Self, glowflow::Error> {
        let channels = glow.config().image[2];
        if !matches!(channels, 1 | 3) {
            return Err(glowflow::Error::Input(format!(
                "{}: its images have {channels} channels, and browsers show those of 1 or 3",
                model.display()
            )));
        }
        let [height, width, _] = glow.config().image;
        if height.saturating_mul(width) > limits.pixels {
            return Err(glowflow::Error::Input(format!(
                "{}: its images of {width}×{height} pixels are too large to be drawn while somebody waits; models of up to {} \
                 pixels are served, and `glowflow sample` draws those of any size",
                model.display(),
                limits.pixels
            )));
        }
        let folder = run_folder(model);
        let found = folder.join(DIRECTIONS);
        let (directions, unread) = match directions {
            Some(path) => (Some(Directions::read(path, &glow)?), None),
            None if !found.exists() => (None, None),
            // They may well be another model's: a run has its best and its last, and goes on.
            None => match Directions::read(&found, &glow) {
                Ok(directions) => (Some(directions), None),
                Err(error) => (None, Some(error)),
            },
        };
        Ok(Self {
            glow,
            directions,
            unread,
            evaluation: last_evaluation(folder),
            eyes,
            limits,
            gate: Gate::new(limits.computing, limits.waiting),
            uploads: Arc::new(Semaphore::new(limits.uploading_bytes.min(Semaphore::MAX_PERMITS))),
            store: Store::new(limits.stored_bytes, limits.stored_for),
        })
    }

    /// Why directions that were found beside the model are not used, if there are such.
    pub fn unread(&self) -> Option<&glowflow::Error> {
        self.unread.as_ref()
    }

    /// Names of the attributes that can be changed.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.directions.iter().flat_map(|directions| &directions.list).map(|d| d.about.name.as_str())
    }

    /// The largest number of images in one request.
    pub(crate) fn images(&self) -> usize {
        self.limits.images_of(self.glow.config().image)
    }
}
