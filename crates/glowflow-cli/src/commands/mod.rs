//! Commands, one function each: converts arguments, calls the library, prints the result.

mod aligned;
mod bench;
mod completions;
mod delayed_progress;
mod face_paths;
mod finder;
mod images;
mod import;
mod info;
mod latent;
mod man_pages;
mod manipulate;
mod nearest;
mod new_folder;
mod output;
mod picture_paths;
mod pictures;
mod prepare;
mod quoted;
mod ranks;
mod resuming;
mod scoring;
mod serve;
mod study;
mod training;
mod verdict;
mod watched;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use glowflow::latent::DIRECTIONS;
use glowflow::train::class_names;
use glowflow::{AnyDevice, DeviceError, Error, Model, Precision, check_count, data, pretrained};
use glowflow_data::{Dataset, ImageShape, Subset};
use glowflow_report::{picture, printable};

use crate::args;
use output::{
    PictureOutput, check_folder_output, check_output, check_outside, check_replaced, is_stdout, save_image,
    size_of,
};
use verdict::{check_pictures, left_out, named, verdict};
use watched::watched;

pub use bench::bench;
pub use completions::completions;
pub use images::{decode, encode, sample};
pub use import::import;
pub use info::info;
pub use latent::{attributes, interpolate, resample};
pub use man_pages::man_pages;
pub use manipulate::manipulate;
pub use nearest::nearest;
pub use prepare::{align, crop};
pub use quoted::quoted;
pub use scoring::{eval, score};
pub use serve::serve;
pub use study::study;
pub use training::{quickstart, train};

/// Like `println!`, but a closed pipe is returned as an error instead of a panic.
macro_rules! say {
    ($($line:tt)*) => {
        writeln!(std::io::stdout(), "{}", glowflow_report::printable(&format!($($line)*)))
            .context("writing the result")?
    };
}
use say;

/// Like `eprintln!`, but ignores write errors.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", printable(line));
}

fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{value}").context("writing the result")
}

impl args::Common {
    /// Opens the device.
    fn open(&self, precision: Precision) -> Result<AnyDevice, DeviceError> {
        self.device.unwrap_or_default().open_tuned(precision, self.tuning, |trouble| {
            tell(&format!("{trouble}; computing on the CPU instead"));
        })
    }

    /// Loads a model for scoring and sampling.
    fn load(&self, precision: Precision, model: &Path) -> anyhow::Result<Model> {
        Ok(Model::load_on(self.open(precision)?, model)?)
    }

    /// Loads a model that decodes latents to the exact pixels.
    fn load_exact(&self, model: &Path) -> anyhow::Result<Model> {
        self.load(Precision::F32, model)
    }
}

/// Opens the images to process: the test set if there is one. If `label` applies to all images, the data needs
/// no labels.
fn test_data(
    path: &Path,
    model: &Path,
    glow: &Model,
    label: Option<usize>,
) -> anyhow::Result<Arc<dyn Dataset>> {
    let names = class_names(model, glow.config());
    let splits = data::open_for(path, glow.config(), &names, label).map_err(with_class)?;
    splits.notices.iter().for_each(|notice| tell(notice));
    let Some(test) = splits.test else { return Ok(splits.train) };
    let (tested, trained) = (counted(test.len(), "image"), counted(splits.train.len(), "image"));
    tell(&format!("using the test set ({tested}); the training set ({trained}) is not used"));
    Ok(test)
}

/// Adds advice to the error of data without the model's labels.
fn with_class(error: Error) -> anyhow::Error {
    let unlabelled = matches!(
        error,
        Error::Data(
            glowflow_data::Error::NoLabels(_)
                | glowflow_data::Error::OutsideClasses(_)
                | glowflow_data::Error::UnknownClass { .. }
                | glowflow_data::Error::OtherClasses { .. }
        )
    );
    match unlabelled {
        true => {
            anyhow::anyhow!(
                "{error}; score, encode, nearest, manipulate and attributes take one class for all images: --class CLASS"
            )
        }
        false => error.into(),
    }
}

/// ` ± ` and a standard error with this number of decimals; empty if there is none.
fn plus_minus(error: f64, decimals: usize) -> String {
    if error.is_finite() { format!(" ± {error:.decimals$}") } else { String::new() }
}

/// Formats a count: "1 image", "2 images".
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The valid values of `--class` for a model with classes, with the class names if available.
fn class_choices(classes: usize, names: &[String]) -> String {
    let names = if names.is_empty() { String::new() } else { format!(" or by name: {}", names.join(", ")) };
    format!("--class 0 to {}{names}", classes.saturating_sub(1))
}

/// The class given by `--class`.
fn class_of(class: Option<&str>, model: &Path, glow: &Model) -> anyhow::Result<Option<usize>> {
    let Some(class) = class else { return Ok(None) };
    let classes = glow.config().classes();
    anyhow::ensure!(classes > 0, "--class {class:?} was given for a model without classes: omit it");
    let number = data::class_of(class, &class_names(model, glow.config()))?;
    anyhow::ensure!(
        number < classes,
        "class {number} is not one of the model's {classes} classes, 0 to {}",
        classes - 1
    );
    Ok(Some(number))
}

/// Limits a dataset to `--images` images, drawn at random with `seed`.
fn sample_images(dataset: Arc<dyn Dataset>, images: Option<usize>, seed: u64) -> anyhow::Result<Subset> {
    anyhow::ensure!(images != Some(0), "--images must be at least 1, got 0; omit it to use all images");
    let count = images.unwrap_or(dataset.len());
    Ok(Subset::sample(dataset, count, seed))
}

/// Reports the images that could not be read.
fn report_broken(dataset: &Arc<dyn Dataset>) {
    for image in dataset.broken() {
        tell(&format!("skipped {}: {}", image.name, image.reason));
    }
}

fn image_shape(glow: &Model) -> ImageShape {
    let [height, width, channels] = glow.config().image();
    ImageShape { height, width, channels }
}

/// Checks that one PNG can hold the product of `counts` images.
fn check_picture(glow: &Model, counts: &[usize]) -> anyhow::Result<()> {
    image_shape(glow).check()?;
    Ok(check_count(counts, picture::bytes(glow.config().image()))?)
}

/// Encodes several images as one PNG file.
fn grid_png(glow: &Model, pixels: &[u8], columns: usize) -> anyhow::Result<Vec<u8>> {
    let picture = picture::grid(pixels, glow.config().image(), columns);
    picture::encode(&picture).map_err(anyhow::Error::msg)
}

/// Checks that no key of the configuration is set both by one of the `options` (whether it is given, its name,
/// and its key) and by `--set`.
fn check_given_once(overrides: &[String], options: &[(bool, &str, &str)]) -> anyhow::Result<()> {
    for &(given, option, key) in options {
        let set = |text: &String| text.split_once('=').is_some_and(|(name, _)| name.trim() == key);
        anyhow::ensure!(
            !(given && overrides.iter().any(set)),
            "{option} and --set {key} are both given: give one of them"
        );
    }
    Ok(())
}

/// Path of the directions: the file given with `option`, or that in the run's folder.
fn directions_path(given: Option<&Path>, model: &Path, option: &str) -> anyhow::Result<PathBuf> {
    match given {
        Some(path) => Ok(path.to_owned()),
        None if pretrained::is_folder(model) => Ok(model.join(DIRECTIONS)),
        None => {
            anyhow::bail!(
                "{} is not a run folder: give the file of directions with {option}",
                model.display()
            )
        }
    }
}
