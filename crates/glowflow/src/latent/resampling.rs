//! Resamples the details of an image: redraws the latents of its finest levels, and keeps those of coarser
//! levels.

use crate::{Error, Latents, Model};

/// `count` variants of one image, with the latents of the first `levels` levels, which hold the finest
/// details, redrawn at `temperature`. With 0 levels all variants equal the image, with all levels they are
/// samples.
///
/// # Errors
/// [`Error::Input`] if the model has fewer levels, `latents` does not hold exactly one image, the number of
/// variants is zero or too large, or the temperature is invalid.
pub fn redraw_details(
    model: &Model,
    latents: &Latents,
    levels: usize,
    count: usize,
    temperature: f64,
    seed: u64,
) -> Result<Latents, Error> {
    if levels > latents.0.len() || latents.batch() != 1 {
        return Err(Error::Input(format!(
            "cannot resample {levels} of {} levels of {} images: give one image, and at most its number of levels",
            latents.0.len(),
            latents.batch()
        )));
    }
    if count == 0 {
        return Err(Error::Input("need at least 1 variant, got 0".into()));
    }
    let mut variants = model.draw(count, temperature, seed)?;
    let kept = Latents::concatenate(&vec![latents.clone(); count])?;
    variants.0.truncate(levels);
    variants.0.extend(kept.0.into_iter().skip(levels));
    Ok(variants)
}
