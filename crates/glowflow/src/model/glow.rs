//! A model with its weights on a device: scoring, encoding, decoding and sampling on plain arrays.

use std::cell::Cell;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use glowflow_kernels::{
    AnyDevice, Cpu, Device, DeviceError, Direction, Grid, Noise, Quantized, Real, Repeated, Stream,
};
use ndarray::{Array4, ArrayView3, ArrayView4, Axis};

use super::file::ModelFile;
use super::flow::Flow;
use super::latents::{Encoded, Latents, RoundTrip};
use crate::flow::{Prepared, State, Tensor};
use crate::models::ModelConfig;
use crate::{Error, random};

/// The most bytes that images may take whose number was asked for: their latents, their pixels, or a picture of them.
const MOST_BYTES: usize = 1 << 29;

/// The most numbers of one-hot rows at once.
const ONE_HOT: usize = 1 << 24;

/// Checks that memory will do for images whose number was asked for: the product of `counts`, each of `bytes` bytes.
///
/// ```
/// use glowflow::check_count;
///
/// assert!(check_count(&[64], 32 * 32 * 3).is_ok());
/// let error = check_count(&[usize::MAX, 2], 32 * 32 * 3).unwrap_err().to_string();
/// assert!(error.contains("18446744073709551615 × 2 images") && error.contains("174762 at most"));
/// ```
///
/// # Errors
/// [`Error::Input`] names the number, and how many are possible.
pub fn check_count(counts: &[usize], bytes: usize) -> Result<(), Error> {
    // However small an image is, some memory goes to keeping track of it.
    let most = MOST_BYTES / bytes.max(1 << 10);
    let count = counts.iter().try_fold(1, |product: usize, &count| product.checked_mul(count));
    if count.is_some_and(|count| count <= most) {
        return Ok(());
    }
    let counts = counts.iter().map(usize::to_string).collect::<Vec<_>>().join(" × ");
    Err(Error::Input(format!("{counts} images of {bytes} bytes each are too many at once: {most} at most")))
}

/// The largest error, and NaN where one of them is NaN, which `f64::max` would lose.
///
/// ```
/// use glowflow::model::largest;
///
/// assert_eq!(largest([1.0, 3.0, 2.0]), 3.0);
/// assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
/// ```
pub fn largest(errors: impl IntoIterator<Item = f64>) -> f64 {
    errors.into_iter().fold(0.0, |most, e| if most.is_nan() || most >= e { most } else { e })
}

/// Noise that makes pixels continuous (`docs/model.md`).
#[derive(Clone, Copy, Debug)]
pub enum Dequantization<'a, R = f32> {
    /// The centre of each bin: deterministic, for encoding. Its density is not a likelihood of the image.
    Midpoint,
    /// Uniform over each bin, from a seed: the bound's noise, as in training.
    Uniform {
        /// The draw; different seeds are independent.
        seed: u64,
    },
    /// Given, of the shape of the pixels, in `[0, 1/bins)`.
    Given(ArrayView4<'a, R>),
}

/// A Glow model, ready to use.
///
/// ```
/// use glowflow::{Dequantization, Draws, Glow, GlowConfig};
/// use ndarray::Array4;
///
/// let config = GlowConfig { image: [8, 8, 3], levels: 2, steps: 2, hidden: 8, ..GlowConfig::default() };
/// let glow = Glow::new(config, 0)?; // or Glow::load("model.safetensors")?
///
/// let pixels = Array4::from_shape_fn((2, 8, 8, 3), |(b, y, x, c)| (50 * b + 20 * y + 3 * x + c) as u8);
/// let encoded = glow.encode(pixels.view(), &[], Dequantization::Midpoint)?;
/// assert_eq!(glow.decode(&encoded.latents, &[])?, pixels); // every pixel, exactly
///
/// let draws = Draws::Uniform { draws: 8, seed: 0 };
/// let bits = glow.bits_per_dim(pixels.view(), &[], draws)?;
/// println!("{:.2} bits/dim ({draws})", bits[0]);
///
/// let samples = glow.sample(3, 0.7, &[], 42)?;
/// assert_eq!(samples.dim(), (3, 8, 8, 3));
/// # Ok::<(), glowflow::Error>(())
/// ```
pub struct Glow<D: Device = AnyDevice> {
    fingerprint: u32,
    device: D,
    flow: Flow<D>,
    weights: D::Buffer,
    forward: OnceLock<Vec<Box<dyn Prepared<D>>>>,
    inverse: OnceLock<Vec<Box<dyn Prepared<D>>>>,
    /// The last batch that was decoded, for the next one is likely to have its size.
    decoding: Mutex<Option<Decoding<D>>>,
    not_finite: AtomicBool,
}

