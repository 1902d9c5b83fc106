//! One training step: forward and backward pass on a batch of pixels, and the update of the weights.
//!
//! All random values are functions of the seed and the step, so the complete state of a run is its
//! [`TrainState`].

mod buckets;
mod link;
mod optimizer;
mod share;
mod subtotals;

use std::sync::Arc;
use std::time::Duration;

use glowflow_kernels::{Device, Operations, Real, Segment};
use glowflow_ranks::{Alone, Ranks};

use super::config::RunConfig;
use super::fine_tune;
use super::muon::Muon;
use super::pass::Pass;
use super::state::{Progress, StepReport, TrainState};
use super::statistics::{average, update_running};
use crate::Error;
use crate::flow::{Context, Mode, State};
use crate::model::{Flow, ModelFile, memory};
use crate::models::{Architecture, ModelConfig};
use crate::params::{Constant, Layout};
pub(super) use buckets::Buckets;
pub(super) use link::{Link, Slices};
use share::{Measured, Share};

/// Maximum number of consecutive skipped steps.
pub(super) const MAX_CONSECUTIVE_SKIPS: u32 = 10;

/// A model in training on a device.
pub struct Trainer<D: Operations, A = ModelConfig> {
    pub(super) config: RunConfig<A>,
    pub(super) device: D,
    ranks: Arc<dyn Ranks>,
    pub(super) flow: Flow<D>,
    constants: Vec<Constant>,
    pub(super) weights: D::Buffer,
    pub(super) buffers: D::Buffer,
    buffers_ema: D::Buffer,
    pub(super) gradient: D::Buffer,
    first: D::Buffer,
    second: D::Buffer,
    ema: D::Buffer,
    /// Parameters updated by the element-wise optimiser.
    segments: Vec<Segment>,
    /// The optimiser of the remaining parameters.
    muon: Option<Muon<D>>,
    pub(super) passes: Vec<Pass<D>>,
    pub(super) progress: Progress,
    /// False after an update that produced non-finite values.
    all_finite: bool,
    /// The way ranks sum gradients, for reports.
    sums: Option<String>,
    /// Time that steps waited for sums over ranks.
    waited: Duration,
    /// Numbers of a slice that connected devices sum.
    slice: usize,
    /// The connection to the devices of other ranks. It is dropped after the captured passes, which use it.
    link: Option<Arc<Link<D>>>,
}

/// Takes ownership of the values, so that the state of a large model is not in memory twice.
fn to_device<D: Operations>(device: &D, values: Vec<f32>) -> D::Buffer {
    device.upload(&D::Real::of_file(values))
}

fn from_device<D: Operations>(device: &D, buffer: &D::Buffer) -> Result<Vec<f32>, Error> {
    Ok(D::Real::into_file(device.download(buffer)?))
}

/// Checks that a new run on this number of ranks fits into the available memory.
///
/// # Errors
/// [`Error::Config`] with the sum.
pub(super) fn check_memory<D: Device, A: Architecture>(
    device: &D,
    config: &RunConfig<A>,
    ranks: usize,
) -> Result<(), Error> {
    // A device with its own memory reports its own shortage.
    match device.peak_memory() {
        Some(_) => memory::check_state(&config.model),
        None => memory::check_training(&config.model, &config.train, ranks, false),
    }
}

impl<D: Operations, A: Architecture> Trainer<D, A> {
    /// Creates a new model, or loads the one set by `train.from`. Call [`initialize`](Self::initialize)
    /// with a batch before the first step.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid or needs more memory than is available; errors of
    /// reading that model.
    pub fn new(device: D, mut config: RunConfig<A>) -> Result<Self, Error> {
        config.validate()?;
        // The number of ranks is still unknown; this is a lower bound for any number.
        check_memory(&device, &config, config.train.accumulate)?;
        let file = match &config.train.from {
            Some(path) => {
                let file = fine_tune::weights(path, &config)?;
                config.train.from_fingerprint = Some(fine_tune::text(&file));
                file
            }
            None => ModelFile::of(config.model.clone(), config.train.seed)?,
        };
        let zeros = vec![0.0; file.weights.len()];
        let state = TrainState {
            constants: file.constants,
            ema: file.weights.clone(),
            weights: file.weights,
            buffers_ema: file.buffers.clone(),
            buffers: file.buffers,
            first: zeros.clone(),
            second: zeros,
            progress: Progress::default(),
        };
        Ok(Self::resume(device, config, state))
    }

