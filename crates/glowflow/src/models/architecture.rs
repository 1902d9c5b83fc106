//! The trait that every architecture implements.

use std::fmt::Debug;

use glowflow_kernels::{Cpu, Operations};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;
use crate::flow::{DequantizerConfig, FlowBuilder};
use crate::model::NoiseKind;
use crate::params::Source;
use crate::train::TrainConfig;

/// An architecture: the configuration of a flow, without parameters.
///
/// Its serialised form is the JSON object in a model file and the section `[model]` of a run's configuration.
pub trait Architecture:
    Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// Height, width and channels of an image.
    fn image(&self) -> [usize; 3];

    /// Significant bits of a pixel, 1 to 8.
    fn bits(&self) -> u32;

    /// Number of classes; 0 for a model without labels.
    fn classes(&self) -> usize {
        0
    }

    /// Hyperparameters of the model's dequantiser; `None` for uniform dequantisation. A dequantiser requires
    /// even image sides.
    fn dequantizer(&self) -> Option<DequantizerConfig> {
        None
    }

    /// Noise of the bound that training minimises.
    fn noise(&self) -> NoiseKind {
        if self.dequantizer().is_some() { NoiseKind::Variational } else { NoiseKind::Uniform }
    }

    /// Checks that the model can be built.
    ///
    /// # Errors
    /// [`Error::Config`] with the key, its value, and valid values.
    fn validate(&self) -> Result<(), Error>;

    /// Notices of sizes that differ from their defaults but are not used by this model, one sentence each.
    fn unread(&self) -> Vec<String> {
        vec![]
    }

    /// Keys of the configuration that determine the memory of a model, apart from `image`.
    fn size_keys(&self) -> &'static [&'static str] {
        &[]
    }

    /// Declares the tensors and appends the layers.
    fn build<D: Operations>(&self, flow: &mut FlowBuilder<'_, D>);

    /// Height, width and channels of the latents of each level.
    fn latent_shapes(&self) -> Vec<[usize; 3]> {
        let flow = FlowBuilder::<Cpu<f32>>::build(self, Source::Layout);
        flow.latents().iter().map(|latents| latents.shape.into()).collect()
    }

    /// Sets the number of channels of an image.
    fn set_channels(&mut self, channels: usize);

    /// Sets the number of classes.
    ///
    /// # Errors
    /// [`Error::Config`] if the architecture has no class-conditional prior.
    fn set_classes(&mut self, classes: usize) -> Result<(), Error> {
        if classes == 0 {
            return Ok(());
        }
        Err(Error::Config(format!(
            "this architecture does not support classes, but {classes} were requested"
        )))
    }

    /// Default settings of a training run of this model.
    fn train_defaults(&self) -> TrainConfig {
        TrainConfig::default()
    }

    /// Number of dimensions D of an image.
    fn dimensions(&self) -> usize {
        self.image().iter().product()
    }

    /// Number of labels of `images` images: `images`, or 0 without classes.
    fn labels_of(&self, images: usize) -> usize {
        if self.classes() > 0 { images } else { 0 }
    }

    /// Number of values of a pixel, `2^bits`.
    fn bins(&self) -> u32 {
        1 << self.bits()
    }

    /// `−log p / (D·log 2)`: converts a log-probability in nats to bits per dimension. The result is of the
    /// same kind as the argument: a bound for a bound, a density at a point for a density.
    fn bits_per_dim(&self, log_probability: f64) -> f64 {
        -log_probability / (self.dimensions() as f64 * std::f64::consts::LN_2)
    }

    /// A log-density `log p(v)` plus the log-volume of an image's bin: `log p(v) + log(bins^−D)`.
    fn in_bin(&self, log_density: f64) -> f64 {
        log_density - self.dimensions() as f64 * f64::from(self.bins()).ln()
    }
}

/// Configuration checks shared by architectures.
pub mod check {
    use super::Error;

    /// Maximum height and width of an image, in pixels: the number of values of smaller images does not
    /// overflow.
    pub const MAX_SIDE: usize = 1 << 16;

    /// Checks that `model.{key}` is at least 1 and at most `most`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn at_least_one(key: &str, value: usize, most: usize) -> Result<(), Error> {
        if value == 0 {
            return Err(Error::Config(format!("model.{key} is 0; it must be at least 1")));
        }
        at_most(key, value, most)
    }

    /// Checks that `model.{key}` is at most `most`.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn at_most(key: &str, value: usize, most: usize) -> Result<(), Error> {
        if value > most {
            return Err(Error::Config(format!("model.{key} is {value}; it must be at most {most}")));
        }
        Ok(())
    }

    /// Returns a notice if `model.{key}`, which is only used with the setting `needs`, differs from its
    /// default.
    pub fn unread(key: &str, value: usize, default: usize, needs: &str) -> Option<String> {
        (value != default)
            .then(|| format!("model.{key} is {value}, which has no effect without model.{needs}"))
    }

    /// Checks the size of images and the bits per pixel.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn image([height, width, channels]: [usize; 3], bits: u32) -> Result<(), Error> {
        at_least_one("image height", height, MAX_SIDE)?;
        at_least_one("image width", width, MAX_SIDE)?;
        at_least_one("image channels", channels, 64)?;
        if !(1..=8).contains(&bits) {
            return Err(Error::Config(format!("model.bits is {bits}; it must be 1 to 8")));
        }
        Ok(())
    }

    /// Checks that an image can be squeezed `squeezes` times. `unit` names the number of pixels that must
    /// divide its sides, and `fewer` gives the number of levels possible for a side with `n` factors of 2.
    ///
    /// # Errors
    /// [`Error::Config`] with sizes that are possible.
    pub fn divisible(
        [height, width, _]: [usize; 3],
        squeezes: usize,
        unit: &str,
        fewer: impl Fn(usize) -> usize,
    ) -> Result<(), Error> {
        let divisor = 1 << squeezes;
        for (key, value) in [("height", height), ("width", width)] {
            if value % divisor == 0 {
                continue;
            }
            let below = value / divisor * divisor;
            let near =
                if below == 0 { format!("{divisor}") } else { format!("{below} or {}", below + divisor) };
            let levels = fewer(value.trailing_zeros() as usize);
            let fewer = if levels == 0 {
                String::new()
            } else {
                format!(", or set model.levels to at most {levels}")
            };
            return Err(Error::Config(format!(
                "image {key} {value} is not divisible by {unit} = {divisor}: use {near}{fewer}"
            )));
        }
        Ok(())
    }
}
