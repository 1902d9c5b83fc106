//! Latents of a dataset in one safetensors file: `eps.{level}` `[images, h, w, c]`, `label` `[images]` where the model has
//! classes, and as the JSON object `glow.latents` the model's configuration and fingerprint, and the images' names.

use std::path::Path;
use std::sync::Arc;

use glowflow_data::Dataset;
use glowflow_kernels::Device;
use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::latent::encode_each;
use crate::tensor_file::{TensorData, TensorFile};
use crate::{Error, Glow, Latents, ModelConfig};

const HEADER: &str = "glow.latents";

#[derive(Serialize, Deserialize)]
struct Header {
    config: ModelConfig,
    model: u32,
    images: Vec<String>,
}

/// Latents of named images.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentsFile {
    /// The architecture of the model that made them.
    pub config: ModelConfig,
    /// The [fingerprint](Glow::fingerprint) of that model.
    pub model: u32,
    /// One name an image.
    pub images: Vec<String>,
    /// One label an image, or nothing where the model has no classes.
    pub labels: Vec<usize>,
    /// The latents.
    pub latents: Latents,
}

impl LatentsFile {
    /// Encodes every readable image of a dataset. `label`, where given, stands for all labels of the data.
    ///
    /// # Errors
    /// Errors of reading and of the model.
    pub fn encode<D: Device<Real = f32>>(
        glow: &Glow<D>,
        dataset: &Arc<dyn Dataset>,
        label: Option<usize>,
    ) -> Result<Self, Error> {
        let config = glow.config();
        let (mut images, mut labels, mut chunks) = (vec![], vec![], vec![]);
        encode_each(glow, dataset, label, |batch| {
            images.extend(batch.images.iter().map(|&index| dataset.name(index)));
            labels.extend(batch.labels);
            chunks.push(batch.encoded.latents);
            Ok(())
        })?;
        let latents = Latents::concatenate(&chunks)?;
        Ok(Self { config: config.clone(), model: glow.fingerprint(), images, labels, latents })
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let mut file = TensorFile::default();
        for (level, eps) in self.latents.0.iter().enumerate() {
            let values: Vec<f32> = eps.iter().copied().collect();
            file.tensors.insert(format!("eps.{level}"), TensorData::f32(eps.shape(), &values));
        }
        if !self.labels.is_empty() {
            let labels = TensorData::i64(&[self.labels.len()], self.labels.iter().map(|&label| label as i64));
            file.tensors.insert("label".into(), labels);
        }
        let header = Header { config: self.config.clone(), model: self.model, images: self.images.clone() };
        file.write(path, HEADER, &header)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] where it holds no latents or not all of them.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let file = TensorFile::read(path)?;
        let Header { config, model, images } = file.header(HEADER, path)?;
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        let levels =
            config.latent_shapes().into_iter().enumerate().map(|(level, [height, width, channels])| {
                let values = file
                    .tensors
                    .get(&format!("eps.{level}"))
                    .and_then(TensorData::to_f64)
                    .unwrap_or_default();
                let values = values.into_iter().map(|x| x as f32).collect();
                Array4::from_shape_vec((images.len(), height, width, channels), values).map_err(|_| {
                    let count = images.len();
                    Error::file(
                        path,
                        format!("eps.{level} is not an array [{count}, {height}, {width}, {channels}]"),
                    )
                })
            });
        let latents = Latents(levels.collect::<Result<_, Error>>()?);
        let labels = file.tensors.get("label").and_then(TensorData::to_i64).unwrap_or_default();
        let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
        Ok(Self { config, model, images, labels, latents })
    }
}