    /// Continues from a state.
    pub fn resume(device: D, config: RunConfig<A>, state: TrainState) -> Self {
        let flow = Flow::new(&config.model, &state.constants);
        Self {
            weights: to_device(&device, state.weights),
            buffers: to_device(&device, state.buffers),
            buffers_ema: to_device(&device, state.buffers_ema),
            first: to_device(&device, state.first),
            second: to_device(&device, state.second),
            ema: to_device(&device, state.ema),
            gradient: device.zeros(flow.layout.len()),
            segments: optimizer::segments(&flow.layout, &config.train),
            muon: config.train.muon.then(|| Muon::new(&device, &flow.layout.hidden)),
            constants: state.constants,
            passes: vec![],
            progress: state.progress,
            all_finite: true,
            ranks: Arc::new(Alone::new()),
            sums: None,
            waited: Duration::ZERO,
            slice: link::SLICE,
            link: None,
            config,
            device,
            flow,
        }
    }

    /// Returns whether the state may be saved: not while steps are being skipped, since the weights may be
    /// the cause, and not after an update that overflowed.
    pub fn is_sound(&self) -> bool {
        self.all_finite && self.progress.skipped_in_a_row == 0
    }

    /// Downloads the complete state for saving.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn state(&self) -> Result<TrainState, Error> {
        let download = |buffer| from_device(&self.device, buffer);
        let mut second = download(&self.second)?;
        // Adamax stores its epsilon there. A file contains 0 there, and equal states should give equal files.
        self.flow.layout.clear_unread(&mut second);
        Ok(TrainState {
            constants: self.constants.clone(),
            buffers: download(&self.buffers)?,
            buffers_ema: download(&self.buffers_ema)?,
            weights: download(&self.weights)?,
            first: download(&self.first)?,
            second,
            ema: download(&self.ema)?,
            progress: self.progress.clone(),
        })
    }

    /// The model for evaluation and sampling, with averaged weights.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn model(&self) -> Result<ModelFile<A>, Error> {
        Ok(ModelFile {
            config: self.config.model.clone(),
            constants: self.constants.clone(),
            weights: from_device(&self.device, &self.ema)?,
            buffers: from_device(&self.device, &self.buffers_ema)?,
        })
    }

    /// The weights themselves, not their average.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub(super) fn weights(&self) -> Result<Vec<f32>, Error> {
        from_device(&self.device, &self.weights)
    }

    /// Names and spans of the parameters.
    pub fn layout(&self) -> &Layout {
        &self.flow.layout
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig<A> {
        &self.config
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Counters and sums.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Counters and sums, for the training loop to update.
    pub fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// Data-dependent initialisation from the first batch. Rank 0 computes it from the images of all ranks,
    /// part by part, and all ranks receive its weights. A model set by `train.from` is already initialised
    /// and remains unchanged.
    ///
    /// # Errors
    /// [`Error::Input`] if the batch does not match the model, [`Error::Diverged`] if it gives a non-finite
    /// likelihood, [`Error::Ranks`] if a rank is missing.
    pub fn initialize(&mut self, pixels: &[u8], labels: &[usize]) -> Result<(), Error> {
        let Share { part, .. } = self.share(pixels, labels)?;
        if self.config.train.from.is_some() {
            return Ok(());
        }
        if self.ranks.size() == 1 {
            return self.initialize_from(part, pixels, labels);
        }
        let (pixels, labels) = self.whole_batch(pixels, labels)?;
        let done = match self.ranks.rank() {
            0 => self.initialize_from(part, &pixels, &labels),
            _ => Ok(()),
        };
        self.share_weights(done)
    }

    /// Data-dependent initialisation from parts of a batch. Activations of only one layer and one part are in
    /// memory at a time.
    fn initialize_from(&mut self, part: usize, pixels: &[u8], labels: &[usize]) -> Result<(), Error> {
        let dimensions = self.config.model.dimensions();
        let batch = pixels.len() / dimensions;
        let parts = (0..batch).step_by(part).map(|start| {
            let end = batch.min(start + part);
            let (pixels, labels) = share::images(pixels, labels, dimensions, start..end);
            self.arrive(start, pixels, labels)
        });
        let (u, mut parts): (Vec<D::Buffer>, Vec<State<D>>) = parts.unzip();
        if let Some(dequantizer) = self.flow.dequantizer() {
            let (device, params, buffers) = (&self.device, &mut self.weights, &self.buffers);
            device.within(|| dequantizer.initialize(device, params, buffers, &u, &mut parts));
        }
        self.flow.initialize(&self.device, &mut self.weights, &self.buffers, &mut parts);
        self.device.copy(&self.weights, &mut self.ema);
        for state in &parts {
            if self.device.download(&state.logp)?.iter().any(|logp| !logp.wide().is_finite()) {
                return Err(Error::Diverged(
                    "the data-dependent initialisation produced a likelihood that is not finite; are all images \
                     identical?"
                        .into(),
                ));
            }
        }
        Ok(())
    }

    /// Performs one step on a batch, or on this rank's images of it: forward, backward, update.
    ///
    /// # Errors
    /// [`Error::Input`] if the batch does not match the model; [`Error::Ranks`] if a rank is missing, with
    /// the state of the last step unchanged; [`Error::Diverged`] after several consecutive steps with a
    /// non-finite gradient, naming the part of the flow at which values went out of range, and after a step
    /// with non-finite new weights: the trainer's state is then not [sound](Self::is_sound).
    pub fn step(&mut self, pixels: &[u8], labels: &[usize]) -> Result<StepReport, Error> {
        let share = self.share(pixels, labels)?;
        let Measured { log_densities, statistics } = self.sum_gradients(pixels, labels, share)?;
        self.penalize();
        let ema_decay = self.ema_decay();
        let report = self.update_weights(&log_densities)?;
        if !report.all_finite {
            self.all_finite = false;
            return Err(self.overflow());
        }
        let mut log_density = vec![];
        for part in &log_densities {
            log_density.extend(self.device.download(part)?);
        }
        let mean = log_density.iter().map(|x| x.wide()).sum::<f64>() / share.batch as f64;
        let model = &self.config.model;
        let bits_per_dim = model.bits_per_dim(model.in_bin(mean));

        let progress = &mut self.progress;
        if report.applied {
            let len = self.flow.layout.buffers_len();
            if len > 0 {
                update_running(&self.device, &mut self.buffers, &statistics, len);
                average(&self.device, &self.buffers, ema_decay, &mut self.buffers_ema, len);
            }
            progress.updates += 1;
            progress.skipped_in_a_row = 0;
            progress.window_sum += bits_per_dim;
            progress.window_steps += 1;
            progress.window_norm = progress.window_norm.max(report.gradient_norm);
        } else {
            progress.skipped += 1;
            progress.skipped_in_a_row += 1;
            if progress.skipped_in_a_row >= MAX_CONSECUTIVE_SKIPS {
                return Err(self.diagnose(pixels, labels));
            }
        }
        self.progress.step += 1;
        Ok(StepReport { bits_per_dim, gradient_norm: report.gradient_norm, applied: report.applied })
    }

    pub(super) fn context(&self) -> Context<'_, D> {
        Context { device: &self.device, params: &self.weights, buffers: &self.buffers, mode: Mode::Train }
    }
}
