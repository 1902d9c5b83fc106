//! Training in a run's folder, like the command line.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use glowflow::train::{
    self, Adapt, CONFIG, Changes, Limits, Options, RunConfig, Summary, TrainAndTest, observers, run_folder,
};
use glowflow::{DeviceChoice, DeviceError, Error, catch_out_of_memory};
use glowflow_data::{Dataset, ImageShape};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::images::{self, Given};
use crate::observer::{Caller, Request};
use crate::{devices, interruptible};

/// Arguments of a training run, from a dictionary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Arguments {
    /// The run's folder.
    out: PathBuf,
    device: String,
    preset: Option<String>,
    /// `section.key=value` items.
    overrides: Vec<String>,
    /// Data in files.
    data: Option<PathBuf>,
    test: Option<PathBuf>,
    steps: Option<u64>,
    minutes: Option<f64>,
    resume: bool,
    /// Number of classes of the in-memory images.
    classes: usize,
}

/// In-memory images for training and testing.
struct InMemory {
    train: Arc<dyn Dataset>,
    test: Option<Arc<dyn Dataset>>,
}

/// Trains, and returns the summary in JSON. `callback` receives the fields of a `TrainState`, `notify` a line
/// for the log.
#[pyfunction]
#[pyo3(name = "train", signature = (arguments, images, test_images, callback, notify))]
pub fn train_in_folder<'py>(
    py: Python<'py>,
    arguments: Arguments,
    images: Option<Given<'py>>,
    test_images: Option<Given<'py>>,
    callback: Option<Bound<'py, PyAny>>,
    notify: Bound<'py, PyAny>,
) -> PyResult<String> {
    let device = devices::choice(&arguments.device)?;
    let in_memory = |given: &Given<'_>| images::dataset(given, arguments.classes);
    let test = test_images.as_ref().map(in_memory).transpose()?;
    let train = images.as_ref().map(in_memory).transpose()?;
    let images = train.map(|train| InMemory { train, test });

    let stop = AtomicBool::new(false);
    let done = interruptible::run(
        py,
        &stop,
        |requests: Sender<Request>| {
            let trained = catch_out_of_memory(|| run(&arguments, device, images, requests, &stop));
            trained.map_err(Error::from).flatten()
        },
        |request: Request| match request {
            Request::Notice(line) => notify.call1((line,)).map(drop),
            Request::State(state, answer) => {
                let end = match &callback {
                    Some(callback) => {
                        let fields = (
                            state.step,
                            state.images,
                            state.bits_per_dim,
                            state.gradient_norm,
                            state.learning_rate,
                            state.images_per_second,
                            state.test_bits_per_dim,
                        );
                        callback.call1(fields)?.is_truthy()?
                    }
                    None => false,
                };
                let _ = answer.send(end);
                Ok(())
            }
        },
    );
    if let Some(exception) = done.exception {
        return Err(exception);
    }
    let summary = done.result.map_err(raised)?;
    serde_json::to_string(&summary).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// The number of classes of a run's model.
#[pyfunction]
pub fn run_classes(out: PathBuf) -> PyResult<usize> {
    let config = RunConfig::read(&run_folder(&out).join(CONFIG)).map_err(raised)?;
    Ok(config.model.classes())
}

/// Names of the presets.
#[pyfunction]
pub fn preset_names() -> Vec<&'static str> {
    train::preset_names()
}

fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    images: Option<InMemory>,
    requests: Sender<Request>,
    stop: &AtomicBool,
) -> Result<Summary, Error> {
    let out = arguments.out.as_path();
    let limits = Limits { steps: arguments.steps, images: None, minutes: arguments.minutes };
    let log = requests.clone();
    let notice = |line: String| _ = log.send(Request::Notice(line));
    let open = |config: &RunConfig| -> Result<_, DeviceError> {
        let (device, trouble) = devices::open(device, config.train.precision)?;
        trouble.into_iter().for_each(&notice);
        Ok(device)
    };
    let mut observers = observers::files();
    observers.push(Box::new(Caller::new(requests)));
    let options = Options { limits, observers, faces: None, stop };

    if arguments.resume {
        let (data, test_data) = (arguments.data.as_deref(), arguments.test.as_deref());
        let changes = Changes { data, test_data, overrides: &arguments.overrides };
        let Some(images) = images else { return train::resume(open, out, changes, options) };
        let config = RunConfig::read(&run_folder(out).join(CONFIG))?;
        let (train, test) = held_out(images, &config)?;
        return train::resume_on(open, out, changes, train, test, options);
    }

    let (mut config, image_is_set) =
        RunConfig::resolve_noting_image(arguments.preset.as_deref(), None, &arguments.overrides)?;
    if let Some(images) = images {
        check_shape(images.train.shape(), &config)?;
        let (train, test) = held_out(images, &config)?;
        return train::train_on(open(&config)?, config, train, test, out, options);
    }
    config.data.path.clone_from(&arguments.data);
    config.data.test.clone_from(&arguments.test);
    let device = open(&config)?;
    let adapt = Adapt { channels: !image_is_set, classes: false };
    train::adapt(&mut config, adapt, stop)?.notices.into_iter().for_each(&notice);
    train::train(device, config, out, options)
}

/// Holds out some images for testing if there are no test images.
fn held_out(images: InMemory, config: &RunConfig) -> Result<TrainAndTest, Error> {
    match images.test {
        Some(test) => Ok((images.train, Some(test))),
        None => train::hold_out(config, images.train),
    }
}

fn check_shape(shape: ImageShape, config: &RunConfig) -> Result<(), Error> {
    let image = config.model.image();
    if [shape.height, shape.width, shape.channels] == image {
        return Ok(());
    }
    Err(Error::Input(format!(
        "the images are [N, {}, {}, {}], and the model takes [N, {}, {}, {}]: change the model's image, or resize them",
        shape.height, shape.width, shape.channels, image[0], image[1], image[2]
    )))
}
