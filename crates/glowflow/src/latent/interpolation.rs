//! Interpolation between images in latent space.
//!
//! Between latents `a` and `b`, at `t` from 0 to 1: linear `(1 − t)·a + t·b`, or spherical (slerp)
//! `(sin((1 − t)θ)·a + sin(tθ)·b) / sin θ` with `θ` the angle between them as vectors over all levels. A
//! model's typical latents are near a sphere, because in `D` dimensions `|eps|` is close to `√D`; the
//! straight line passes inside it, so intermediate images are smoother, as at a temperature below 1.

use glowflow_kernels::Real;
use ndarray::{ArrayView4, Axis};

use crate::{Decoded, Dequantization, Error, Latents, Model, check_count};

/// Interpolation path between two points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// The straight line, as in the Glow paper.
    #[default]
    Linear,
    /// The great circle.
    Spherical,
}

/// The point at fraction `t` between the latents of two images. For 0 and 1 the result is bit-identical to
/// the end.
pub fn between<R: Real>(a: &Latents<R>, b: &Latents<R>, t: f64, path: Interpolation) -> Latents<R> {
    let (of_a, of_b) = match path {
        Interpolation::Linear => (1.0 - t, t),
        Interpolation::Spherical => {
            let angle = (a.dot(b) / (a.dot(a) * b.dot(b)).sqrt()).clamp(-1.0, 1.0).acos();
            if angle.sin() > 1e-6 {
                (((1.0 - t) * angle).sin() / angle.sin(), (t * angle).sin() / angle.sin())
            } else {
                // With parallel, opposite or zero vectors the circle is not unique.
                (1.0 - t, t)
            }
        }
    };
    a.combine(R::of(of_a), b, R::of(of_b))
}

/// Interpolates through `images` `[n, H, W, C]` in order: `frames` images for each neighbouring pair, both
/// ends included, so the result is `[(n − 1)·frames, H, W, C]`. `labels` holds a class for each image if the
/// model has classes; each frame uses the class of the nearer image.
///
/// # Errors
/// [`Error::Input`] if there are fewer than two images or frames, or too many, or shapes or labels do not
/// match the model; [`Error::Device`].
pub fn interpolate(
    model: &Model,
    images: ArrayView4<u8>,
    labels: &[usize],
    frames: usize,
    path: Interpolation,
) -> Result<Decoded, Error> {
    let count = images.len_of(Axis(0));
    if count < 2 || frames < 2 {
        return Err(Error::Input(format!("need at least 2 images and 2 frames, got {count} and {frames}")));
    }
    check_count(&[count - 1, frames], model.latent_bytes())?;
    let latents = model.encode(images, labels, Dequantization::Typical)?.latents;
    let (mut points, mut classes) = (vec![], vec![]);
    for pair in 0..count - 1 {
        let (a, b) = (latents.slice(pair..pair + 1), latents.slice(pair + 1..pair + 2));
        for frame in 0..frames {
            let t = frame as f64 / (frames - 1) as f64;
            points.push(between(&a, &b, t, path));
            classes.extend(labels.get(pair + usize::from(t > 0.5)));
        }
    }
    model.decode(&Latents::concatenate(&points)?, &classes)
}
