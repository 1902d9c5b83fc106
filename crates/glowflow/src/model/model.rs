//! A model with its weights on a device: scoring, encoding, decoding and sampling with plain arrays.

use std::borrow::Cow;
use std::path::Path;

use glowflow_kernels::{Cpu, Noise, Operations, Real, RngStream};
use ndarray::{Array4, ArrayView4, Axis};

use super::decode::{array, rows};
use super::{Encoded, ModelFile, check_labels};
use crate::device::on_device;
use crate::engine::{DeviceEngine, EncodedChunk, Engine, EntryNoise};
use crate::models::{Architecture, ModelConfig};
use crate::{AnyDevice, Error, pretrained, random};

/// Number of pixels scored together: 64 images of 32×32. Noise is drawn by chunk, so the number is the same
/// for all devices.
const SCORED_PIXELS: usize = 64 * 32 * 32;

/// Noise that makes pixels continuous (`docs/model.md`).
#[derive(Clone, Copy, Debug)]
pub enum Dequantization<'a, R = f32> {
    /// A typical point of each bin: deterministic, for latents. It is the centre, or the median of the
    /// model's dequantiser at most 0.4 of a bin away. Its density is not a likelihood of the image.
    Typical,
    /// The centre of each bin: deterministic, for comparing densities, which are not likelihoods of the
    /// images.
    Midpoint,
    /// Uniform over each bin, from a seed: the bound's noise, as in training.
    Uniform {
        /// The draw; different seeds are independent.
        seed: u64,
    },
    /// Noise of the model's dequantiser, from a seed. [`log_density`](Encoded::log_density) is reduced by the
    /// log-density of the noise, so its mean over seeds is a lower bound of the log-likelihood.
    Variational {
        /// The draw; different seeds are independent.
        seed: u64,
    },
    /// Given, with the shape of the pixels, in `[0, 1/bins)`.
    Given(ArrayView4<'a, R>),
}

/// A model of any architecture on any device, ready to use. `R` is the type of its latents, usually `f32`.
///
/// ```
/// use glowflow::{Dequantization, Draws, GlowConfig, Model};
/// use ndarray::Array4;
///
/// let config = GlowConfig { image: [8, 8, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() };
/// let model = Model::new(config, 0)?; // or Model::load("model.safetensors")?
///
/// let pixels = Array4::from_shape_fn((2, 8, 8, 3), |(b, y, x, c)| (50 * b + 20 * y + 3 * x + c) as u8);
/// let encoded = model.encode(pixels.view(), &[], Dequantization::Typical)?;
/// assert_eq!(model.decode(&encoded.latents, &[])?.pixels, pixels); // every pixel, exactly
///
/// let draws = Draws::Uniform { draws: 8, seed: 0 };
/// let bits = model.bits_per_dim(pixels.view(), &[], draws)?;
/// println!("{:.2} bits/dim, {draws}", bits[0]);
///
/// let samples = model.sample(3, 0.7, &[], 42)?;
/// assert_eq!(samples.pixels.dim(), (3, 8, 8, 3));
/// assert!(samples.all_finite());
/// # Ok::<(), glowflow::Error>(())
/// ```
pub struct Model<A = ModelConfig, R: Real = f32> {
    config: A,
    latent_shapes: Vec<[usize; 3]>,
    fingerprint: u32,
    parameters: usize,
    engine: Box<dyn Engine<R>>,
}

impl Model {
    /// A new, untrained model on the CPU.
    ///
    /// # Errors
    /// [`Error::Config`] if no such model can be built.
    pub fn new(config: impl Into<ModelConfig>, seed: u64) -> Result<Self, Error> {
        Ok(Self::on(Cpu::new(), &ModelFile::new(config, seed)?))
    }

    /// Loads a model file, or the one in a run's folder, to the CPU.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::load_on(Cpu::<f32>::new(), path)
    }

    /// Loads a pretrained model by its [name](crate::pretrained::names), or the model in a folder, to the
    /// CPU. A file or folder of that name takes precedence.
    ///
    /// # Errors
    /// [`Error::Input`] if neither exists; otherwise as [`load`](Self::load).
    pub fn from_pretrained(name_or_path: impl AsRef<Path>) -> Result<Self, Error> {
        pretrained::check_name(name_or_path.as_ref())?;
        Self::load(name_or_path)
    }

    /// Loads a model file, or the one in a run's folder, to a device.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`].
    pub fn load_on(device: impl Into<AnyDevice>, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::of_file(device.into(), &ModelFile::read(path.as_ref())?))
    }

    /// Transfers a model to a device selected at run time.
    pub fn of_file(device: AnyDevice, file: &ModelFile) -> Self {
        on_device!(device, device => Self::on(device, file))
    }
}

impl<A: Architecture, R: Real> Model<A, R> {
    /// Transfers a model to a device.
    pub fn on<D: Operations<Real = R>>(device: D, file: &ModelFile<A>) -> Self {
        Self {
            latent_shapes: file.config.latent_shapes(),
            config: file.config.clone(),
            fingerprint: file.fingerprint(),
            parameters: file.layout().len(),
            engine: Box::new(DeviceEngine::new(device, file)),
        }
    }

