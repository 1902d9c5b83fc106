//! Changes attributes of an image: `z + Σ α·direction`, decoded.

use ndarray::Array4;

use super::Direction;
use crate::{Error, Latents, check_count};

/// Maximum distance along a direction. Beyond 1, images are extrapolated.
pub const MAX_AMOUNT: f64 = 3.0;

/// Moves latents of any number of images along directions, each by its α from −[`MAX_AMOUNT`] to
/// [`MAX_AMOUNT`]. If every α is 0, the latents stay bit-identical.
///
/// # Errors
/// [`Error::Input`] if an α is out of range or a direction belongs to a model of another shape.
pub fn manipulate(latents: &Latents, moves: &[(&Direction, f64)]) -> Result<Latents, Error> {
    let mut moved = latents.clone();
    for (direction, alpha) in moves {
        let name = &direction.about.name;
        if !(-MAX_AMOUNT..=MAX_AMOUNT).contains(alpha) {
            return Err(Error::Input(format!(
                "{name} by {alpha} is out of range; use −{MAX_AMOUNT} to {MAX_AMOUNT}"
            )));
        }
        let shapes = |latents: &Latents| -> Vec<_> {
            latents.0.iter().map(|level| level.shape()[1..].to_vec()).collect()
        };
        let (have, want) = (shapes(&direction.latents), shapes(&moved));
        if have != want {
            return Err(Error::Input(format!(
                "the direction {name} belongs to a model of another shape: its latents are {have:?}, those of the image \
                 {want:?}"
            )));
        }
        if *alpha != 0.0 {
            for (level, along) in moved.0.iter_mut().zip(&direction.latents.0) {
                *level += &along.mapv(|x| x * *alpha as f32);
            }
        }
    }
    Ok(moved)
}

/// Moves the latents of one image along a direction in `frames` steps from −1 to 1.
///
/// # Errors
/// As for [`manipulate`]; [`Error::Input`] if there are fewer than two frames, or too many.
pub fn sweep(latents: &Latents, direction: &Direction, frames: usize) -> Result<Latents, Error> {
    if frames < 2 {
        return Err(Error::Input(format!("need at least 2 frames, got {frames}")));
    }
    check_count(&[frames], latents.0.iter().map(Array4::len).sum::<usize>() * size_of::<f32>())?;
    let alpha = |frame: usize| 2.0 * frame as f64 / (frames - 1) as f64 - 1.0;
    let moved = (0..frames).map(|frame| manipulate(latents, &[(direction, alpha(frame))]));
    Latents::concatenate(&moved.collect::<Result<Vec<_>, _>>()?)
}
