//! Attribute directions: vectors in latent space that change an attribute, such as a smile.
//!
//! The direction of an attribute is `mean(z | with it) − mean(z | without it)` over labelled images (Kingma
//! and Dhariwal 2018, section 6). `z + α·direction` strengthens the attribute for α > 0 and weakens it for α
//! < 0; α = 1 is the distance between the means. The quality of a direction is measured on held-out images,
//! drawn at random.
//!
//! The directions of correlated attributes overlap: see [`Directions::orthogonalize`].

use std::path::Path;

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use crate::tensor_file::{TensorData, TensorFile};
use crate::{Error, Latents, Model, ModelConfig, pretrained};

/// Name of the directions in a run's folder.
pub const DIRECTIONS: &str = "directions.safetensors";

const HEADER: &str = "glow.directions";

/// The directions of a model's attributes.
#[derive(Clone, Debug, PartialEq)]
pub struct Directions {
    /// The architecture of the model.
    pub config: ModelConfig,
    /// The [fingerprint](Model::fingerprint) of the model: the directions are meaningless for any other.
    pub model: u32,
    /// One direction per attribute.
    pub list: Vec<Direction>,
}

/// The direction of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Metadata.
    pub about: About,
    /// The vector, in the shape of one image's latents.
    pub latents: Latents,
}

impl Direction {
    fn is_finite(&self) -> bool {
        self.latents.0.iter().flatten().all(|x| x.is_finite())
    }
}

/// Metadata of a direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct About {
    /// The attribute's name.
    pub name: String,
    /// Number of images with the attribute in its computation.
    pub positives: usize,
    /// Number of images without it.
    pub negatives: usize,
    /// AUC on held-out images; `None` if there are too few.
    pub auc: Option<Auc>,
}

/// Minimum number of images with and without an attribute for a reliable direction.
const MIN_RELIABLE: usize = 50;
/// Minimum AUC of a reliable direction.
const MIN_AUC: f64 = 0.75;
/// Maximum standard error of a reliable direction's AUC.
const MAX_STANDARD_ERROR: f64 = 0.05;

impl About {
    /// The reason why the direction is unreliable: too few images, or an AUC that is too low or too
    /// uncertain. `None` if it is reliable.
    pub fn weakness(&self) -> Option<String> {
        let mut reasons = vec![];
        for (count, kind) in [(self.positives, "with"), (self.negatives, "without")] {
            if count < MIN_RELIABLE {
                reasons.push(format!("computed from {count} images {kind} it"));
            }
        }
        match self.auc {
            None => reasons.push("not measured on held-out images".to_owned()),
            Some(Auc { value, standard_error }) if standard_error > MAX_STANDARD_ERROR => {
                reasons.push(format!("AUC {value:.2} ± {standard_error:.2} on held-out images"));
            }
            Some(Auc { value, .. }) if value < MIN_AUC => {
                reasons.push(format!("AUC {value:.2} on held-out images"));
            }
            Some(_) => {}
        }
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }
}

/// The probability that an image with an attribute is further along the direction than one without it: the
/// area under the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Auc {
    /// 0.5 is chance, 1 perfect.
    pub value: f64,
    /// Standard error (Hanley and McNeil 1982, equation 2).
    pub standard_error: f64,
}

impl Directions {
    /// Returns the direction of an attribute.
    ///
    /// # Errors
    /// [`Error::Input`] if it is unknown; the error lists the attributes.
    pub fn get(&self, name: &str) -> Result<&Direction, Error> {
        self.list.iter().find(|direction| direction.about.name == name).ok_or_else(|| {
            let known: Vec<_> = self.list.iter().map(|direction| direction.about.name.as_str()).collect();
            Error::Input(format!("unknown direction {name:?}, expected one of {}", known.join(", ")))
        })
    }

    /// Removes from every direction its projection on the span of the named directions (except itself):
    /// moving along it then does not change the projections on these.
    ///
    /// # Errors
    /// [`Error::Input`] for an unknown name.
    pub fn orthogonalize(&mut self, names: &[String]) -> Result<(), Error> {
        let named = names.iter().map(|name| self.get(name).cloned()).collect::<Result<Vec<_>, _>>()?;
        for direction in &mut self.list {
            let mut basis: Vec<Latents> = vec![];
            for other in named.iter().filter(|other| other.about.name != direction.about.name) {
                let rest = without(&other.latents, &basis);
                let norm = rest.dot(&rest).sqrt();
                // Of two attributes that always coincide, one suffices.
                if norm > 1e-4 * other.latents.dot(&other.latents).sqrt() {
                    basis.push(rest.combine((1.0 / norm) as f32, &rest, 0.0));
                }
            }
            direction.latents = without(&direction.latents, &basis);
        }
        Ok(())
    }

