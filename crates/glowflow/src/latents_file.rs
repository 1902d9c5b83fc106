//! Latents of a dataset in one safetensors file, which decodes to the same pixels (format: `docs/model.md`).
//!
//! Encoding decodes each batch immediately. The file also stores the pixels of images that are not
//! reconstructed exactly. Checksums of each image's latents and pixels show, on decoding, whether its pixels
//! were reconstructed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use glowflow_data::Dataset;
use ndarray::{Array3, Array4, ArrayView3, Axis};
use serde::{Deserialize, Serialize};

use crate::latent::{PixelBatch, read_each};
use crate::model::in_bits;
use crate::tensor_file::{TensorData, TensorFile};
use crate::{Decoded, Dequantization, Error, Latents, Model, ModelConfig};

const HEADER: &str = "glow.latents";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: ModelConfig,
    model: u32,
    images: Vec<String>,
}

/// Latents of named images.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentsFile {
    /// The architecture of the model that computed them.
    pub config: ModelConfig,
    /// The [fingerprint](Model::fingerprint) of that model.
    pub model: u32,
    /// One name per image.
    pub images: Vec<String>,
    /// One label per image; empty if the model has no classes.
    pub labels: Vec<usize>,
    /// The latents.
    pub latents: Latents,
    /// Checksums of each image; empty in files of other programs and of earlier versions.
    pub checksums: Vec<ImageChecksums>,
    /// Pixels, at the model's bit depth, of images that are not reconstructed exactly from their latents.
    pub kept: BTreeMap<usize, Array3<u8>>,
}

/// CRC-32 checksums of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageChecksums {
    /// Of its latents, level by level, and its label.
    pub latents: u32,
    /// Of its pixels, at the model's bit depth.
    pub pixels: u32,
}

/// An encoded dataset.
#[derive(Clone, Debug)]
pub struct EncodedFile {
    /// Content of the file.
    pub file: LatentsFile,
    /// Images with non-finite latents. The file holds zeros instead, and the images' pixels.
    pub not_finite: Vec<usize>,
}

/// Relation of a decoded image's pixels to the encoded ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// Equal.
    Exact,
    /// Different, although the latents are unchanged.
    Different,
    /// The latents were edited after they were written.
    Edited,
    /// The latents or the decoded values are not finite, and the pixels are meaningless.
    NotFinite,
    /// The file has no checksums for comparison.
    Unknown,
}

impl LatentsFile {
    /// Encodes every readable image of a dataset. `label`, if given, replaces all labels of the data.
    ///
    /// # Errors
    /// Errors of reading and of the model.
    pub fn encode(
        glow: &Model,
        dataset: &Arc<dyn Dataset>,
        label: Option<usize>,
    ) -> Result<EncodedFile, Error> {
        let config = glow.config().clone();
        let (mut images, mut all_labels, mut chunks) = (vec![], vec![], vec![]);
        let (mut checksums, mut kept, mut not_finite) = (vec![], BTreeMap::new(), vec![]);
        read_each(glow, dataset, label, |PixelBatch { images: indices, labels, mut pixels, .. }| {
            let mut latents = glow.encode(pixels.view(), &labels, Dequantization::Typical)?.latents;
            let exact = glow.comes_back(pixels.view(), &latents, &labels)?;
            pixels.mapv_inplace(|pixel| in_bits(pixel, config.bits()));
            for (i, (image, exact)) in pixels.outer_iter().zip(exact).enumerate() {
                let index = checksums.len();
                let finite = latents.is_finite(i);
                if !finite {
                    latents.clear(i);
                    not_finite.push(index);
                }
                if !exact || !finite {
                    kept.insert(index, image.to_owned());
                }
                let latents = latents_checksum(&latents, i, labels.get(i));
                checksums.push(ImageChecksums { latents, pixels: pixels_checksum(image) });
            }
            images.extend(indices.iter().map(|&index| dataset.name(index)));
            all_labels.extend(labels);
            chunks.push(latents);
            Ok(())
        })?;
        let latents = Latents::concatenate(&chunks)?;
        let model = glow.fingerprint();
        let file = Self { config, model, images, labels: all_labels, latents, checksums, kept };
        Ok(EncodedFile { file, not_finite })
    }

    /// Decodes all images. `each` receives an image's index, its pixels, and their relation to the encoded
    /// ones. Images whose pixels are stored in the file come first, unless their latents were edited.
    ///
    /// # Errors
    /// [`Error::Input`] if the latents do not match the model; errors of the device and of `each`.
    pub fn decode<E: From<Error>>(
        &self,
        glow: &Model,
        mut each: impl FnMut(usize, ArrayView3<u8>, Fidelity) -> Result<(), E>,
    ) -> Result<(), E> {
        crate::model::check_labels(glow.config(), self.latents.batch(), &self.labels)?;
        let (kept, decoded): (Vec<usize>, Vec<usize>) = (0..self.latents.batch())
            .partition(|index| self.kept.contains_key(index) && self.is_unedited(*index));
        for index in kept {
            let pixels = self.kept[&index].view();
            each(index, pixels, self.fidelity(index, pixels, true))?;
        }
        for indices in decoded.chunks(glow.decoded_at_once()) {
            let labels: Vec<usize> =
                indices.iter().filter_map(|&index| self.labels.get(index)).copied().collect();
            let Decoded { pixels, finite } = glow.decode(&self.latents.select(indices), &labels)?;
            for ((&index, pixels), &finite) in indices.iter().zip(pixels.outer_iter()).zip(&finite) {
                each(index, pixels, self.fidelity(index, pixels, finite))?;
            }
        }
        Ok(())
    }

