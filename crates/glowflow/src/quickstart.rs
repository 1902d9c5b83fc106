//! A first trial: a small model of portraits drawn by the program, and images that show the result of its
//! training.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use glowflow_data::portraits::{ATTRIBUTES, measure};
use glowflow_data::{Attributes, Dataset, batches_in_order};
use glowflow_kernels::DeviceError;
use glowflow_report::picture;
use ndarray::{Array4, Axis};
use serde::Serialize;

use crate::latent::{DIRECTIONS, Directions, Interpolation, find_directions, interpolate, manipulate, sweep};
use crate::train::{Options, RunConfig, Summary, check_free, train, unless_stopped};
use crate::{AnyDevice, Dequantization, Error, Latents, Model, Precision, data};

/// Images per row of a figure.
const COLUMNS: usize = 10;
/// Rows of the interpolation figure.
const INTERPOLATIONS: usize = 5;
/// Number of portraits for computing and measuring directions.
const LABELLED: usize = 5000;
/// Number of test portraits for measuring the effect of each direction.
pub const EFFECT_PORTRAITS: usize = 1000;

/// The model and its training. Additive couplings, as in the demo of the Glow paper, do not divide: latents
/// far from those of the training images still decode to valid images. After 1,500 steps, test portraits have 1.079
/// bits/dim with Muon, and 1.166 without.
const CONFIG: &str = "
    model = { image = [32, 32, 3], bits = 5, levels = 3, steps = 4, hidden = 64, coupling = 'additive' }
    train = { batch = 32, lr = 1e-2, muon = true, warmup = 50, ema = 0.99, backprop = 'stored', eval_every = 500, eval_images = 200 }
    data = { path = 'portraits' }
";

/// Results of a quickstart.
#[derive(Clone, Debug)]
pub struct Quickstart {
    /// Outcome of training.
    pub summary: Summary,
    /// Figures, in the order for viewing them.
    pub pictures: Vec<PathBuf>,
    /// Effects of moving portraits along the directions, one per attribute.
    pub effects: Vec<Effect>,
}

/// Effect on test portraits of moving them along an attribute's direction, by 1 if they lack the attribute
/// and by −1 if they have it, as judged by [`measure`] on the decoded images.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// The attribute.
    pub attribute: &'static str,
    /// Share of portraits in which the attribute changed.
    pub changed: f64,
    /// Share of portraits in which another attribute was preserved, for the least preserved one.
    pub kept: f64,
}

/// Trains on portraits in the folder `out`, draws `samples.png`, `reconstructions.png` (portraits above,
/// their decoded latents below), `interpolation.png` (between the portraits at either end), `attributes.png`
/// (a portrait moved along each direction) and `curve.png`, and writes the directions for the demo.
///
/// `device` opens a device of the requested precision.
///
/// # Errors
/// As [`train`] and [`find_directions`]; [`Error::Input`] if the folder holds files.
pub fn quickstart(
    device: impl Fn(Precision) -> Result<AnyDevice, DeviceError>,
    out: &Path,
    seed: u64,
    options: Options<'_>,
) -> Result<Quickstart, Error> {
    let table = CONFIG.parse().map_err(|e| Error::Config(format!("quickstart: {e}")))?;
    let mut config: RunConfig =
        toml::Table::try_into(table).map_err(|e| Error::Config(format!("quickstart: {e}")))?;
    config.train.seed = seed;
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        check_free(out, &config)?;
        return Err(Error::Input(format!(
            "{} holds files, which could be replaced: choose an empty or new folder",
            out.display()
        )));
    }
    let stop = options.stop;
    let mut summary = train(device(config.train.precision)?, config, out, options)?;
    let effects = if summary.interrupted {
        vec![]
    } else {
        match show(Model::load_on(device(Precision::F32)?, out)?, out, stop) {
            Err(Error::Stopped) => {
                summary.interrupted = true;
                vec![]
            }
            effects => effects?,
        }
    };
    let pictures = ["samples.png", "reconstructions.png", "interpolation.png", "attributes.png", "curve.png"];
    let pictures = pictures.iter().map(|name| out.join(name)).filter(|path| path.exists()).collect();
    Ok(Quickstart { summary, pictures, effects })
}