    /// The other direction most similar (or most opposed) to direction `index`, and the cosine of their
    /// angle.
    pub fn nearest(&self, index: usize) -> Option<(&str, f64)> {
        let of = &self.list.get(index)?.latents;
        let cosine = |other: &Direction| {
            of.dot(&other.latents) / (of.dot(of) * other.latents.dot(&other.latents)).sqrt()
        };
        self.list
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index)
            .map(|(_, other)| (other.about.name.as_str(), cosine(other)))
            .filter(|(_, cosine)| cosine.is_finite())
            .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
    }

    /// Writes the file: `{index}.eps.{level}` `[h, w, c]` for each direction, and their metadata, with the
    /// model's configuration and fingerprint, as the JSON object `glow.directions`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Input`] if a direction is not finite.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        self.tensors()?.write_with_checksum(path, HEADER, &self.header())
    }

    /// Like [`write`](Self::write), rounded to bf16: half the file size.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_bf16(&self, path: &Path) -> Result<(), Error> {
        self.tensors()?.rounded_to_bf16().write_with_checksum(path, HEADER, &self.header())
    }

    fn header(&self) -> Header {
        let directions = self.list.iter().map(|direction| direction.about.clone()).collect();
        Header { config: self.config.clone(), model: self.model, directions }
    }

    fn tensors(&self) -> Result<TensorFile, Error> {
        let mut file = TensorFile::default();
        for (i, direction) in self.list.iter().enumerate() {
            if !direction.is_finite() {
                return Err(Error::Input(format!(
                    "the direction of {} is not finite, because latents of the images are not; the model may be damaged, \
                     or its training diverged",
                    direction.about.name
                )));
            }
            for (level, eps) in direction.latents.0.iter().enumerate() {
                let values: Vec<f32> = eps.iter().copied().collect();
                file.tensors.insert(tensor_name(i, level), TensorData::f32(&eps.shape()[1..], &values));
            }
        }
        Ok(file)
    }

    /// Reads the directions of `glow`.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NoDirections`] if the file does not exist or holds those of another model;
    /// [`Error::File`] if it holds no directions or an incomplete set.
    pub fn read(path: &Path, glow: &Model) -> Result<Self, Error> {
        if !pretrained::exists(path) {
            return Err(Error::NoDirections { path: path.to_owned(), reason: "does not exist" });
        }
        let (file, Header { config, model, directions }) = TensorFile::read_with_checksum(path, HEADER)?;
        if model != glow.fingerprint() || config != *glow.config() {
            let reason = "holds directions of another model, or of an earlier state of this one";
            return Err(Error::NoDirections { path: path.to_owned(), reason });
        }
        let read = |(i, about): (usize, About)| {
            let levels =
                config.latent_shapes().into_iter().enumerate().map(|(level, [height, width, channels])| {
                    let name = tensor_name(i, level);
                    let values = file.tensors.get(&name).and_then(TensorData::to_f64).unwrap_or_default();
                    let values = values.into_iter().map(|x| x as f32).collect();
                    Array4::from_shape_vec((1, height, width, channels), values).map_err(|_| {
                        Error::file(path, format!("{name} is not an array [{height}, {width}, {channels}]"))
                    })
                });
            let direction = Direction { about, latents: Latents(levels.collect::<Result<_, Error>>()?) };
            if !direction.is_finite() {
                return Err(Error::file(
                    path,
                    format!("the direction of {} is not finite: the file is damaged", direction.about.name),
                ));
            }
            Ok(direction)
        };
        let list = directions.into_iter().enumerate().map(read).collect::<Result<_, Error>>()?;
        Ok(Self { config: glow.config().clone(), model, list })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    config: ModelConfig,
    model: u32,
    directions: Vec<About>,
}

fn tensor_name(direction: usize, level: usize) -> String {
    format!("{direction}.eps.{level}")
}

/// The latents minus their projections on an orthonormal basis.
fn without(latents: &Latents, basis: &[Latents]) -> Latents {
    basis.iter().fold(latents.clone(), |rest, unit| rest.combine(1.0, unit, -rest.dot(unit) as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_directions_are_explained() {
        let about = |positives, negatives, auc: Option<(f64, f64)>| About {
            name: "Hat".into(),
            positives,
            negatives,
            auc: auc.map(|(value, standard_error)| Auc { value, standard_error }),
        };
        for (about, weakness) in [
            (about(50, 900, Some((0.75, 0.05))), None),
            (about(12, 900, Some((0.9, 0.04))), Some("computed from 12 images with it")),
            (about(900, 49, Some((0.9, 0.04))), Some("computed from 49 images without it")),
            (about(300, 300, Some((0.62, 0.02))), Some("AUC 0.62 on held-out images")),
            (
                about(20, 900, Some((0.9, 0.08))),
                Some("computed from 20 images with it; AUC 0.90 ± 0.08 on held-out images"),
            ),
            (about(60, 60, None), Some("not measured on held-out images")),
        ] {
            assert_eq!(about.weakness().as_deref(), weakness, "{about:?}");
        }
    }
}
