//! Samples at several temperatures, which shows what the model considers average and what possible.

use crate::{Decoded, Error, Latents, Model, check_count};

/// `count` samples, each at every temperature: `[count·temperatures, H, W, C]`, grouped by sample. `labels`
/// holds a class for each sample if the model has classes.
///
/// # Errors
/// [`Error::Input`] if the number of samples or temperatures is zero or too large, a temperature is invalid,
/// or the labels do not match; [`Error::Device`].
pub fn at_temperatures(
    model: &Model,
    count: usize,
    temperatures: &[f64],
    labels: &[usize],
    seed: u64,
) -> Result<Decoded, Error> {
    if count == 0 || temperatures.is_empty() {
        return Err(Error::Input(format!(
            "need at least 1 sample and 1 temperature, got {count} and {}",
            temperatures.len()
        )));
    }
    check_count(&[count, temperatures.len()], model.latent_bytes())?;
    // The same seed draws the same latents, scaled.
    let drawn = temperatures.iter().map(|&temperature| model.draw(count, temperature, seed));
    let drawn = drawn.collect::<Result<Vec<_>, _>>()?;
    let (mut points, mut classes) = (vec![], vec![]);
    for sample in 0..count {
        for latents in &drawn {
            points.push(latents.slice(sample..sample + 1));
            classes.extend(labels.get(sample));
        }
    }
    model.decode(&Latents::concatenate(&points)?, &classes)
}
