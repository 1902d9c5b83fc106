//! The computing part of a model, with the device's type erased.
//!
//! [`Engine`] works on host arrays: one chunk of images per call, `[images, H, W, C]`. Its only
//! implementation, [`DeviceEngine`], is generic in the [`Device`]. Code above the trait is not, so a new
//! device operation needs no forwarding, and only this module and training are compiled once per device.

mod decode;
mod encode;
mod sample;

use std::borrow::Cow;
use std::sync::{Mutex, OnceLock};

use glowflow_kernels::{DeviceError, Direction, Noise, Operations, Quantized, Real, RngStream};

use crate::ModelFile;
use crate::flow::{Context, Mode, Prepared};
use crate::model::{Flow, class_numbers};
use crate::models::Architecture;
use decode::Decoding;

/// A model on a device.
pub(crate) trait Engine<R: Real>: Send + Sync {
    /// Default chunk size for decoding, in pixels.
    fn pixels_at_once(&self) -> usize;

    /// Encodes a chunk of images. `labels` holds one class per image, or is empty if the model has no
    /// classes.
    ///
    /// # Errors
    /// Errors of the device.
    fn encode(
        &self,
        pixels: &[u8],
        labels: &[usize],
        noise: EntryNoise<'_, R>,
    ) -> Result<EncodedChunk<R>, DeviceError>;

    /// Typical noise of the dequantiser for a chunk of images, in `[0, 1/bins)`; `None` without a
    /// dequantiser.
    ///
    /// # Errors
    /// Errors of the device.
    fn typical_noise(&self, pixels: &[u8]) -> Result<Option<Vec<R>>, DeviceError>;

    /// Decodes a chunk of `images` images. `read` receives the decoded images, which stay on the device.
    ///
    /// # Errors
    /// Errors of the device and of `read`.
    fn decode(
        &self,
        images: usize,
        labels: &[usize],
        latents: ChunkLatents<'_, R>,
        read: &mut ReadImages<'_, R>,
    ) -> Result<(), DeviceError>;

    /// Draws latents of `images` images, one array per level.
    ///
    /// # Errors
    /// Errors of the device.
    fn draw(&self, images: usize, draw: Draw) -> Result<Vec<Vec<R>>, DeviceError>;
}

/// Dequantisation noise for a chunk.
pub(crate) enum EntryNoise<'a, R> {
    /// Independent of the model.
    Fixed(Noise<'a, R>),
    /// Uniform noise from a stream, mapped by the dequantiser if there is one.
    Variational(RngStream),
}

/// Latents and log-densities of a chunk.
pub(crate) struct EncodedChunk<R> {
    /// One array per level.
    pub latents: Vec<Vec<R>>,
    /// `log p(v)` of each image, minus `log r` of the noise if it comes from the dequantiser.
    pub log_density: Vec<R>,
}

/// Latents of a chunk to be decoded.
pub(crate) enum ChunkLatents<'a, R: Clone> {
    /// Host arrays, one per level.
    Given(Vec<Cow<'a, [R]>>),
    /// Drawn on the device.
    Drawn(Draw),
}

/// Latents drawn from the base distribution at a temperature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draw {
    /// The seed.
    pub seed: u64,
    /// Index of the first image: an image has the same latents for a seed in any chunk.
    pub first: usize,
    /// The standard deviation of a normal base distribution, the scale of a logistic one.
    pub temperature: f64,
}

/// Decoded images on a device.
pub(crate) trait DeviceImages<R> {
    /// Downloads the images as pixels.
    fn pixels(&self) -> Result<Quantized, DeviceError>;

    /// Downloads the continuous images `v`.
    fn values(&self) -> Result<Vec<R>, DeviceError>;
}

/// A callback that reads decoded images.
pub(crate) type ReadImages<'a, R> = dyn FnMut(&dyn DeviceImages<R>) -> Result<(), DeviceError> + 'a;

/// A flow and its weights on a device.
pub(crate) struct DeviceEngine<D: Operations> {
    device: D,
    flow: Flow<D>,
    bits: u32,
    /// True if each image has a label.
    labelled: bool,
    weights: D::Buffer,
    buffers: D::Buffer,
    forward: OnceLock<Vec<Box<dyn Prepared<D>>>>,
    inverse: OnceLock<Vec<Box<dyn Prepared<D>>>>,
    /// The most recent chunk decoded: the next one is likely to have the same size.
    decoding: Mutex<Option<Decoding<D>>>,
}

impl<D: Operations> DeviceEngine<D> {
    /// Uploads a model to a device.
    pub fn new(device: D, file: &ModelFile<impl Architecture>) -> Self {
        Self {
            flow: Flow::new(&file.config, &file.constants),
            bits: file.config.bits(),
            labelled: file.config.classes() > 0,
            buffers: device.upload(&D::Real::of_file(file.buffers.clone())),
            weights: device.upload(&D::Real::of_file(file.weights.clone())),
            device,
            forward: OnceLock::new(),
            inverse: OnceLock::new(),
            decoding: Mutex::new(None),
        }
    }

    fn context<'a>(&'a self, device: &'a D) -> Context<'a, D> {
        Context { device, params: &self.weights, buffers: &self.buffers, mode: Mode::Eval }
    }

    fn encoder(&self) -> &[Box<dyn Prepared<D>>] {
        self.prepared(&self.forward, Direction::Forward)
    }

    fn decoder(&self) -> &[Box<dyn Prepared<D>>] {
        self.prepared(&self.inverse, Direction::Inverse)
    }

    /// Returns the layers in `once`, prepared at the first call. Two concurrent first calls may both prepare
    /// them: neither may wait for the other, which may itself be waiting in rayon's pool.
    fn prepared<'a>(
        &self,
        once: &'a OnceLock<Vec<Box<dyn Prepared<D>>>>,
        direction: Direction,
    ) -> &'a [Box<dyn Prepared<D>>] {
        if let Some(layers) = once.get() {
            return layers;
        }
        let layers = self.flow.prepare(&self.context(&self.device), direction);
        once.get_or_init(|| layers)
    }

    /// Number of labels of `images` images.
    fn labels_of(&self, images: usize) -> usize {
        if self.labelled { images } else { 0 }
    }

    fn labels(&self, labels: &[usize]) -> D::Buffer {
        self.device.upload(&class_numbers(labels))
    }
}

impl<D: Operations> Engine<D::Real> for DeviceEngine<D> {
    fn pixels_at_once(&self) -> usize {
        self.device.pixels_at_once()
    }

    fn encode(
        &self,
        pixels: &[u8],
        labels: &[usize],
        noise: EntryNoise<'_, D::Real>,
    ) -> Result<EncodedChunk<D::Real>, DeviceError> {
        self.encode_chunk(pixels, labels, noise)
    }

    fn typical_noise(&self, pixels: &[u8]) -> Result<Option<Vec<D::Real>>, DeviceError> {
        self.typical_chunk(pixels)
    }

    fn decode(
        &self,
        images: usize,
        labels: &[usize],
        latents: ChunkLatents<'_, D::Real>,
        read: &mut ReadImages<'_, D::Real>,
    ) -> Result<(), DeviceError> {
        self.decode_chunk(images, labels, &latents, read)
    }

    fn draw(&self, images: usize, draw: Draw) -> Result<Vec<Vec<D::Real>>, DeviceError> {
        self.draw_levels(images, draw)
    }
}