    /// Returns whether an image's latents are unchanged since they were written.
    fn is_unedited(&self, index: usize) -> bool {
        let found = latents_checksum(&self.latents, index, self.labels.get(index));
        self.checksums.get(index).is_some_and(|checksums| checksums.latents == found)
    }

    /// Relation of an image's pixels to the encoded ones. `finite` states whether the values that they were
    /// decoded from are finite.
    fn fidelity(&self, index: usize, pixels: ArrayView3<u8>, finite: bool) -> Fidelity {
        match self.checksums.get(index) {
            _ if !finite || !self.latents.is_finite(index) => Fidelity::NotFinite,
            None => Fidelity::Unknown,
            Some(_) if !self.is_unedited(index) => Fidelity::Edited,
            Some(checksums) if checksums.pixels == pixels_checksum(pixels) => Fidelity::Exact,
            Some(_) => Fidelity::Different,
        }
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
        let mut integers = |name: &str, values: &mut dyn ExactSizeIterator<Item = i64>| {
            if values.len() > 0 {
                file.tensors.insert(name.into(), TensorData::i64(&[values.len()], values));
            }
        };
        integers("label", &mut self.labels.iter().map(|&label| label as i64));
        integers("crc.latents", &mut self.checksums.iter().map(|crc| i64::from(crc.latents)));
        integers("crc.pixels", &mut self.checksums.iter().map(|crc| i64::from(crc.pixels)));
        integers("pixels.index", &mut self.kept.keys().map(|&index| index as i64));
        if !self.kept.is_empty() {
            let [height, width, channels] = self.config.image();
            let bytes = self.kept.values().flatten().copied().collect();
            let pixels = TensorData::u8(&[self.kept.len(), height, width, channels], bytes);
            file.tensors.insert("pixels".into(), pixels);
        }
        let header = Header { config: self.config.clone(), model: self.model, images: self.images.clone() };
        file.write_with_checksum(path, HEADER, &header)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] if it holds no latents, an incomplete set, or modified ones.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let (file, header) = TensorFile::read_with_checksum(path, HEADER)?;
        Self::of(file, header, path)
    }

    /// Reads a file that may have been edited after it was written.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::File`] if it holds no latents or an incomplete set.
    pub fn read_edited(path: &Path) -> Result<Self, Error> {
        let (file, header) = TensorFile::read_edited(path, HEADER)?;
        Self::of(file, header, path)
    }

    fn of(file: TensorFile, header: Header, path: &Path) -> Result<Self, Error> {
        let Header { config, model, images } = header;
        config.validate().map_err(|e| Error::file(path, e.to_string()))?;
        let count = images.len();
        let levels =
            config.latent_shapes().into_iter().enumerate().map(|(level, [height, width, channels])| {
                let values = file
                    .tensors
                    .get(&format!("eps.{level}"))
                    .and_then(TensorData::to_f64)
                    .unwrap_or_default();
                let values = values.into_iter().map(|x| x as f32).collect();
                Array4::from_shape_vec((count, height, width, channels), values).map_err(|_| {
                    Error::file(
                        path,
                        format!("eps.{level} is not an array [{count}, {height}, {width}, {channels}]"),
                    )
                })
            });
        let latents = Latents(levels.collect::<Result<_, Error>>()?);
        let integers = |name: &str| file.tensors.get(name).and_then(TensorData::to_i64).unwrap_or_default();
        let labels = integers("label").into_iter().map(|label| {
            usize::try_from(label).map_err(|_| Error::file(path, format!("label {label} is not a class")))
        });
        let labels = labels.collect::<Result<_, _>>()?;
        let (of_latents, of_pixels) = (integers("crc.latents"), integers("crc.pixels"));
        if of_latents.len() != of_pixels.len() || ![0, count].contains(&of_pixels.len()) {
            return Err(Error::file(
                path,
                format!(
                    "crc.latents and crc.pixels hold {} and {} checksums for {count} images",
                    of_latents.len(),
                    of_pixels.len()
                ),
            ));
        }
        let checksums = of_latents.into_iter().zip(of_pixels);
        let checksums = checksums
            .map(|(latents, pixels)| ImageChecksums { latents: latents as u32, pixels: pixels as u32 })
            .collect();
        let kept = kept_pixels(&file, &integers("pixels.index"), &config, count)
            .ok_or_else(|| Error::file(path, "pixels, pixels.index and the images do not match"))?;
        Ok(Self { config, model, images, labels, latents, checksums, kept })
    }
}

/// The tensor `pixels` split by image; `None` if its shape does not match.
fn kept_pixels(
    file: &TensorFile,
    indices: &[i64],
    config: &ModelConfig,
    images: usize,
) -> Option<BTreeMap<usize, Array3<u8>>> {
    let bytes = file.tensors.get("pixels").map_or(Some(&[][..]), TensorData::to_u8)?;
    let [height, width, channels] = config.image();
    let pixels = Array4::from_shape_vec((indices.len(), height, width, channels), bytes.to_vec()).ok()?;
    let image = |(&index, pixels): (&i64, ArrayView3<u8>)| {
        let index = usize::try_from(index).ok().filter(|&index| index < images)?;
        Some((index, pixels.to_owned()))
    };
    indices.iter().zip(pixels.axis_iter(Axis(0))).map(image).collect()
}

/// CRC-32 of an image's latents, in the file's representation, and of its label.
fn latents_checksum(latents: &Latents, image: usize, label: Option<&usize>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for level in &latents.0 {
        let bytes: Vec<u8> = level.index_axis(Axis(0), image).iter().flat_map(|x| x.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    if let Some(&label) = label {
        hasher.update(&(label as u64).to_le_bytes());
    }
    hasher.finalize()
}

fn pixels_checksum(pixels: ArrayView3<u8>) -> u32 {
    let bytes: Vec<u8> = pixels.iter().copied().collect();
    crc32fast::hash(&bytes)
}
