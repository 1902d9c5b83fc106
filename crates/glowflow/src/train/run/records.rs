//! What a run writes down: records, evaluations, pictures, checkpoints.

use std::sync::atomic::Ordering;

use glowflow_kernels::Primitives;

use super::training::{Run, Saved};
use super::write_config;
use crate::evaluate::{Draws, Inversion, evaluate};
use crate::model::MODEL;
use crate::train::checkpoint;
use crate::train::folder::BEST;
use crate::train::state::TrainState;
use crate::{Error, Model, ModelFile, data};

/// Images on which an evaluation measures the inverse.
const INVERTED: usize = 64;

impl<D: Primitives<Real = f32>> Run<'_, D> {
    /// Records the mean of the training bits/dim since the last record. No clock time goes into the metrics, so that
    /// a resumed run writes the same ones.
    pub(super) fn log(&mut self, learning_rate: f64, images_per_second: f64) -> Result<(), Error> {
        let progress = self.trainer.progress_mut();
        let mean = (progress.window_steps > 0).then(|| progress.window_sum / progress.window_steps as f64);
        let norm = progress.window_norm;
        (progress.window_sum, progress.window_steps, progress.window_norm) = (0.0, 0, 0.0);
        let (step, skipped) = (progress.step, progress.skipped);
        self.recording = true;
        self.journal.append(&serde_json::json!({
            "step": step,
            "train_bits_per_dim": mean,
            "gradient_norm": norm,
            "learning_rate": learning_rate,
            "skipped": skipped,
        }))?;
        self.recording = false;
        self.journal.show(|events| {
            if let Some(mean) = mean {
                events.scalar("train/bits_per_dim", mean as f32, step)?;
            }
            events.scalar("train/gradient_norm", norm as f32, step)?;
            events.scalar("train/learning_rate", learning_rate as f32, step)?;
            events.scalar("train/images_per_second", images_per_second as f32, step)
        });
        self.report_broken();
        Ok(())
    }

    /// Names images that turned out to be broken since the last time.
    pub(super) fn report_broken(&mut self) {
        for image in self.images.broken() {
            if self.broken.insert(image.name.clone()) {
                self.journal.say(&format!("skipped {}: {}", image.name, image.reason));
            }
        }
    }

    /// Evaluates the averaged weights on test images, and refreshes samples and curve.
    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        let step = self.trainer.progress().step;
        let train = self.trainer.config().train.clone();
        let glow = self.averaged()?;
        if let Some(test) = &self.images.test {
            let test = data::sample(test, train.eval_images, train.seed);
            let draws = Draws::Uniform { draws: 1, seed: train.seed };
            let inversion = Inversion { images: INVERTED, seed: train.seed };
            let evaluation = evaluate(&glow, &test, draws, inversion, |_| self.check_stop())?;
            let (bits, error) = (evaluation.bits_per_dim, evaluation.inverse_error);
            let better = bits.is_finite() && self.trainer.progress().best.is_none_or(|(best, _)| bits < best);
            if better && self.trainer.is_sound() {
                self.trainer.model()?.write(&self.out.join(BEST))?;
                self.trainer.progress_mut().best = Some((bits, step));
            }
            if self.recorded_at != Some(step) {
                self.journal.append(&serde_json::json!({
                    "step": step,
                    "test_bits_per_dim": bits,
                    "inverse_error": error,
                }))?;
                self.recorded_at = Some(step);
            }
            self.journal.show(|events| {
                events.scalar("test/bits_per_dim", bits as f32, step)?;
                events.scalar("test/inverse_error", error as f32, step)
            });
            self.journal.say(&if bits.is_finite() && error.is_finite() {
                format!("step {step}: test {bits:.3} bits/dim, inverse error {error:.1e}")
            } else {
                format!("step {step}: the evaluation is not finite")
            });
            self.evaluation = Some(evaluation);
        }
        self.draw(&glow, true)?;
        self.evaluated_at = Some(step);
        Ok(())
    }

    /// The model with averaged weights.
    pub(super) fn averaged(&self) -> Result<Model, Error> {
        Ok(Model::on(self.trainer.device().clone(), &self.trainer.model()?))
    }

    /// Refreshes samples and curve; `stops` tells whether a request to stop ends that.
    pub(super) fn draw(&mut self, glow: &Model, stops: bool) -> Result<(), Error> {
        let (step, stop) = (self.trainer.progress().step, self.options.stop);
        let check = || if stops && stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) };
        self.pictures.draw(glow, self.out, step, &mut self.journal, check)
    }

    /// Refreshes samples and curve of a run that was stopped. It is saved, so that a failure costs nothing.
    pub(super) fn draw_last(&mut self) {
        let drawn = self.averaged().and_then(|glow| self.draw(&glow, false));
        if let Err(error) = drawn {
            self.journal.say(&format!("the samples are of an earlier step: {error}"));
        }
    }

    /// Saves a checkpoint and then the model, or postpones that while steps are being skipped: the weights
    /// may be what makes them fail, and the checkpoints from before that are the way out.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        self.save_due = !self.trainer.is_sound();
        if self.save_due {
            return Ok(());
        }
        let (config, state) = (self.trainer.config(), self.trainer.state()?);
        if !state.is_finite() {
            return Err(Error::Diverged(format!(
                "weights or moments of step {} are not finite, and are not saved",
                state.progress.step
            )));
        }
        // A checkpoint that outlives a loss of power needs the records before it.
        self.journal.flush()?;
        // The larger file first: if it does not fit on the disk, the model stays that of the last checkpoint.
        checkpoint::save(self.out, config, &state)?;
        self.saved = Some(Saved::of(&state.progress));
        let step = state.progress.step;
        let TrainState { constants, ema, buffers_ema, .. } = state;
        let model = ModelFile { config: config.model.clone(), constants, weights: ema, buffers: buffers_ema };
        model.write(&self.out.join(MODEL))?;
        if self.changed {
            write_config(self.out, self.trainer.config())?;
            self.changed = false;
        }
        self.options.watch.map_or(Ok(()), |watch| watch.saved(step))
    }
}
