//! Walks from image to image through latent space.
//!
//! Between latents `a` and `b`, at `t` from 0 to 1: linearly `(1 − t)·a + t·b`, or spherically
//! `(sin((1 − t)θ)·a + sin(tθ)·b) / sin θ` with `θ` the angle between them as vectors of all levels. A model's typical
//! latents lie near a sphere, since in `D` dimensions `|eps|` is near `√D`; the straight line dips below it, which makes
//! images between smoother, as a temperature below 1 does.

use glowflow_kernels::Real;
use ndarray::{ArrayView4, Axis};

use crate::{Decoded, Dequantization, Error, Latents, Model, check_count};

/// How to get from one point to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Walk {
    /// Along the straight line, as in the Glow paper.
    #[default]
    Linear,
    /// Along the great circle.
    Spherical,
}

/// The point the part `t` of the way between the latents of one image and those of another. 0 and 1 give back
/// either end to the bit.
pub fn between<R: Real>(a: &Latents<R>, b: &Latents<R>, t: f64, walk: Walk) -> Latents<R> {
    let (of_a, of_b) = match walk {
        Walk::Linear => (1.0 - t, t),
        Walk::Spherical => {
            let angle = (a.dot(b) / (a.dot(a) * b.dot(b)).sqrt()).clamp(-1.0, 1.0).acos();
            if angle.sin() > 1e-6 {
                (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
            } else {
                // The same direction, or opposite ones, or none at all: there is no one circle.
                (1.0 - t, t)
            }
        }
    };
    a.combine(R::of(of_a), b, R::of(of_b))
}

/// Images on the way through `images` `[n, H, W, C]` in order: for each neighbouring pair `frames` images, its ends
/// included, so `[(n − 1)·frames, H, W, C]`. `labels` holds a class for each image where the model has classes; on its
/// half of the way an image's class counts.
///
/// # Errors
/// [`Error::Input`] where there are fewer than two images or frames, or too many, or shapes or labels do not fit the model;
/// [`Error::Device`].
pub fn interpolate(
    model: &Model,
    images: ArrayView4<u8>,
    labels: &[usize],
    frames: usize,
    walk: Walk,
) -> Result<Decoded, Error> {
    let count = images.len_of(Axis(0));
    if count < 2 || frames < 2 {
        return Err(Error::Input(format!(
            "{count} images and {frames} frames make no way from one to another: 2 of each at least"
        )));
    }
    check_count(&[count - 1, frames], model.latent_bytes())?;
    let latents = model.encode(images, labels, Dequantization::Typical)?.latents;
    let (mut points, mut classes) = (vec![], vec![]);
    for pair in 0..count - 1 {
        let (a, b) = (latents.slice(pair..pair + 1), latents.slice(pair + 1..pair + 2));
        for frame in 0..frames {
            let t = frame as f64 / (frames - 1) as f64;
            points.push(between(&a, &b, t, walk));
            classes.extend(labels.get(pair + usize::from(t > 0.5)));
        }
    }
    model.decode(&Latents::concatenate(&points)?, &classes)
}
