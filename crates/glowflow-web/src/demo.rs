//! The model that the server shows, and everything known about it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use glowflow::faces::Faces;
use glowflow::latent::{DIRECTIONS, Directions};
use glowflow::train::{LastEvaluation, Trained, last_evaluation, run_folder, trained};
use glowflow::{Model, ModelConfig, catch_out_of_memory, data};
use glowflow_data::ImageShape;
use tokio::sync::Semaphore;

use crate::detection::Detector;
use crate::eyes::KnownEyes;
use crate::gate::{Client, Gate};
use crate::store::Store;
use crate::{Face, Limits, Problem};

/// Loads the model once more, or says why it cannot.
type Again = Box<dyn Fn() -> Result<Model, String> + Send + Sync>;

/// A model on show.
pub struct Demo {
    /// None after its device has failed, until it is needed again.
    glow: Mutex<Option<Arc<Model>>>,
    again: Option<Again>,
    pub(crate) fingerprint: u32,
    pub(crate) config: ModelConfig,
    pub(crate) parameters: usize,
    pub(crate) directions: Option<Directions>,
    unread: Option<glowflow::Error>,
    pub(crate) class_names: Vec<String>,
    pub(crate) trained: Option<Trained>,
    pub(crate) evaluation: Option<LastEvaluation>,
    pub(crate) eyes: KnownEyes,
    pub(crate) detector: Option<Detector>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    /// A permit for each byte that uploads may hold.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) store: Store,
}