/// Latents to images for a batch of a certain size: what a device may record.
struct Decoding<D: Device> {
    images: usize,
    latents: Vec<Tensor<D>>,
    labels: D::Buffer,
    /// Returns images `v`.
    work: Repeated<D, D::Buffer>,
}

impl Glow {
    /// A new model on the processor, before any training.
    ///
    /// # Errors
    /// [`Error::Config`] where no such model can be built.
    pub fn new(config: impl Into<ModelConfig>, seed: u64) -> Result<Self, Error> {
        Ok(Self::on(AnyDevice::Cpu(Cpu::new()), &ModelFile::new(config, seed)?))
    }

    /// Loads a model file, or that of a run's folder, onto the processor.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::load_on(AnyDevice::Cpu(Cpu::new()), path)
    }
}

impl<D: Device> Glow<D> {
    /// Loads a model file, or that of a run's folder, onto a device.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`].
    pub fn load_on(device: D, path: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self::on(device, &ModelFile::read(path.as_ref())?))
    }

    /// Brings a model onto a device.
    pub fn on(device: D, file: &ModelFile) -> Self {
        Self {
            flow: Flow::new(file.config.clone(), &file.permutations),
            weights: device.upload(&D::Real::of_file(file.weights.clone())),
            fingerprint: file.fingerprint(),
            device,
            forward: OnceLock::new(),
            inverse: OnceLock::new(),
            not_finite: AtomicBool::new(false),
            decoding: Mutex::new(None),
        }
    }

    /// The architecture.
    pub fn config(&self) -> &ModelConfig {
        &self.flow.config
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Tells models apart: see [`ModelFile::fingerprint`].
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.flow.layout.len()
    }

    /// Images that are scored at once: as many as 64 of 32×32, and at least one. Their noise is drawn by this number, so it is the
    /// same for all devices.
    pub(crate) fn chunk(&self) -> usize {
        self.at_once(64 * 32 * 32)
    }

    /// Images that are decoded at once, of however many are asked for.
    pub fn decoded_at_once(&self) -> usize {
        self.at_once(self.device.pixels_at_once())
    }

    /// Images of so many pixels together, and fewer where there are so many classes that their one-hot rows would fill the memory.
    fn at_once(&self, pixels: usize) -> usize {
        let [height, width, _] = self.config().image();
        (pixels / (height * width)).min(ONE_HOT / self.config().classes().max(1)).max(1)
    }

    /// Bytes of the latents of one image.
    pub(crate) fn latent_bytes(&self) -> usize {
        self.config().dimensions() * size_of::<D::Real>()
    }

    fn encoder(&self) -> &[Box<dyn Prepared<D>>] {
        self.prepared(&self.forward, Direction::Forward)
    }

    fn decoder(&self) -> &[Box<dyn Prepared<D>>] {
        self.prepared(&self.inverse, Direction::Inverse)
    }

    /// The layers in `once`, made ready the first time. Two threads that are the first may both make them: one must not wait for the
    /// other, who may be waiting for it in rayon's pool.
    fn prepared<'a>(
        &self,
        once: &'a OnceLock<Vec<Box<dyn Prepared<D>>>>,
        direction: Direction,
    ) -> &'a [Box<dyn Prepared<D>>] {
        if let Some(layers) = once.get() {
            return layers;
        }
        let layers = self.flow.prepare(&self.device, &self.weights, direction);
        once.get_or_init(|| layers)
    }

    /// Latents of images `[batch, H, W, C]`, and their densities; `labels` holds one class an image, or nothing if the
    /// model has no classes. For bits/dim, use [`bits_per_dim`](Self::bits_per_dim).
    ///
    /// # Errors
    /// [`Error::Input`] where shape or labels do not fit the model, [`Error::Device`] where the device fails.
    pub fn encode(
        &self,
        pixels: ArrayView4<u8>,
        labels: &[usize],
        dequantization: Dequantization<'_, D::Real>,
    ) -> Result<Encoded<D::Real>, Error> {
        let batch = pixels.len_of(Axis(0));
        self.check_images("pixels", pixels.shape(), batch, labels)?;
        if let Dequantization::Given(noise) = dequantization {
            self.check_images("noise", noise.shape(), batch, labels)?;
        }
        let layers = self.encoder();
        let config = self.config();
        let mut levels: Vec<Vec<D::Real>> = vec![vec![]; config.latent_shapes().len()];
        let mut log_density = vec![];
        for start in (0..batch).step_by(self.chunk()) {
            let range = start..batch.min(start + self.chunk());
            let part = |view: &ArrayView4<u8>| -> Vec<u8> {
                view.slice_axis(Axis(0), range.clone().into()).iter().copied().collect()
            };
            let chunk = part(&pixels);
            let given: Vec<D::Real>;
            let noise = match dequantization {
                Dequantization::Midpoint => Noise::Midpoint,
                Dequantization::Uniform { seed } => {
                    Noise::Uniform(Stream { seed, id: random::EVALUATION_NOISE + start as u64 })
                }
                Dequantization::Given(noise) => {
                    given = noise.slice_axis(Axis(0), range.clone().into()).iter().copied().collect();
                    Noise::Given(&given)
                }
            };
            let mut v = self.device.scratch(chunk.len());
            self.device.dequantize(&chunk, config.bits(), noise, &mut v);
            let labels = self.one_hot(labels.get(range.clone()).unwrap_or_default());
            let mut state = self.flow.enter(&self.device, range.len(), v, labels);
            self.flow.encode(&self.device, layers, &mut state);
            let logp = self.device.download(&state.logp)?;
            log_density.extend(logp.iter().map(|logp| config.in_bin(logp.wide())));
            for (level, eps) in levels.iter_mut().zip(&state.latents) {
                level.extend(self.device.download(&eps.data)?);
            }
        }
        let levels = config.latent_shapes().into_iter().zip(levels);
        let levels =
            levels.map(|(shape, values)| array(batch, shape, values)).collect::<Result<_, Error>>()?;
        Ok(Encoded { latents: Latents(levels), log_density })
    }

    /// Images from latents of every level.
    ///
    /// # Errors
    /// As [`decode_continuous`](Self::decode_continuous).
    pub fn decode(&self, latents: &Latents<D::Real>, labels: &[usize]) -> Result<Array4<u8>, Error> {
        self.decode_as(latents, labels, |v| self.pixels(v))
    }

    fn pixels(&self, v: &D::Buffer) -> Result<Vec<u8>, DeviceError> {
        let Quantized { pixels, finite } = self.device.quantize(v, self.config().bits())?;
        if !finite {
            self.not_finite.store(true, Ordering::Relaxed);
        }
        Ok(pixels)
    }

    /// As [`decode`](Self::decode), and whether all numbers behind the pixels were finite. Unlike
    /// [`was_not_finite`](Self::was_not_finite), the result does not depend on other callers.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_checked(
        &self,
        latents: &Latents<D::Real>,
        labels: &[usize],
    ) -> Result<(Array4<u8>, bool), Error> {
        let all_finite = Cell::new(true);
        let pixels = self.decode_as(latents, labels, |v| {
            let Quantized { pixels, finite } = self.device.quantize(v, self.config().bits())?;
            all_finite.set(all_finite.get() && finite);
            Ok(pixels)
        })?;
        Ok((pixels, all_finite.get()))
    }

    /// Whether, since the last time that this was asked, a picture was decoded or sampled that holds numbers which are not finite, and so pixels
    /// that mean nothing. It happens far from what a model was trained on, and in early training, where couplings divide by almost 0.
    pub fn was_not_finite(&self) -> bool {
        self.not_finite.swap(false, Ordering::Relaxed)
    }

    /// Images `v` in `[−0.5, 0.5)` from latents of every level, before they become pixels.
    ///
    /// # Errors
    /// [`Error::Input`] where shapes or labels do not fit the model, [`Error::Device`] where the device fails.
    pub fn decode_continuous(
        &self,
        latents: &Latents<D::Real>,
        labels: &[usize],
    ) -> Result<Array4<D::Real>, Error> {
        self.decode_as(latents, labels, |v| self.device.download(v))
    }

    /// Decodes latents; `read` gets what an image is wanted as.
    fn decode_as<T>(
        &self,
        latents: &Latents<D::Real>,
        labels: &[usize],
        read: impl Fn(&D::Buffer) -> Result<Vec<T>, DeviceError>,
    ) -> Result<Array4<T>, Error> {
        let batch = latents.batch();
        let shapes = self.config().latent_shapes();
        let want: Vec<Vec<usize>> = shapes.iter().map(|shape| [&[batch], &shape[..]].concat()).collect();
        let have: Vec<Vec<usize>> = latents.0.iter().map(|level| level.shape().to_vec()).collect();
        if have != want {
            return Err(Error::Input(format!(
                "latents of the shapes {have:?} do not fit the model, which has {want:?}: one array for each level"
            )));
        }
        self.check_labels(batch, labels)?;
        let write = |range: Range<usize>, level: usize, eps: &mut D::Buffer| {
            let values: Vec<D::Real> =
                latents.0[level].slice_axis(Axis(0), range.into()).iter().copied().collect();
            self.device.copy(&self.device.upload(&values), eps);
        };
        self.in_chunks(batch, labels, write, read)
    }

    /// `count` images from latents drawn at `temperature` (1 is the model's own distribution), of the classes `labels`,
    /// one an image, where the model has classes.
    ///
    /// # Errors
    /// [`Error::Input`] where the labels do not fit or the images are too many at once, [`Error::Device`] where the device fails.
    pub fn sample(
        &self,
        count: usize,
        temperature: f64,
        labels: &[usize],
        seed: u64,
    ) -> Result<Array4<u8>, Error> {
        check_temperature(temperature)?;
        check_count(&[count], self.config().dimensions())?;
        self.check_labels(count, labels)?;
        // As `draw` has them, but without a way through the host.
        let write = |range: Range<usize>, level: usize, eps: &mut D::Buffer| {
            let stream = Stream { seed, id: latents_stream(level) + range.start as u64 };
            self.device.normal(stream, range.len(), temperature, eps);
        };
        self.in_chunks(count, labels, write, |v| self.pixels(v))
    }

    /// Latents drawn from N(0, temperature²). Image `i` of a seed is the same whatever `count` is.
    ///
    /// # Errors
    /// [`Error::Input`] where the temperature is negative or not a number, or the images are too many at once.
    pub fn draw(&self, count: usize, temperature: f64, seed: u64) -> Result<Latents<D::Real>, Error> {
        check_temperature(temperature)?;
        check_count(&[count], self.latent_bytes())?;
        let levels = self.config().latent_shapes().into_iter().enumerate().map(|(level, shape)| {
            let mut eps = self.device.scratch(count * shape.iter().product::<usize>());
            self.device.normal(Stream { seed, id: latents_stream(level) }, count, temperature, &mut eps);
            array(count, shape, self.device.download(&eps)?)
        });
        Ok(Latents(levels.collect::<Result<_, Error>>()?))
    }

    /// How exactly the model inverts: the largest difference between an image and its decoded latents,
    /// `max |decode(encode(v)) − v|`, for images at the middle of each bin.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn inverse_error(&self, pixels: ArrayView4<u8>, labels: &[usize]) -> Result<f64, Error> {
        Ok(largest(self.round_trip(pixels, labels)?.errors))
    }

    /// Encodes images at the middle of each bin, decodes their latents, and compares.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn round_trip(&self, pixels: ArrayView4<u8>, labels: &[usize]) -> Result<RoundTrip<D::Real>, Error> {
        let encoded = self.encode(pixels, labels, Dequantization::Midpoint)?;
        let bits = self.config().bits();
        let back = self.decode_as(&encoded.latents, labels, |v| {
            let pixels = self.device.quantize(v, bits)?.pixels;
            Ok(self.device.download(v)?.into_iter().zip(pixels).collect())
        })?;
        let bins = f64::from(self.config().bins());
        let (mut errors, mut exact) = (vec![], vec![]);
        for (back, pixels) in back.outer_iter().zip(pixels.outer_iter()) {
            let error = |((v, _), &pixel): (&(D::Real, u8), &u8)| {
                (v.wide() - ((f64::from(pixel >> (8 - bits)) + 0.5) / bins - 0.5)).abs()
            };
            errors.push(largest(back.iter().zip(&pixels).map(error)));
            let mut pairs = back.iter().zip(&pixels);
            exact
                .push(pairs.all(|((v, back), &pixel)| v.wide().is_finite() && *back == in_bits(pixel, bits)));
        }
        Ok(RoundTrip { encoded, errors, exact })
    }

    /// Whether images come back with the same pixels, in the model's bits, from latents that they were encoded to.
    ///
    /// # Errors
    /// As [`decode_continuous`](Self::decode_continuous).
    pub fn comes_back(
        &self,
        pixels: ArrayView4<u8>,
        latents: &Latents<D::Real>,
        labels: &[usize],
    ) -> Result<Vec<bool>, Error> {
        let (bits, finite) = (self.config().bits(), Cell::new(true));
        let back = self.decode_as(latents, labels, |v| {
            let quantized = self.device.quantize(v, bits)?;
            finite.set(finite.get() && quantized.finite);
            Ok(quantized.pixels)
        })?;
        self.check_images("pixels", pixels.shape(), latents.batch(), labels)?;
        let same = |(back, pixels): (ArrayView3<u8>, ArrayView3<u8>)| {
            back.iter().zip(pixels).all(|(&back, &pixel)| back == in_bits(pixel, bits))
        };
        let mut exact: Vec<bool> = back.outer_iter().zip(pixels.outer_iter()).map(same).collect();
        if !finite.get() && exact.contains(&true) {
            // Pixels of numbers that are not finite mean nothing, even if they are the same.
            let back = self.decode_continuous(latents, labels)?;
            for (exact, v) in exact.iter_mut().zip(back.outer_iter()) {
                *exact &= v.iter().all(|v| v.wide().is_finite());
            }
        }
        Ok(exact)
    }

    /// Decodes `count` images, some at a time. `write` writes the latents of a range of images at a level, and `read` gets what the
    /// images are wanted as.
    fn in_chunks<T>(
        &self,
        count: usize,
        labels: &[usize],
        write: impl Fn(Range<usize>, usize, &mut D::Buffer),
        read: impl Fn(&D::Buffer) -> Result<Vec<T>, DeviceError>,
    ) -> Result<Array4<T>, Error> {
        let mut images = vec![];
        for start in (0..count).step_by(self.decoded_at_once()) {
            let range = start..count.min(start + self.decoded_at_once());
            let labels = labels.get(range.clone()).unwrap_or_default();
            let chunk = self.decode_chunk(range, labels, &write, &read)?;
            // Usually there is one chunk, and millions of pixels need not be copied.
            if images.is_empty() {
                images = chunk;
            } else {
                images.extend(chunk);
            }
        }
        array(count, self.config().image(), images)
    }

    fn decode_chunk<T>(
        &self,
        range: Range<usize>,
        labels: &[usize],
        write: impl Fn(Range<usize>, usize, &mut D::Buffer),
        read: impl Fn(&D::Buffer) -> Result<Vec<T>, DeviceError>,
    ) -> Result<Vec<T>, Error> {
        let (device, images) = (&self.device, range.len());
        let layers = self.decoder();
        // Whoever comes while another one decodes does not wait for that.
        let mut kept = self.decoding.try_lock().ok();
        let last = kept.as_mut().and_then(|kept| kept.take()).filter(|decoding| decoding.images == images);
        let mut own = None;
        let decoding = kept.as_deref_mut().unwrap_or(&mut own);
        let Decoding { latents, labels: to, work, .. } =
            decoding.insert(last.unwrap_or_else(|| self.new_decoding(images)));
        for (level, eps) in latents.iter_mut().enumerate() {
            write(range.clone(), level, &mut eps.data);
        }
        device.copy(&self.one_hot(labels), to);
        let v = work.run(device, |device| {
            let labels = device.copied(to, images * self.config().classes());
            let mut state: State<D> = self.flow.enter(device, images, device.scratch(0), labels);
            state.latents = latents
                .iter()
                .map(|eps| Tensor { data: device.copied(&eps.data, eps.grid.rows() * eps.channels), ..*eps })
                .collect();
            self.flow.decode(device, layers, &mut state);
            state.x.data
        });
        Ok(read(v)?)
    }

    fn new_decoding(&self, images: usize) -> Decoding<D> {
        let shapes = self.config().latent_shapes();
        let latents = shapes.into_iter().map(|[height, width, channels]| {
            let grid = Grid { batch: images, height, width };
            Tensor { grid, channels, data: self.device.scratch(grid.rows() * channels) }
        });
        Decoding {
            images,
            latents: latents.collect(),
            labels: self.device.scratch(images * self.config().classes()),
            work: Repeated::new(),
        }
    }

    fn one_hot(&self, labels: &[usize]) -> D::Buffer {
        self.device.upload(&one_hot(labels, self.config().classes()))
    }

    pub(super) fn check_images(
        &self,
        what: &str,
        shape: &[usize],
        batch: usize,
        labels: &[usize],
    ) -> Result<(), Error> {
        let image = self.config().image();
        if shape[0] != batch || shape[1..] != image {
            return Err(Error::Input(format!(
                "{what} of the shape {shape:?} do not fit the model, which wants [batch, {}, {}, {}]",
                image[0], image[1], image[2]
            )));
        }
        self.check_labels(batch, labels)
    }

    fn check_labels(&self, batch: usize, labels: &[usize]) -> Result<(), Error> {
        check_labels(self.config(), batch, labels)
    }
}

