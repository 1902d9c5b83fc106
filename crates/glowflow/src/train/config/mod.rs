//! Configuration of a run: three sections of a TOML file, presets, and overrides.

mod data;
mod layers;
mod optimizer;
mod train;

use std::fmt::Debug;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::model::layout;
use crate::models::{Architecture, ModelConfig};
use layers::{merge_layers, with_defaults};
use train::MAX_MUON_LR;

pub use data::{DataConfig, EdgeType};
pub(crate) use layers::{merge, override_table, with_preset, wrong};
pub use optimizer::{Optimizer, Schedule};
pub use train::TrainConfig;

/// Name of the configuration in a run's folder.
pub const CONFIG: &str = "config.toml";

/// Complete configuration of a run, which determines its results.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, bound(deserialize = "A: Default + Deserialize<'de>"))]
pub struct RunConfig<A = ModelConfig> {
    /// The architecture.
    pub model: A,
    /// Optimiser, schedule, and intervals of recurring work.
    pub train: TrainConfig,
    /// Location of the images, and augmentation.
    pub data: DataConfig,
}

impl RunConfig {
    /// Resolves a configuration: defaults, then the preset, the file, and the overrides `key=value`.
    ///
    /// ```
    /// use glowflow::train::RunConfig;
    /// let config = RunConfig::resolve(Some("tiny32"), None, &["model.steps=2".into()])?;
    /// assert!(matches!(config.model, glowflow::ModelConfig::Glow(glow) if glow.steps == 2));
    /// let error = RunConfig::resolve(None, None, &["train.learning_rate=1".into()]).unwrap_err();
    /// assert!(error.to_string().contains("`lr`"));
    /// # Ok::<(), glowflow::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown preset, key or value, with the known ones; [`Error::Io`] for an
    /// unreadable file; [`Error::File`] for one that is not text.
    pub fn resolve(preset: Option<&str>, file: Option<&Path>, overrides: &[String]) -> Result<Self, Error> {
        let mut table = toml::Table::new();
        merge_layers(&mut table, preset, file, overrides)?;
        let config = Self::of_new_run(table)?;
        config.validate()?;
        Ok(config)
    }

    /// Like [`resolve`](Self::resolve), without validation.
    fn resolve_unchecked(
        preset: Option<&str>,
        file: Option<&Path>,
        overrides: &[String],
    ) -> Result<Self, Error> {
        let mut table = toml::Table::new();
        merge_layers(&mut table, preset, file, overrides)?;
        Self::of_table(table)
    }

    /// This configuration with preset, file and overrides applied; not validated.
    pub(super) fn layered(
        &self,
        preset: Option<&str>,
        file: Option<&Path>,
        overrides: &[String],
    ) -> Result<Self, Error> {
        let mut table = self.table()?;
        merge_layers(&mut table, preset, file, overrides)?;
        Self::of_table(table)
    }

