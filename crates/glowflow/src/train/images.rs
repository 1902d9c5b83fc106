//! The images of a run: opened, split into training and test images, and compared with previous ones on
//! resuming.

use std::path::Path;
use std::sync::Arc;

use glowflow_data::{Broken, Dataset, ImageShape, Splits};

use super::config::RunConfig;
use crate::{Error, ModelConfig, data};

/// Minimum number of images for holding out a part by default.
const MIN_FOR_HOLDOUT: usize = 100;
/// Share of the images held out by default.
const HOLDOUT: f64 = 0.05;

/// Checksums of a run's images, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// Checksum of their names.
    pub names: u32,
    /// Checksum of their stored contents.
    pub contents: u32,
}

/// The images of a run.
pub struct Images {
    /// Training images.
    pub train: Arc<dyn Dataset>,
    /// Test images.
    pub test: Option<Arc<dyn Dataset>>,
    /// Checksums that identify the images.
    pub fingerprint: Fingerprint,
    /// Notices for the user.
    pub notices: Vec<String>,
}

impl Images {
    /// Creates the images of a run from datasets.
    pub fn new(train: Arc<dyn Dataset>, test: Option<Arc<dyn Dataset>>) -> Self {
        let fingerprint = fingerprint([Some(&train), test.as_ref()].into_iter().flatten());
        Self { train, test, fingerprint, notices: vec![] }
    }

    /// Opens the images named in a configuration.
    pub fn open(config: &RunConfig) -> Result<Self, Error> {
        let path = config.data.path.as_deref().ok_or(Error::NoData)?;
        let opened = data::open(path, &config.model, &config.data.classes)?;
        let images = Self::split(config, opened)?;
        // Detected now rather than at the first evaluation.
        if let Some(test) =
            images.test.as_ref().filter(|test| config.model.classes() > 0 && test.label(0).is_none())
        {
            return Err(Error::Input(format!(
                "the {} test images have no labels, which a model with classes needs: add labels, or set \
                 data.test_fraction to hold out some of the training images",
                test.len()
            )));
        }
        Ok(images)
    }

    /// Opens the images of a new run.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration selects test images in two ways, and errors of reading.
    pub fn open_new(config: &RunConfig) -> Result<Self, Error> {
        if let (Some(test), Some(fraction)) = (&config.data.test, config.data.test_fraction) {
            return Err(Error::Config(format!(
                "data.test is {} and data.test_fraction is {fraction}: test images are either separate or a fraction of \
                 the training images; omit one of the two",
                test.display()
            )));
        }
        Self::open(config)
    }

    /// Splits images into training and test images, according to the configuration.
    fn split(config: &RunConfig, mut opened: Splits) -> Result<Self, Error> {
        let mut notices = std::mem::take(&mut opened.notices);
        let (train, test) = match &config.data.test {
            Some(path) => {
                let (test, more) = open_test(path, config, opened.train.classes())?;
                notices.extend(more);
                (opened.train, Some(test))
            }
            None => held_out(config, opened)?,
        };
        Ok(Self { notices, ..Self::new(train, test) })
    }

    /// Checks that all images have the shape of the model's.
    ///
    /// # Errors
    /// [`Error::Input`] with both shapes.
    pub fn check_shape(&self, model: &ModelConfig) -> Result<(), Error> {
        let [height, width, channels] = model.image();
        let want = ImageShape { height, width, channels };
        for (what, data) in [("training", Some(&self.train)), ("test", self.test.as_ref())] {
            if let Some(have) = data.map(|data| data.shape()).filter(|have| *have != want) {
                return Err(Error::Input(format!("the {what} images are {have}, those of the model {want}")));
            }
        }
        Ok(())
    }

    /// Images found to be broken so far.
    pub fn broken(&self) -> impl Iterator<Item = Broken> {
        [Some(&self.train), self.test.as_ref()].into_iter().flatten().flat_map(|data| data.broken())
    }
}

/// Opens separate test images, and returns notices about them.
fn open_test(
    path: &Path,
    config: &RunConfig,
    classes: &[String],
) -> Result<(Arc<dyn Dataset>, Vec<String>), Error> {
    let opened = data::open(path, &config.model, classes)?;
    // A folder that contains a test set is used for that set.
    Ok((opened.test.unwrap_or(opened.train), opened.notices))
}

/// Training images, and test images if there are any.
pub type TrainAndTest = (Arc<dyn Dataset>, Option<Arc<dyn Dataset>>);

fn held_out(config: &RunConfig, opened: Splits) -> Result<TrainAndTest, Error> {
    match (config.data.test_fraction, opened.test) {
        (None, Some(test)) => Ok((opened.train, Some(test))),
        _ => hold_out(config, opened.train),
    }
}

/// Splits images into training and test images: `data.test_fraction` of them are test images, by default 5 %
/// if there are at least 100 images. `data.test_seed`, by default `train.seed`, selects them.
///
/// # Errors
/// [`Error::Data`] if the fraction leaves no images on one side.
pub fn hold_out(config: &RunConfig, images: Arc<dyn Dataset>) -> Result<TrainAndTest, Error> {
    let fraction = match config.data.test_fraction {
        Some(fraction) => fraction,
        None if images.len() >= MIN_FOR_HOLDOUT => HOLDOUT,
        None => return Ok((images, None)),
    };
    let seed = config.data.test_seed.unwrap_or(config.train.seed);
    let (train, test) = glowflow_data::split(images, fraction, seed)?;
    Ok((Arc::new(train), Some(Arc::new(test))))
}

fn fingerprint<'a>(datasets: impl Iterator<Item = &'a Arc<dyn Dataset>>) -> Fingerprint {
    let (mut names, mut contents) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
    for data in datasets {
        names.update(&(data.len() as u64).to_le_bytes());
        for i in 0..data.len() {
            names.update(format!("{}\n", data.name(i)).as_bytes());
            contents.update(&data.content(i).to_le_bytes());
        }
    }
    Fingerprint { names: names.finalize(), contents: contents.finalize() }
}