    /// The architecture.
    pub fn config(&self) -> &A {
        &self.config
    }

    /// Checksum that identifies the model: see [`ModelFile::fingerprint`].
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Height, width and channels of the latents of each level.
    pub fn latent_shapes(&self) -> &[[usize; 3]] {
        &self.latent_shapes
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Default number of images decoded together.
    pub fn decoded_at_once(&self) -> usize {
        self.at_once(self.engine.pixels_at_once())
    }

    /// Number of images scored together, at least one.
    pub(crate) fn chunk(&self) -> usize {
        self.at_once(SCORED_PIXELS)
    }

    /// Number of images with this total number of pixels, at least one.
    fn at_once(&self, pixels: usize) -> usize {
        let [height, width, _] = self.config.image();
        (pixels / (height * width)).max(1)
    }

    /// Bytes of an image's latents.
    pub(crate) fn latent_bytes(&self) -> usize {
        self.config.dimensions() * size_of::<R>()
    }

    pub(super) fn engine(&self) -> &dyn Engine<R> {
        &*self.engine
    }

    /// Latents of images `[batch, H, W, C]`, and their densities; `labels` holds one class per image, or is
    /// empty if the model has no classes. For bits/dim, use [`bits_per_dim`](Self::bits_per_dim).
    ///
    /// # Errors
    /// [`Error::Input`] if shape, labels or noise do not match the model, [`Error::Device`] if the device
    /// fails.
    pub fn encode(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        dequantization: Dequantization<'_, R>,
    ) -> Result<Encoded<R>, Error> {
        let batch = pixels.len_of(Axis(0));
        self.check_images("pixels", pixels.shape(), batch, labels)?;
        if let Dequantization::Given(noise) = dequantization {
            self.check_images("noise", noise.shape(), batch, labels)?;
        }
        if let Dequantization::Variational { .. } = dequantization
            && self.config.dequantizer().is_none()
        {
            return Err(Error::Input(
                "the model has no variational dequantisation: its noise is uniform".into(),
            ));
        }
        let mut levels: Vec<Vec<R>> = vec![vec![]; self.latent_shapes.len()];
        let mut log_density = vec![];
        for start in (0..batch).step_by(self.chunk()) {
            let range = start..batch.min(start + self.chunk());
            let chunk = rows(pixels, range.clone());
            let stream = |seed| RngStream { seed, id: random::EVALUATION_NOISE + start as u64 };
            let given: Cow<'_, [R]>;
            let noise = match dequantization {
                Dequantization::Typical => match self.engine.typical_noise(&chunk)? {
                    Some(noise) => {
                        given = noise.into();
                        EntryNoise::Fixed(Noise::Given(&given))
                    }
                    None => EntryNoise::Fixed(Noise::Midpoint),
                },
                Dequantization::Midpoint => EntryNoise::Fixed(Noise::Midpoint),
                Dequantization::Uniform { seed } => EntryNoise::Fixed(Noise::Uniform(stream(seed), 0)),
                Dequantization::Variational { seed } => EntryNoise::Variational(stream(seed)),
                Dequantization::Given(noise) => {
                    given = rows(noise, range.clone());
                    EntryNoise::Fixed(Noise::Given(&given))
                }
            };
            let chunk_labels = labels.get(range).unwrap_or_default();
            let EncodedChunk { latents, log_density: densities } =
                self.engine.encode(&chunk, chunk_labels, noise)?;
            log_density.extend(densities.iter().map(|logp| self.config.in_bin(logp.wide())));
            levels.iter_mut().zip(latents).for_each(|(level, eps)| level.extend(eps));
        }
        Ok(Encoded { latents: self.latents(batch, levels)?, log_density })
    }

    /// The noise of [`Dequantization::Typical`], in `[0, 1/bins)`.
    pub(super) fn typical_noise(&self, pixels: ArrayView4<u8>) -> Result<Array4<R>, Error> {
        let mut noise = vec![];
        for chunk in pixels.axis_chunks_iter(Axis(0), self.chunk()) {
            let chunk = rows(chunk, 0..chunk.len_of(Axis(0)));
            let midpoint = || vec![R::of(0.5 / f64::from(self.config.bins())); chunk.len()];
            noise.extend(self.engine.typical_noise(&chunk)?.unwrap_or_else(midpoint));
        }
        array(pixels.len_of(Axis(0)), self.config.image(), noise)
    }

    /// Checks the shape of images or of their noise, and their labels.
    pub(super) fn check_images(
        &self,
        what: &str,
        shape: &[usize],
        batch: usize,
        labels: &[usize],
    ) -> Result<(), Error> {
        let image = self.config.image();
        if shape[0] != batch || shape[1..] != image {
            return Err(Error::Input(format!(
                "{what} of the shape {shape:?} do not match the model, which requires [batch, {}, {}, {}]",
                image[0], image[1], image[2]
            )));
        }
        self.check_labels(batch, labels)
    }

    pub(super) fn check_labels(&self, batch: usize, labels: &[usize]) -> Result<(), Error> {
        check_labels(&self.config, batch, labels)
    }
}
