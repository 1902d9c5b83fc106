//! Datasets that match a model.

use std::path::Path;
use std::sync::Arc;

use glowflow_data::portraits::{MIN_SIZE, Portraits};
use glowflow_data::{Attributes, Batch, Dataset, ImageShape, OpenOptions, Splits, available_memory};
use ndarray::Array4;

use crate::model::MODEL;
use crate::{Error, ModelConfig};

/// Name of the built-in data: portraits drawn by the program.
pub const PORTRAITS: &str = "portraits";
/// Number of training portraits; 1/20 of this number are for testing.
const PORTRAITS_COUNT: usize = 20_000;
/// Maximum size of the cache of decoded images during training, and its share of the available memory.
const MAX_CACHE: u64 = 2 << 30;
const CACHE_PART: u64 = 4;

/// Opens training data as images of the model's shape, with labels if the model has classes. `names` are the
/// class names, in the order of the labels; if empty, the data's own are used. The path [`PORTRAITS`] selects
/// the built-in data unless a file of that name exists. Decoded images are cached as far as the machine's
/// memory allows.
///
/// # Errors
/// [`Error::Data`] if it cannot be read or has a class that is not in `names`, [`Error::Input`] if its number
/// of classes differs from the model's.
pub fn open(path: &Path, config: &ModelConfig, names: &[String]) -> Result<Splits, Error> {
    let bytes = available_memory().map_or(MAX_CACHE, |memory| (memory / CACHE_PART).min(MAX_CACHE));
    open_with_cache(path, config, names, usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Like [`open`], with a cache of at most `cache_bytes` of decoded images.
fn open_with_cache(
    path: &Path,
    config: &ModelConfig,
    names: &[String],
    cache_bytes: usize,
) -> Result<Splits, Error> {
    let [height, width, channels] = config.image();
    if is_portraits(path) {
        if height != width || channels != 3 || height < MIN_SIZE || config.classes() > 0 {
            return Err(Error::Input(format!(
                "portraits are square, in colour, without classes and at least {MIN_SIZE} pixels high; \
                 the model is for {height}×{width}×{channels} and {} classes",
                config.classes()
            )));
        }
        return Ok(Splits {
            train: Arc::new(training_portraits(config)),
            test: Some(Arc::new(Portraits::new(PORTRAITS_COUNT / 20, height, 1))),
            notices: vec![],
        });
    }
    let shape = Some(ImageShape { height, width, channels });
    let labels = config.classes() > 0;
    let classes = if labels { names.to_vec() } else { vec![] };
    let options = OpenOptions { shape, labels, classes, cache_bytes, run_marker: Some(MODEL) };
    let splits = glowflow_data::open(path, &options)?;
    let classes = splits.train.classes().len();
    if labels && classes != config.classes() {
        return Err(Error::Input(format!(
            "{} has {classes} classes, but the model has {}; a model for these needs model.classes={classes}",
            path.display(),
            config.classes()
        )));
    }
    Ok(splits)
}

/// Label of a class given by its name, one of `names`, or by its number.
///
/// ```
/// use glowflow::data::class_of;
///
/// let names = ["cat".to_owned(), "dog".to_owned()];
/// assert_eq!(class_of("dog", &names)?, 1);
/// assert_eq!(class_of("0", &names)?, 0);
/// assert!(class_of("cow", &names).unwrap_err().to_string().contains("cat, dog"));
/// # Ok::<(), glowflow::Error>(())
/// ```
///
/// # Errors
/// [`Error::Input`], which lists the available classes.
pub fn class_of(class: &str, names: &[String]) -> Result<usize, Error> {
    let named = names.iter().position(|name| name == class);
    named.or_else(|| class.parse().ok()).ok_or_else(|| {
        let known =
            if names.is_empty() { String::new() } else { format!(", or one of {}", names.join(", ")) };
        Error::Input(format!("unknown class {class:?}: give a number{known}"))
    })
}

/// Returns whether a path selects the built-in data.
pub fn is_portraits(path: &Path) -> bool {
    path == Path::new(PORTRAITS) && !path.exists()
}

/// Built-in training data for a model of portraits.
pub(crate) fn training_portraits(config: &ModelConfig) -> Portraits {
    Portraits::new(PORTRAITS_COUNT, config.image()[0], 0)
}

/// A dataset with attributes of its images, and notices for the user.
pub struct Labelled {
    /// The images.
    pub dataset: Arc<dyn Dataset>,
    /// Their attributes.
    pub attributes: Attributes,
    /// As [`Splits::notices`].
    pub notices: Vec<String>,
}

/// Opens a dataset with attributes of its images: those of a table `labels`, or those of the built-in data.
/// Test sets are excluded. If `label` replaces all classes, the data needs no labels.
///
/// # Errors
/// As [`open`] and [`Attributes::read`]; [`Error::NoAttributes`] without both a table and built-in data.
pub fn open_labelled(
    path: &Path,
    labels: Option<&Path>,
    config: &ModelConfig,
    names: &[String],
    label: Option<usize>,
) -> Result<Labelled, Error> {
    let Splits { train: dataset, notices, .. } = open_for(path, config, names, label)?;
    let attributes = match labels {
        Some(table) => Attributes::read(table, &*dataset)?,
        None if is_portraits(path) => Attributes::of_portraits(&training_portraits(config)),
        None => return Err(Error::NoAttributes { path: path.to_owned() }),
    };
    Ok(Labelled { dataset, attributes, notices })
}

/// Like [`open`], for data that is read once: decoded images are not cached. If `label` replaces all classes,
/// the data needs no labels.
///
/// # Errors
/// As [`open`].
pub fn open_for(
    path: &Path,
    config: &ModelConfig,
    names: &[String],
    label: Option<usize>,
) -> Result<Splits, Error> {
    let classes = if label.is_some() { 0 } else { config.classes() };
    let mut config = config.clone();
    if classes != config.classes() {
        config.set_classes(classes)?;
    }
    open_with_cache(path, &config, names, 0)
}

/// Number of threads that read images. Few suffice: loading is cheap compared with a training step.
pub(crate) fn loader_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4))
}