    /// Like [`resolve`](Self::resolve); also returns whether the file or the overrides set `model.image`.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub fn resolve_noting_image(
        preset: Option<&str>,
        file: Option<&Path>,
        overrides: &[String],
    ) -> Result<(Self, bool), Error> {
        // The file is read once: it may be a pipe.
        let mut set = toml::Table::new();
        merge_layers(&mut set, None, file, overrides)?;
        let image_is_set = set.get("model").and_then(|model| model.get("image")).is_some();
        let config = Self::of_new_run(with_preset(preset, set)?)?;
        config.validate()?;
        Ok((config, image_is_set))
    }

    /// The configuration as a table.
    pub(crate) fn table(&self) -> Result<toml::Table, Error> {
        self.check_paths()?;
        toml::Table::try_from(self)
            .map_err(|e| Error::Config(format!("the configuration cannot be written: {e}")))
    }

    /// Checks that all paths can be represented in TOML.
    fn check_paths(&self) -> Result<(), Error> {
        let paths = [
            ("data.path", &self.data.path),
            ("data.test", &self.data.test),
            ("train.from", &self.train.from),
        ];
        for (key, path) in paths {
            if let Some(path) = path.as_deref().filter(|path| path.to_str().is_none()) {
                return Err(Error::Config(format!(
                    "{key} is {}, which is not valid Unicode, so the configuration cannot be written: rename it",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// Reads a new run's configuration from its TOML, with the defaults of its architecture; not validated.
    pub(crate) fn of_new_run(table: toml::Table) -> Result<Self, Error> {
        Self::of_table(with_defaults(table))
    }

    /// Reads a configuration from its TOML; not validated.
    pub(crate) fn of_table(table: toml::Table) -> Result<Self, Error> {
        table.try_into().map_err(|e| Error::Config(wrong(&e, "")))
    }

    /// Reads the resolved configuration of a run. Only the architecture is validated: an older version may
    /// have accepted rates that [`validate`](Self::validate) rejects, and a resumed run may change them.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::File`] or [`Error::Config`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let config = Self::resolve_unchecked(None, Some(path), &[])?;
        config.model.validate()?;
        Ok(config)
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// [`Error::Config`] if a value cannot be represented in TOML, such as a path that is not valid Unicode.
    pub fn to_toml(&self) -> Result<String, Error> {
        self.check_paths()?;
        toml::to_string(self).map_err(|e| Error::Config(format!("the configuration cannot be written: {e}")))
    }
}

impl<A: Architecture> RunConfig<A> {
    /// Checks all values.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, its value and valid values.
    pub fn validate(&self) -> Result<(), Error> {
        self.model.validate()?;
        let t = &self.train;
        // Devices compute with these values rounded to f32.
        let (lr, epsilon, clip) = (t.lr as f32, t.epsilon as f32, t.clip as f32);
        let largest_lr = if t.muon { t.lr.max(t.muon_lr) } else { t.lr };
        let decays = |value: f64| value >= 0.0 && (value as f32) < 1.0;
        let rules = [
            (t.batch >= 1, "train.batch", &t.batch as &dyn Debug, "at least 1"),
            (
                t.accumulate >= 1 && t.batch.is_multiple_of(t.accumulate.max(1)),
                "train.accumulate",
                &t.accumulate,
                "a divisor of train.batch",
            ),
            (
                lr > 0.0 && lr.is_finite(),
                "train.lr",
                &t.lr,
                "above 0, and finite in 32 bits (at most 3.4e38)",
            ),
            (
                decays(t.beta1),
                "train.beta1",
                &t.beta1,
                "0 or more, and below 1 in 32 bits (at most 0.9999999)",
            ),
            (
                decays(t.beta2),
                "train.beta2",
                &t.beta2,
                "0 or more, and below 1 in 32 bits (at most 0.9999999)",
            ),
            (
                epsilon >= f32::MIN_POSITIVE && epsilon.is_finite(),
                "train.epsilon",
                &t.epsilon,
                "above 0 and a normal number in 32 bits (1.2e-38 to 3.4e38)",
            ),
            (
                t.muon_lr > 0.0 && t.muon_lr <= MAX_MUON_LR,
                "train.muon_lr",
                &t.muon_lr,
                "above 0, and at most 1: a step changes every singular value by about this much",
            ),
            (
                t.weight_decay >= 0.0 && t.weight_decay * largest_lr < 1.0,
                "train.weight_decay",
                &t.weight_decay,
                "0 for off, or more, with a product with the learning rate below 1",
            ),
            (
                t.clip == 0.0 || (clip > 0.0 && clip.is_finite()),
                "train.clip",
                &t.clip,
                "a norm that 32 bits can hold, or 0 for off",
            ),
            (
                t.penalty.is_none_or(|penalty| penalty >= 0.0 && (penalty as f32).is_finite()),
                "train.penalty",
                &t.penalty,
                "0 for off, or more",
            ),
            (decays(t.ema), "train.ema", &t.ema, "0 for off, or below 1 in 32 bits (at most 0.9999999)"),
            (t.log_every >= 1, "train.log_every", &t.log_every, "at least 1"),
            (t.eval_every >= 1, "train.eval_every", &t.eval_every, "at least 1"),
            (t.eval_images >= 1, "train.eval_images", &t.eval_images, "at least 1"),
            (t.checkpoint_every >= 1, "train.checkpoint_every", &t.checkpoint_every, "at least 1"),
            (
                t.checkpoint_minutes > 0.0 && t.checkpoint_minutes.is_finite(),
                "train.checkpoint_minutes",
                &t.checkpoint_minutes,
                "above 0; use a large value for never",
            ),
            (
                t.samples_minutes >= 0.0 && t.samples_minutes.is_finite(),
                "train.samples_minutes",
                &t.samples_minutes,
                "0 for off, or more",
            ),
            // TOML integers are limited to this range; the run's configuration could not be read otherwise.
            (i64::try_from(t.seed).is_ok(), "train.seed", &t.seed, "below 2^63"),
        ];
        if let Some((_, key, value, want)) = rules.iter().find(|(holds, ..)| !holds) {
            return Err(Error::Config(format!("{key} is {value:?}; it must be {want}")));
        }
        if let Some(schedule) = t.schedule.with_end().filter(|_| t.steps.is_none()) {
            return Err(Error::Config(format!(
                "train.schedule is {schedule}, which needs train.steps to determine its end, such as train.steps=10000; limits \
                 of a single run only determine when to stop"
            )));
        }
        if let (None, Some(fingerprint)) = (&t.from, &t.from_fingerprint) {
            return Err(Error::Config(format!(
                "train.from_fingerprint is {fingerprint}, but there is no model to start from (train.from)"
            )));
        }
        self.data.check()?;
        self.check_marked_weights()
    }

    /// Checks that a model has weights to which Muon and weight decay apply, if they are enabled.
    fn check_marked_weights(&self) -> Result<(), Error> {
        let t = &self.train;
        if !t.muon && t.weight_decay == 0.0 {
            return Ok(());
        }
        let layout = layout(&self.model);
        if t.muon && layout.hidden.is_empty() {
            return Err(Error::Config(
                "train.muon is true, but this architecture has no hidden matrices that Muon trains; omit it"
                    .into(),
            ));
        }
        if t.weight_decay > 0.0 && layout.decayed.is_empty() {
            let decay = t.weight_decay;
            return Err(Error::Config(format!(
                "train.weight_decay is {decay}, but this architecture has no weights that it applies to; set it to 0"
            )));
        }
        Ok(())
    }
}
