//! Which images of a folder are nearest to one, in latent space.

use std::sync::Arc;

use glowflow_data::Dataset;
use glowflow_kernels::{Device, Real};
use serde::Serialize;

use super::encode_each;
use crate::{Error, Glow, Latents};

/// An image, and how far it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Neighbour {
    /// Its number in the dataset.
    #[serde(skip)]
    pub index: usize,
    /// Its name there.
    pub image: String,
    /// Distance from the image asked about, as vectors of the levels that count: 0 for the same image, near
    /// `√(2·dimensions)` for two that have nothing to do with each other.
    pub distance: f64,
}

/// The `count` images of a dataset nearest to the image with the latents `to`, nearest first. The first `skip` levels,
/// which hold the finest details, do not count. Images are read as a stream.
///
/// # Errors
/// Errors of reading and of the model; [`Error::Input`] where no level is left to count, or `to` holds not one image.
pub fn nearest<D: Device>(
    glow: &Glow<D>,
    to: &Latents<D::Real>,
    dataset: &Arc<dyn Dataset>,
    count: usize,
    skip: usize,
    label: Option<usize>,
) -> Result<Vec<Neighbour>, Error> {
    if skip >= to.0.len() || to.batch() != 1 {
        return Err(Error::Input(format!(
            "cannot compare {} images by {} levels without the first {skip}: one image and at least one level are needed",
            to.batch(),
            to.0.len()
        )));
    }
    let mut nearest: Vec<Neighbour> = vec![];
    encode_each(glow, dataset, label, |batch| {
        for (i, &index) in batch.images.iter().enumerate() {
            let of = batch.encoded.latents.slice(i..i + 1);
            let squares = of.0.iter().zip(&to.0).skip(skip).flat_map(|(a, b)| a.iter().zip(b));
            let distance = squares.map(|(a, b)| (a.wide() - b.wide()).powi(2)).sum::<f64>().sqrt();
            nearest.push(Neighbour { index, image: dataset.name(index), distance });
        }
        nearest.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        nearest.truncate(count);
        Ok(())
    })?;
    Ok(nearest)
}