/// Draws figures of the trained model, and measures its directions.
fn show(glow: Model, out: &Path, stop: &AtomicBool) -> Result<Vec<Effect>, Error> {
    let glow = Arc::new(glow);
    let portraits = data::open(Path::new(data::PORTRAITS), glow.config(), &[])?;
    let attributes = Attributes::of_portraits(&data::training_portraits(glow.config()));
    let labelled = data::first(&portraits.train, LABELLED);
    let model = Arc::clone(&glow);
    let directions = unless_stopped(stop, move || {
        Ok(find_directions(&model, &labelled, &attributes, &[], None)?.directions)
    })?;
    directions.write(&out.join(DIRECTIONS))?;

    let test = portraits.test.unwrap_or(portraits.train);
    reconstructions(&glow, &test, &out.join("reconstructions.png"))?;
    interpolations(&glow, &test, &out.join("interpolation.png"))?;
    sweeps(&glow, &test, &directions, &out.join("attributes.png"))?;
    unless_stopped(stop, move || effects(&glow, &test, &directions))
}

/// The first images of a dataset.
fn images(glow: &Model, dataset: &Arc<dyn Dataset>, count: usize) -> Result<Array4<u8>, Error> {
    let batch = batches_in_order(data::first(dataset, count), count, 1)?.next();
    let batch = batch.ok_or_else(|| Error::Input("the data holds no images".into()))??;
    data::pixels(glow.config(), &batch)
}

fn reconstructions(glow: &Model, dataset: &Arc<dyn Dataset>, path: &Path) -> Result<(), Error> {
    let originals = images(glow, dataset, COLUMNS)?;
    let latents = glow.encode(originals.view(), &[], Dequantization::Typical)?.latents;
    let decoded = glow.decode(&latents, &[])?;
    let rows = [originals.into_raw_vec_and_offset().0, decoded.into_bytes()];
    let picture = picture::rows(&[&rows[0], &rows[1]], glow.config().image());
    Ok(picture::save(path, &picture)?)
}

fn interpolations(glow: &Model, dataset: &Arc<dyn Dataset>, path: &Path) -> Result<(), Error> {
    let ends = images(glow, dataset, 2 * INTERPOLATIONS)?;
    let mut rows = vec![];
    for pair in ends.axis_chunks_iter(Axis(0), 2) {
        rows.extend(interpolate(glow, pair, &[], COLUMNS, Interpolation::Linear)?.into_bytes());
    }
    let picture = picture::grid(&rows, glow.config().image(), COLUMNS);
    Ok(picture::save(path, &picture)?)
}

fn sweeps(
    glow: &Model,
    dataset: &Arc<dyn Dataset>,
    directions: &Directions,
    path: &Path,
) -> Result<(), Error> {
    let portraits = images(glow, dataset, directions.list.len())?;
    let latents = glow.encode(portraits.view(), &[], Dequantization::Typical)?.latents;
    let rows = directions.list.iter().enumerate();
    let frames = rows.map(|(i, direction)| sweep(&latents.slice(i..i + 1), direction, COLUMNS));
    let frames = frames.collect::<Result<Vec<_>, _>>()?;
    let frames = glow.decode(&Latents::concatenate(&frames)?, &[])?.into_bytes();
    let picture = picture::grid(&frames, glow.config().image(), COLUMNS);
    Ok(picture::save(path, &picture)?)
}

fn effects(glow: &Model, dataset: &Arc<dyn Dataset>, directions: &Directions) -> Result<Vec<Effect>, Error> {
    let portraits = images(glow, dataset, EFFECT_PORTRAITS)?;
    let latents = glow.encode(portraits.view(), &[], Dequantization::Typical)?.latents;
    let before = shown(&glow.decode(&latents, &[])?.pixels);
    let mut effects = vec![];
    for (a, attribute) in ATTRIBUTES.into_iter().enumerate() {
        let direction = directions.get(attribute)?;
        let moved = before.iter().enumerate().map(|(i, present)| {
            let alpha = if present[a] { -1.0 } else { 1.0 };
            manipulate(&latents.slice(i..i + 1), &[(direction, alpha)])
        });
        let moved = Latents::concatenate(&moved.collect::<Result<Vec<_>, _>>()?)?;
        let after = shown(&glow.decode(&moved, &[])?.pixels);
        let kept = |b: usize| {
            let same = before.iter().zip(&after).filter(|(before, after)| before[b] == after[b]).count();
            same as f64 / before.len() as f64
        };
        let others = (0..ATTRIBUTES.len()).filter(|&b| b != a);
        let least = others.map(kept).fold(1.0, f64::min);
        effects.push(Effect { attribute, changed: 1.0 - kept(a), kept: least });
    }
    Ok(effects)
}

/// Attributes that images show.
fn shown(pictures: &Array4<u8>) -> Vec<[bool; ATTRIBUTES.len()]> {
    let size = pictures.len_of(Axis(1));
    pictures
        .outer_iter()
        .map(|picture| {
            let pixels: Vec<u8> = picture.iter().copied().collect();
            measure(&pixels, size).map(|score| score > 0.0)
        })
        .collect()
}
