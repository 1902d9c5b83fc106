//! The model that the server presents, and its metadata.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::StatusCode;
use glowflow::faces::Faces;
use glowflow::latent::{DIRECTIONS, Directions};
use glowflow::train::{Evaluated, Trained, class_names, evaluated, run_folder, trained};
use glowflow::{Model, ModelConfig, catch_out_of_memory, pretrained};
use glowflow_data::ImageShape;
use tokio::sync::Semaphore;

use crate::detection::Detector;
use crate::eyes::KnownEyes;
use crate::gate::{Client, Gate};
use crate::store::Store;
use crate::{Face, Limits, Problem};

/// Reloads the model; the error states why it cannot.
type Again = Box<dyn Fn() -> Result<Model, String> + Send + Sync>;

/// A model with its metadata, ready to be served.
pub struct Demo {
    /// `None` after its device has failed, until it is needed again.
    glow: Mutex<Option<Arc<Model>>>,
    again: Option<Again>,
    pub(crate) fingerprint: u32,
    pub(crate) config: ModelConfig,
    pub(crate) parameters: usize,
    pub(crate) directions: Option<Directions>,
    unread: Option<glowflow::Error>,
    pub(crate) class_names: Vec<String>,
    pub(crate) trained: Option<Trained>,
    pub(crate) evaluation: Option<Evaluated>,
    pub(crate) eyes: KnownEyes,
    pub(crate) detector: Option<Detector>,
    pub(crate) limits: Limits,
    pub(crate) gate: Gate,
    /// One permit per byte of upload memory.
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) store: Store,
}

impl Demo {
    /// Presents a model with the metadata found in the folder of `model`, the run or file that it was loaded
    /// from. Directions are read from the file `directions`, by default from that folder, if present. `faces`
    /// states the position of the faces in the model's images. By default, requests can neither store that
    /// position (see [`storing_eyes`](Self::storing_eyes)) nor detect faces (see
    /// [`finding_faces`](Self::finding_faces)).
    ///
    /// # Errors
    /// Errors of reading model and directions, and [`glowflow::Error::Input`] if the model's images cannot be
    /// displayed.
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
                "{}: its images have {channels} channels, but browsers display only 1 or 3",
                model.display()
            )));
        }
        let [height, width, _] = glow.config().image();
        if height.saturating_mul(width) > limits.pixels {
            return Err(glowflow::Error::Input(format!(
                "{}: its images of {width}×{height} pixels are too large for a page; models of up to {} pixels are \
                 served, and larger ones can only be sampled to files",
                model.display(),
                limits.pixels
            )));
        }
        let folder = run_folder(model);
        let found = folder.join(DIRECTIONS);
        let (directions, unread) = match directions {
            Some(path) => (Some(Directions::read(path, &glow)?), None),
            None if !pretrained::exists(&found) => (None, None),
            // The directions may belong to another model: a run folder holds its best and its last model, and
            // training may continue.
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
            class_names: class_names(model, glow.config()),
            glow: Mutex::new(Some(Arc::new(glow))),
            directions,
            unread,
            trained: trained(model),
            evaluation: evaluated(model),
            eyes: KnownEyes::new(model, faces),
            detector: None,
            limits,
            gate: Gate::new(limits.computing, limits.waiting),
            uploads: Arc::new(Semaphore::new(limits.uploading_bytes.min(Semaphore::MAX_PERMITS))),
            store: Store::new(limits.stored_bytes, limits.stored_for),
        })
    }

    /// Sets the function that reloads the model. If a device fails, for example because other programs use
    /// its memory, it stays unusable. `again` then loads the model for the requests that follow.
    pub fn reloading(self, again: impl Fn() -> Result<Model, String> + Send + Sync + 'static) -> Self {
        Self { again: Some(Box::new(again)), ..self }
    }

    /// Sets whether requests can store eye positions in `eyes.toml` with the model. Allow it only if no other
    /// computer can reach the server.
    pub fn storing_eyes(self, stored: bool) -> Self {
        Self { eyes: self.eyes.storing(stored), ..self }
    }

    /// Detects faces in photographs with `detect`, which takes the pixels `[H, W, C]` of an upright
    /// photograph and returns its faces, the largest first, or the reason for a failure.
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
        let again = self.again.as_ref().ok_or_else(|| failed("the model is not loaded"))?;
        let loaded = catch_out_of_memory(again).map_err(|error| error.to_string()).flatten();
        let glow = Arc::new(loaded.map_err(|why| failed(&format!("the model cannot be reloaded: {why}")))?);
        if glow.fingerprint() != self.fingerprint {
            return Err(failed("its file now holds another model"));
        }
        *shown = Some(Arc::clone(&glow));
        Ok(glow)
    }

    /// Computes with the model when this request is admitted (see [`Gate::run`]).
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
                // Another request may have detected the failure first.
                if demo.again.is_some() && shown.as_ref().is_some_and(|shown| Arc::ptr_eq(shown, &glow)) {
                    *shown = None;
                }
            }
            result
        };
        self.gate.run(computed).await
    }

    /// The reason why directions found next to the model are not used, if any.
    pub fn unread(&self) -> Option<&glowflow::Error> {
        self.unread.as_ref()
    }

    /// Names of the attributes with weak directions, each with the reason.
    pub fn weak_attributes(&self) -> impl Iterator<Item = (&str, String)> {
        let list = self.directions.iter().flat_map(|directions| &directions.list);
        list.filter_map(|direction| Some((direction.about.name.as_str(), direction.about.weakness()?)))
    }

    /// Names of the attributes that can be changed.
    pub fn attributes(&self) -> impl Iterator<Item = &str> {
        self.directions.iter().flat_map(|directions| &directions.list).map(|d| d.about.name.as_str())
    }

    /// Maximum number of images per request.
    pub(crate) fn images(&self) -> usize {
        self.limits.images_of(self.config.image())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use glowflow::model::ModelFile;
    use glowflow::{Cpu, Device, GlowConfig};

    use super::*;

    #[tokio::test]
    async fn out_of_memory_is_reported_and_the_next_request_succeeds() {
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
            let _ = Cpu::<f32>::new().scratch(1 << 58);
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
