//! New details for an image: the latents of its finest levels drawn anew, those of coarser levels kept.

use crate::{Error, Latents, Model};

/// `count` variants of one image: its latents with the first `levels` levels, which hold the finest details, drawn anew
/// at `temperature`. With 0 levels all variants are the image, with all levels they are samples.
///
/// # Errors
/// [`Error::Input`] where there are not so many levels, `latents` holds not one image, no variant is asked for or too many at once,
/// or the temperature is not possible.
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
            "cannot draw {levels} of {} levels of {} images anew: one image and at most its levels are possible",
            latents.0.len(),
            latents.batch()
        )));
    }
    if count == 0 {
        return Err(Error::Input("0 variants leave nothing to draw: 1 at least".into()));
    }
    let mut variants = model.draw(count, temperature, seed)?;
    let kept = Latents::concatenate(&vec![latents.clone(); count])?;
    variants.0.truncate(levels);
    variants.0.extend(kept.0.into_iter().skip(levels));
    Ok(variants)
}
