//! Recurring work of a run: records, evaluations, images, checkpoints.

use glowflow_kernels::Operations;

use super::training::{Run, Saved};
use super::{card, write_config};
use crate::evaluate::{Draws, Inversion, evaluate};
use crate::model::MODEL;
use crate::models::Architecture;
use crate::train::checkpoint;
use crate::train::folder::BEST;
use crate::train::observer::{Averaged, Evaluated, Event, PicturesDue, Record};
use crate::train::state::TrainState;
use crate::train::trainer::Trainer;
use crate::{Error, Model, ModelFile, data};

/// Number of images for measuring the inversion error in an evaluation.
const INVERTED: usize = 64;

impl<D: Operations<Real = f32>> Run<'_, D> {
    /// Sends the summary of the steps since the last record.
    pub(super) fn record(&mut self, learning_rate: f64, images_per_second: f64) -> Result<(), Error> {
        let progress = self.trainer.progress_mut();
        let mean = (progress.window_steps > 0).then(|| progress.window_sum / progress.window_steps as f64);
        let record = Record {
            step: progress.step,
            train_bits_per_dim: mean,
            gradient_norm: progress.window_norm,
            learning_rate,
            skipped: progress.skipped,
            images_per_second,
        };
        (progress.window_sum, progress.window_steps, progress.window_norm) = (0.0, 0, 0.0);
        self.recording = true;
        self.observers.send(&Event::Record(record))?;
        self.recording = false;
        self.report_broken()
    }

    /// Reports images found to be broken since the last call.
    pub(super) fn report_broken(&mut self) -> Result<(), Error> {
        for image in self.images.broken().chain(self.control.take_reported()) {
            if self.broken.insert(image.name.clone()) {
                self.observers.send(&Event::Broken(&image))?;
            }
        }
        Ok(())
    }

    /// Evaluates the averaged weights on test images. Images are drawn afterwards, also without test images.
    pub(super) fn evaluate(&mut self) -> Result<(), Error> {
        self.control.pause()?;
        let step = self.trainer.progress().step;
        let train = self.trainer.config().train.clone();
        let (mut model, mut evaluated) = (None, None);
        if let Some(test) = &self.images.test {
            let test = data::sample(test, train.eval_images, train.seed);
            let draws = Draws::mean(self.trainer.config().model.noise(), 1, train.seed);
            let inversion = Inversion { images: INVERTED, seed: train.seed };
            let glow = averaged(&self.trainer)?;
            let evaluation = evaluate(&glow, &test, draws, inversion, |_| self.check_stop())?;
            let bits = evaluation.bits_per_dim;
            let better = bits.is_finite() && self.trainer.progress().best.is_none_or(|(best, _)| bits < best);
            let best = better && self.trainer.is_sound();
            if best {
                self.trainer.model()?.write(&self.out.join(BEST))?;
                self.trainer.progress_mut().best = Some((bits, step));
            }
            (model, evaluated) = (Some(glow), Some((evaluation, best)));
        }
        let is_best = evaluated.as_ref().is_some_and(|&(_, best)| best);
        let build = || averaged(&self.trainer);
        let model = &Averaged::new(model, &build);
        if let Some((evaluation, best)) = evaluated {
            let evaluated = Evaluated { step, evaluation: &evaluation, best, model };
            self.observers.send(&Event::Evaluated(evaluated))?;
            (self.evaluation, self.evaluated_step) = (Some(evaluation), Some(step));
        }
        self.pictures.send(PicturesDue { step, model, stop: Some(self.stop) }, &mut self.observers)?;
        self.evaluated_at = Some(step);
        if is_best { card::write(self, BEST) } else { Ok(()) }
    }

    /// Sends the event that images are due; `stops` states whether a request to stop cancels the drawing.
    pub(super) fn draw(&mut self, stops: bool) -> Result<(), Error> {
        self.control.pause()?;
        let step = self.trainer.progress().step;
        let build = || averaged(&self.trainer);
        let model = &Averaged::new(None, &build);
        let due = PicturesDue { step, model, stop: stops.then_some(self.stop) };
        self.pictures.send(due, &mut self.observers)
    }

    /// Requests the images of a stopped run. It is already saved, so a failure loses nothing.
    pub(super) fn draw_last(&mut self) -> Result<(), Error> {
        match self.draw(false) {
            Err(error) => self.observers.notice(&format!("the samples show an earlier step: {error}")),
            Ok(()) => Ok(()),
        }
    }

    /// Saves a checkpoint and then the model. Postponed while steps are being skipped: the weights may be the
    /// cause, and earlier checkpoints allow recovery.
    pub(super) fn save(&mut self) -> Result<(), Error> {
        self.save_due = !self.trainer.is_sound();
        if self.save_due {
            return Ok(());
        }
        self.control.pause()?;
        let (config, state) = (self.trainer.config(), self.trainer.state()?);
        if !state.is_finite() {
            return Err(Error::Diverged(format!(
                "weights or moments of step {} are not finite, and are not saved",
                state.progress.step
            )));
        }
        // A checkpoint that survives a power loss requires the records preceding it.
        self.observers.flush()?;
        // The larger file comes first: if the disk is full, the model remains that of the last checkpoint.
        let again = self.saved.is_some_and(|saved| saved.step == state.progress.step);
        // The run may have been resumed from another file than its last checkpoint.
        if again && checkpoint::last_step(self.out) == Some(state.progress.step) {
            checkpoint::save_again(self.out, config, &state)?;
        } else {
            checkpoint::save(self.out, config, &state)?;
        }
        self.saved = Some(Saved::of(&state.progress));
        let step = state.progress.step;
        let TrainState { constants, ema, buffers_ema, .. } = state;
        let model = ModelFile { config: config.model.clone(), constants, weights: ema, buffers: buffers_ema };
        model.write(&self.out.join(MODEL))?;
        if self.changed {
            write_config(self.out, self.trainer.config())?;
            self.changed = false;
        }
        self.observers.send(&Event::Saved { step })
    }
}

/// The model with averaged weights.
fn averaged<D: Operations<Real = f32>>(trainer: &Trainer<D>) -> Result<Model, Error> {
    Ok(Model::on(trainer.device().clone(), &trainer.model()?))
}
