//! Training and sampling speed of a model on this machine, and the memory of a training step.

use std::cell::OnceCell;
use std::time::Instant;

use glowflow_kernels::Operations;
use serde::Serialize;

use crate::device::on_device;
use crate::memory_use::peak_rss;
use crate::train::{RunConfig, Trainer};
use crate::{AnyDevice, Error, Model, ModelFile, check_count};

/// A model to measure. It trains on random pixels, which take the same time as any others.
pub struct Bench {
    device: AnyDevice,
    config: RunConfig,
    trainer: Box<dyn Step>,
    /// Created for the first sample, so that measurements of training exclude it.
    model: OnceCell<Model>,
    pixels: Vec<u8>,
    labels: Vec<usize>,
}

/// A trainer on any device.
trait Step {
    fn parameters(&self) -> usize;
    fn step(&mut self, pixels: &[u8], labels: &[usize]) -> Result<(), Error>;
}

impl<D: Operations> Step for Trainer<D> {
    fn parameters(&self) -> usize {
        self.layout().len()
    }

    fn step(&mut self, pixels: &[u8], labels: &[usize]) -> Result<(), Error> {
        self.step(pixels, labels).map(drop)
    }
}

/// Memory of a training process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Memory {
    /// The largest resident size so far, in bytes; 0 if the system does not report it.
    pub peak_rss: u64,
    /// Peak use of the device's own memory, in bytes, if it has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_peak_bytes: Option<u64>,
    /// The part for weights, their average, gradient, and the optimiser's moments.
    pub state_bytes: u64,
}

impl Bench {
    /// Creates a model, initialised on a random batch.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration is invalid, [`Error::Device`] if the device fails.
    pub fn new(device: impl Into<AnyDevice>, config: RunConfig) -> Result<Self, Error> {
        Self::on(device.into(), config)
    }

    fn on(device: AnyDevice, config: RunConfig) -> Result<Self, Error> {
        config.validate()?;
        let (batch, classes) = (config.train.batch, config.model.classes());
        // Lower bound: an image in single precision, with its one-hot row.
        check_count(&[batch], 4 * (config.model.dimensions() + classes))
            .map_err(|e| Error::Config(format!("train.batch is {batch}: {e}")))?;
        let stream = glowflow_kernels::RngStream { seed: 0, id: 0 };
        let bytes = (batch * config.model.dimensions()) as u64;
        let pixels: Vec<u8> = (0..bytes).map(|i| stream.block(i)[0] as u8).collect();
        let labels: Vec<usize> =
            if classes == 0 { vec![] } else { (0..batch).map(|i| i % classes).collect() };
        let trainer: Box<dyn Step> = on_device!(device.clone(), device => {
            let mut trainer = Trainer::new(device, config.clone())?;
            trainer.initialize(&pixels, &labels)?;
            Box::new(trainer)
        });
        Ok(Self { device, config, trainer, model: OnceCell::new(), pixels, labels })
    }

    /// Seconds of each of `steps` training steps: forward, backward and update, with pixels in host memory.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn train(&mut self, steps: usize) -> Result<Vec<f64>, Error> {
        (0..steps)
            .map(|_| {
                let started = Instant::now();
                self.trainer.step(&self.pixels, &self.labels)?;
                Ok(started.elapsed().as_secs_f64())
            })
            .collect()
    }

    /// Seconds of each of `repetitions` samplings of a batch, from drawing latents to pixels.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn sample(&self, repetitions: usize) -> Result<Vec<f64>, Error> {
        let config = &self.config;
        let model = match self.model.get() {
            Some(model) => model,
            None => {
                let file = ModelFile::new(config.model.clone(), config.train.seed)?;
                let model = Model::of_file(self.device.clone(), &file);
                self.model.get_or_init(|| model)
            }
        };
        (0..repetitions as u64)
            .map(|seed| {
                let started = Instant::now();
                model.sample(config.train.batch, 0.7, &self.labels, seed)?;
                Ok(started.elapsed().as_secs_f64())
            })
            .collect()
    }

    /// Peak memory of this process so far.
    pub fn memory(&self) -> Memory {
        // Weights, average, gradient and two moments, in single precision.
        let state_bytes = 5 * 4 * self.trainer.parameters() as u64;
        Memory {
            peak_rss: peak_rss().unwrap_or(0),
            device_peak_bytes: self.device.peak_memory(),
            state_bytes,
        }
    }
}