impl Demo {
    /// Shows a model, with everything known about it in the folder of `model`, the run or file that it was loaded from.
    /// Directions are those of the file `directions`, by default those in that folder, if any. `faces` says where the
    /// faces are in the model's images. Requests cannot store that (see [`storing_eyes`](Self::storing_eyes)), nor find
    /// faces (see [`finding_faces`](Self::finding_faces)).
    ///
    /// # Errors
    /// Errors of reading model and directions, and [`glowflow::Error::Input`] if the model's images cannot be shown.
    pub fn load(
        glow: Model,
        model: &Path,
        directions: Option<&Path>,
        faces: Option<Faces>,
        limits: Limits,
    ) -> Result<Self, glowflow::Error> {
        let channels = glow.config().image()[2];
        if !matches!(channels, 1 | 3) {
            return Err(glowflow::Error::Input(format!(
                "{}: its images have {channels} channels, and browsers show those of 1 or 3",
                model.display()
            )));
        }
        let [height, width, _] = glow.config().image();
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
            again: None,
            fingerprint: glow.fingerprint(),
            config: glow.config().clone(),
            parameters: glow.parameters(),
            class_names: data::class_names(model, glow.config()),
            glow: Mutex::new(Some(Arc::new(glow))),
            directions,
            unread,
            trained: trained(folder),
            evaluation: last_evaluation(folder),
            eyes: KnownEyes::new(model, faces),
            detector: None,
            limits,
            gate: Gate::new(limits.computing, limits.waiting),
            uploads: Arc::new(Semaphore::new(limits.uploading_bytes.min(Semaphore::MAX_PERMITS))),
            store: Store::new(limits.stored_bytes, limits.stored_for),
        })
    }

    /// Where a device fails, for want of memory that other programs have, say, it does nothing from there on. `again` then loads the model
    /// anew for the requests that follow.
    pub fn reloading(self, again: impl Fn() -> Result<Model, String> + Send + Sync + 'static) -> Self {
        Self { again: Some(Box::new(again)), ..self }
    }

    /// Lets requests store the positions of the eyes in `eyes.toml` with the model, or not. Allow it only if no other
    /// computer reaches the server.
    pub fn storing_eyes(self, stored: bool) -> Self {
        Self { eyes: self.eyes.storing(stored), ..self }
    }

    /// Finds faces in photographs with `detect`, which gets pixels `[H, W, C]` of an upright photograph and answers
    /// with its faces, the largest first, or with the reason for a failure.
    pub fn finding_faces(
        self,
        detect: impl Fn(&[u8], ImageShape) -> Result<Vec<Face>, String> + Send + Sync + 'static,
    ) -> Self {
        Self { detector: Some(Box::new(detect)), ..self }
    }

    fn shown(&self) -> MutexGuard<'_, Option<Arc<Model>>> {
        self.glow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn glow(&self) -> Result<Arc<Model>, Problem> {
        let mut shown = self.shown();
        if let Some(glow) = &*shown {
            return Ok(Arc::clone(glow));
        }
        let failed = |why: &str| {
            let detail = format!("the model's device failed, and {why}; restart the server");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        };
        let again = self.again.as_ref().ok_or_else(|| failed("the model is gone"))?;
        let loaded = catch_out_of_memory(again).map_err(|error| error.to_string()).flatten();
        let glow =
            Arc::new(loaded.map_err(|why| failed(&format!("the model cannot be loaded again: {why}")))?);
        if glow.fingerprint() != self.fingerprint {
            return Err(failed("its file holds another model now"));
        }
        *shown = Some(Arc::clone(&glow));
        Ok(glow)
    }

    /// Computes with the model when it is this request's turn (see [`Gate::run`]).
    pub(crate) async fn compute<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Model, &Client) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let demo = Arc::clone(self);
        let computed = move |client: &Client| {
            let glow = demo.glow()?;
            let result = catch_out_of_memory(|| work(&glow, client))
                .map_err(|error| glowflow::Error::from(error).into())
                .flatten();
            if result.as_ref().is_err_and(|problem| problem.device_failed) {
                let mut shown = demo.shown();
                // Another request may have seen it first.
                if demo.again.is_some() && shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &glow)) {
                    *shown = None;
                }
            }
            result
        };
        self.gate.run(computed).await
    }

    /// Why directions that were found beside the model are not used, if there are such.
    pub fn unread(&self) -> Option<&glowflow::Error> {
        self.unread.as_ref()
    }

    /// Names of the attributes whose directions are weak, and why.
    pub fn weak_attributes(&self) -> impl Iterator<Item = (&str, String)> {
        let list = self.directions.iter().flat_map(|directions| &directions.list);
        list.filter_map(|direction| Some((direction.about.name.as_str(), direction.about.weakness()?)))
    }

    /// Names of the attributes that can be changed.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.directions.iter().flat_map(|directions| &directions.list).map(|d| d.about.name.as_str())
    }

    /// The largest number of images in one request.
    pub(crate) fn images(&self) -> usize {
        self.limits.images_of(self.config.image())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use glowflow::model::ModelFile;
    use glowflow::{Device, GlowConfig, Precision};

    use super::*;

    #[tokio::test]
    async fn memory_that_the_processor_refuses_is_named_and_the_next_request_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let config = GlowConfig { image: [8, 8, 3], levels: 1, steps: 1, hidden: 4, ..GlowConfig::default() };
        ModelFile::new(config, 1).unwrap().write(&path).unwrap();
        let load = move |path: &Path| Model::load(path).map_err(|error| error.to_string());
        let demo = Demo::load(load(&path).unwrap(), &path, None, None, Limits::default());
        let loaded = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&loaded);
        let demo = Arc::new(demo.unwrap().reloading(move || {
            counter.fetch_add(1, Ordering::Relaxed);
            load(&path)
        }));
        let huge = |_: &Model, _: &Client| -> Result<(), Problem> {
            let _ = Precision::default().cpu().unwrap().scratch(1 << 58);
            Ok(())
        };
        let problem = demo.compute(huge).await.unwrap_err();
        assert_eq!(problem.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains("too little memory") && !text.contains("server's output"), "{text}");
        assert!(demo.compute(|glow, _| Ok(glow.draw(1, 0.7, 1)?)).await.is_ok());
        assert_eq!(loaded.load(Ordering::Relaxed), 1);
    }
}