/// Pixels of a batch, `[batch, H, W, C]`.
pub(crate) fn pixels(config: &ModelConfig, batch: &Batch) -> Result<Array4<u8>, Error> {
    let [height, width, channels] = config.image();
    let count = batch.indices.len();
    Array4::from_shape_vec((count, height, width, channels), batch.pixels.clone())
        .map_err(|e| Error::Input(format!("the data's images do not have the model's shape: {e}")))
}

/// Labels of a batch; empty if the model has no classes.
pub(crate) fn labels<'a>(config: &ModelConfig, batch: &'a Batch) -> &'a [usize] {
    if config.classes() > 0 { &batch.labels } else { &[] }
}

/// Labels of a batch, or `label` for each image if given.
pub(crate) fn labels_or(config: &ModelConfig, batch: &Batch, label: Option<usize>) -> Vec<usize> {
    match label {
        Some(label) => vec![label; batch.indices.len()],
        None => labels(config, batch).to_vec(),
    }
}

/// The first `count` images of a dataset.
pub(crate) fn first(dataset: &Arc<dyn Dataset>, count: usize) -> Arc<dyn Dataset> {
    if dataset.len() <= count {
        return Arc::clone(dataset);
    }
    Arc::new(glowflow_data::Subset::new(Arc::clone(dataset), (0..count).collect()))
}

/// Draws `count` images of a dataset at random from `seed`, in dataset order; all images if it has fewer.
pub(crate) fn sample(dataset: &Arc<dyn Dataset>, count: usize, seed: u64) -> Arc<dyn Dataset> {
    Arc::new(glowflow_data::Subset::sample(Arc::clone(dataset), count, seed))
}
