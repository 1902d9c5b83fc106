//! The first thing to try: a small model of portraits that the program draws itself, and pictures of what it learned.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glowflow_data::{Dataset, batches_in_order};
use glowflow_kernels::Cpu;
use glowflow_report::picture;
use ndarray::Axis;

use crate::latent::{Walk, interpolate};
use crate::train::{Options, RunConfig, Summary, train};
use crate::{Dequantization, Error, Glow, data};

/// Images in a row of a picture.
const COLUMNS: usize = 10;
/// Rows of the picture of interpolations.
const INTERPOLATIONS: usize = 5;

/// The model and its training.
const CONFIG: &str = "
    model = { image = [32, 32, 3], bits = 5, levels = 3, steps = 4, hidden = 64 }
    train = { batch = 32, lr = 2e-3, warmup = 50, ema = 0.99, backprop = 'stored', eval_every = 500, eval_images = 200 }
    data = { path = 'portraits' }
";

/// What a quickstart leaves.
#[derive(Clone, Debug)]
pub struct Quickstart {
    /// How training ended.
    pub summary: Summary,
    /// The pictures, in the order in which to look at them.
    pub pictures: Vec<PathBuf>,
}

/// Trains on portraits in the folder `out` and draws `samples.png`, `reconstructions.png` (portraits above, their
/// decoded latents below), `interpolation.png` (between portraits at either end) and `curve.png`.
///
/// # Errors
/// As [`train`].
pub fn quickstart(out: &Path, seed: u64, options: Options<'_>) -> Result<Quickstart, Error> {
    let table = CONFIG.parse().map_err(|e| Error::Config(format!("quickstart: {e}")))?;
    let mut config: RunConfig =
        toml::Table::try_into(table).map_err(|e| Error::Config(format!("quickstart: {e}")))?;
    config.train.seed = seed;
    let summary = train(Cpu::<f32>::new(), config, out, options)?;

    let glow = Glow::load(out)?;
    let portraits = data::open(Path::new(data::PORTRAITS), glow.config())?;
    let test = portraits.test.unwrap_or(portraits.train);
    reconstructions(&glow, &test, &out.join("reconstructions.png"))?;
    interpolations(&glow, &test, &out.join("interpolation.png"))?;
    let pictures = ["samples.png", "reconstructions.png", "interpolation.png", "curve.png"];
    Ok(Quickstart { summary, pictures: pictures.iter().map(|name| out.join(name)).collect() })
}

/// The first images of a dataset.
fn images(glow: &Glow, dataset: &Arc<dyn Dataset>, count: usize) -> Result<ndarray::Array4<u8>, Error> {
    let batch = batches_in_order(data::first(dataset, count), count, 1)?.next();
    let batch = batch.ok_or_else(|| Error::Input("the data holds no images".into()))??;
    data::pixels(glow.config(), &batch)
}

fn reconstructions(glow: &Glow, dataset: &Arc<dyn Dataset>, path: &Path) -> Result<(), Error> {
    let originals = images(glow, dataset, COLUMNS)?;
    let latents = glow.encode(originals.view(), &[], Dequantization::Midpoint)?.latents;
    let decoded = glow.decode(&latents, &[])?;
    let rows = [originals.into_raw_vec_and_offset().0, decoded.into_raw_vec_and_offset().0];
    let picture = picture::rows(&[&rows[0], &rows[1]], glow.config().image);
    Ok(picture::save_png(path, &picture)?)
}

fn interpolations(glow: &Glow, dataset: &Arc<dyn Dataset>, path: &Path) -> Result<(), Error> {
    let ends = images(glow, dataset, 2 * INTERPOLATIONS)?;
    let mut rows = vec![];
    for pair in ends.axis_chunks_iter(Axis(0), 2) {
        rows.extend(interpolate(glow, pair, &[], COLUMNS, Walk::Linear)?);
    }
    let picture = picture::grid(&rows, glow.config().image, COLUMNS);
    Ok(picture::save_png(path, &picture)?)
}
