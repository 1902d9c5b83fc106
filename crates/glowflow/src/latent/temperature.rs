//! The same samples at several temperatures: what a model takes for average, and what for possible.

use crate::{Decoded, Error, Latents, Model, check_count};

/// `count` samples, each at every temperature: `[count·temperatures, H, W, C]`, one sample's after the other's. `labels`
/// holds a class for each sample where the model has classes.
///
/// # Errors
/// [`Error::Input`] where there are no samples or temperatures, or too many, or a temperature is not possible, or labels do not fit;
/// [`Error::Device`].
pub fn at_temperatures(
    model: &Model,
    count: usize,
    temperatures: &[f64],
    labels: &[usize],
    seed: u64,
) -> Result<Decoded, Error> {
    if count == 0 || temperatures.is_empty() {
        return Err(Error::Input(format!(
            "{count} samples at {} temperatures leave nothing to draw: 1 of each at least",
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