/// A pixel without the low bits that the model drops.
pub(crate) fn in_bits(pixel: u8, bits: u32) -> u8 {
    pixel >> (8 - bits) << (8 - bits)
}

/// The stream from which a level's latents are drawn, for image 0; those of the others follow.
fn latents_stream(level: usize) -> u64 {
    random::SAMPLES + ((level as u64) << 40)
}

fn check_temperature(temperature: f64) -> Result<(), Error> {
    if temperature >= 0.0 && temperature.is_finite() {
        return Ok(());
    }
    Err(Error::Input(format!("temperature {temperature} is not possible; 0.7 is a good choice")))
}

/// One-hot rows `[batch, classes]`.
pub(crate) fn one_hot<R: Real>(labels: &[usize], classes: usize) -> Vec<R> {
    let mut rows = vec![R::zero(); labels.len() * classes];
    labels.iter().enumerate().for_each(|(i, label)| rows[i * classes + label] = R::one());
    rows
}

/// Checks that there is a label for every image exactly where the model has classes.
pub(crate) fn check_labels(config: &ModelConfig, batch: usize, labels: &[usize]) -> Result<(), Error> {
    let classes = config.classes();
    let message = if classes == 0 && !labels.is_empty() {
        format!("{} labels were given to a model without classes", labels.len())
    } else if classes > 0 && labels.len() != batch {
        format!(
            "the model has {classes} classes, so it needs a label for each image: {} for {batch}",
            labels.len()
        )
    } else if let Some(label) = labels.iter().find(|&&label| label >= classes) {
        format!("label {label} is not one of the model's {classes} classes, 0 to {}", classes - 1)
    } else {
        return Ok(());
    };
    Err(Error::Input(message))
}

fn array<R>(batch: usize, [height, width, channels]: [usize; 3], values: Vec<R>) -> Result<Array4<R>, Error> {
    Array4::from_shape_vec((batch, height, width, channels), values)
        .map_err(|e| Error::Input(format!("the device returned an array of another size: {e}")))
}
