//! Adapts the model of a new run to its data: a single channel for grey images, and the number of classes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use glowflow_data::{Dataset, ImageShape, OpenOptions, Subset};

use super::config::RunConfig;
use super::waiting::unless_stopped;
use crate::model::MODEL;
use crate::models::Architecture;
use crate::{Error, data};

/// Number of images inspected to detect grey data.
const SAMPLED: usize = 256;
/// Maximum difference between the channels of a grey pixel: JPEG leaves small differences.
const TOLERANCE: u8 = 3;
/// Maximum number of class names in a notice.
const NAMED: usize = 10;

/// Properties of a model that follow the data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Adapt {
    /// Use one channel if all images are grey: for configurations that do not set `model.image`.
    pub channels: bool,
    /// Use the number of classes of the data's labels.
    pub classes: bool,
}

/// Result of inspecting the data.
#[derive(Clone, Debug, Default)]
pub struct Adapted {
    /// Notices for the user, one sentence each.
    pub notices: Vec<String>,
    /// Number of classes of labels not used by the model.
    pub unused_classes: usize,
}

/// Adapts the model of a new run to its data, based on a sample of the images.
///
/// # Errors
/// [`Error::Data`] if the data cannot be opened, or classes are needed and there are no labels;
/// [`Error::Stopped`] on request.
pub fn adapt(config: &mut RunConfig, adapt: Adapt, stop: &AtomicBool) -> Result<Adapted, Error> {
    config.validate()?;
    let mut notices = config.model.unread();
    let Some(path) = config.data.path.clone() else {
        return Ok(Adapted { notices, unused_classes: 0 });
    };
    if data::is_portraits(&path) {
        return match adapt.classes {
            true => Err(Error::Input("portraits have no classes: train without classes".into())),
            false => Ok(Adapted { notices, unused_classes: 0 }),
        };
    }
    let [height, width, channels] = config.model.image();
    let options = OpenOptions {
        shape: Some(ImageShape { height, width, channels: 3 }),
        labels: adapt.classes,
        classes: if adapt.classes { config.data.classes.clone() } else { vec![] },
        cache_bytes: 0,
        run_marker: Some(MODEL),
    };
    let found = unless_stopped(stop, move || look(&path, &options))?;

    match (found.grey, channels) {
        (Some(grey), 3) if adapt.channels => {
            set_channels(config, 1);
            notices.push(format!(
                "{grey}, so the model has 1 channel: model.image is [{height}, {width}, 1]; set it to \
                 [{height}, {width}, 3] for colour"
            ));
        }
        (Some(grey), 3) => notices.push(format!("{grey}; the model has 3 channels, for colour")),
        (None, 1) if found.stored.is_some() => {
            notices.push("images are converted to grey, since the model has 1 channel".into());
        }
        _ => {}
    }
    notices.extend(found.stored.and_then(|stored| fitting(stored, height, width)));
    if adapt.classes {
        let count = found.classes.len();
        // An explicit number that does not match is rejected when the data is opened for training.
        if config.model.classes() == 0 {
            config.model.set_classes(count)?;
        }
        notices.push(format!("the model has {count} classes: {}", names(&found.classes)));
    }
    config.validate()?;
    let unused_classes = if config.model.classes() == 0 { found.classes.len() } else { 0 };
    Ok(Adapted { notices, unused_classes })
}

/// Sets the number of image channels, and a default that depends on it.
pub(crate) fn set_channels(config: &mut RunConfig, channels: usize) {
    let default = config.model.train_defaults().clip;
    config.model.set_channels(channels);
    if config.train.clip == default {
        config.train.clip = config.model.train_defaults().clip;
    }
}

/// Properties of a sample of the images.
struct Found {
    /// A sentence about the inspected images, if all of them are grey.
    grey: Option<String>,
    /// Shape of the first image before resizing.
    stored: Option<ImageShape>,
    classes: Vec<String>,
}

fn look(path: &Path, options: &OpenOptions) -> Result<Found, Error> {
    let train = glowflow_data::open(path, options)?.train;
    let classes = train.classes().to_vec();
    let sample = Subset::sample(Arc::clone(&train), SAMPLED, 0);
    let mut pixels = vec![0; sample.shape().len()];
    let (mut grey, mut read, mut stored) = (true, 0, None);
    for i in 0..sample.len() {
        // Training reports unreadable images.
        if sample.read(i, &mut pixels).is_err() {
            continue;
        }
        read += 1;
        stored = stored.or_else(|| sample.stored_shape(i));
        grey = grey && pixels.chunks_exact(3).all(is_grey);
        if !grey {
            break;
        }
    }
    let sentence = || match read {
        1 => "the only image is grey".to_owned(),
        _ if sample.len() == train.len() => format!("all {read} images are grey"),
        _ => format!("all {read} randomly selected images are grey"),
    };
    Ok(Found { grey: (grey && read > 0).then(sentence), stored, classes })
}

fn is_grey(pixel: &[u8]) -> bool {
    let (least, most) =
        pixel.iter().fold((u8::MAX, u8::MIN), |(least, most), &c| (least.min(c), most.max(c)));
    most - least <= TOLERANCE
}

/// Returns a sentence about images whose size differs from the model's.
fn fitting(stored: ImageShape, height: usize, width: usize) -> Option<String> {
    if (stored.height, stored.width) == (height, width) {
        return None;
    }
    let cropped = if stored.height * width == stored.width * height { "" } else { "centre-cropped and " };
    let enlarged = if stored.height.min(stored.width) < height.min(width) { "enlarged" } else { "reduced" };
    Some(format!(
        "images are {cropped}{enlarged} to the model's {width}×{height} pixels; the first has {}×{}",
        stored.width, stored.height
    ))
}

fn names(classes: &[String]) -> String {
    let mut text = classes[..classes.len().min(NAMED)].join(", ");
    if classes.len() > NAMED {
        text += &format!(" and {} more", classes.len() - NAMED);
    }
    text
}
