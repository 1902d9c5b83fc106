//! Studies: several configurations, trained with equal budgets and several seeds.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use glowflow::study::{self, Budget, Outcome, Overrides, Scale, Study, builtin_names};
use glowflow::{DeviceChoice, Error, catch_out_of_memory};
use glowflow_report::progress::Display;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::errors::raised;
use crate::{devices, interruptible};

/// Arguments of a study, from a dictionary.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Arguments {
    /// Name of a built-in study, or path of a TOML file.
    name: String,
    out: PathBuf,
    device: String,
    /// True for the GPU version of a built-in study.
    gpu: bool,
    data: Option<PathBuf>,
    seeds: Option<Vec<u64>>,
    minutes: Option<f64>,
    images: Option<u64>,
    steps: Option<u64>,
    flops: Option<f64>,
    arms: Option<Vec<String>>,
    curve: Option<Vec<f64>>,
    /// `section.key=value` items, for all configurations.
    overrides: Vec<String>,
    progress: bool,
}

impl Arguments {
    fn budget(&self) -> Result<Option<Budget>, Error> {
        let budgets = [
            self.images.map(Budget::Images),
            self.steps.map(Budget::Steps),
            self.minutes.map(Budget::Minutes),
            self.flops.map(Budget::Flops),
        ];
        match budgets.into_iter().flatten().collect::<Vec<_>>()[..] {
            [] => Ok(None),
            [budget] => Ok(Some(budget)),
            _ => {
                Err(Error::Input("several budgets: give only one of images, steps, minutes and flops".into()))
            }
        }
    }

    fn study(&self) -> Result<Study, Error> {
        let overrides = Overrides {
            data: self.data.as_deref(),
            seeds: self.seeds.as_deref(),
            budget: self.budget()?,
            set: &self.overrides,
            arms: self.arms.as_deref(),
            curve: self.curve.as_deref(),
        };
        if builtin_names().contains(&self.name.as_str()) {
            let scale = if self.gpu { Scale::Gpu } else { Scale::Cpu };
            return Study::builtin(&self.name, scale, overrides);
        }
        let path = Path::new(&self.name);
        if !path.exists() {
            return Err(Error::Input(format!(
                "unknown study {:?}: name a TOML file, or one of {}",
                self.name,
                builtin_names().join(", ")
            )));
        }
        Study::read(path, overrides)
    }
}

/// Trains the unfinished runs of a study, and returns its results in JSON.
#[pyfunction]
#[pyo3(name = "study", signature = (arguments, notify))]
pub fn run_study<'py>(py: Python<'py>, arguments: Arguments, notify: Bound<'py, PyAny>) -> PyResult<String> {
    let device = devices::choice(&arguments.device)?;
    let stop = AtomicBool::new(false);
    let done = interruptible::run(
        py,
        &stop,
        |lines: Sender<String>| {
            let trained = catch_out_of_memory(|| run(&arguments, device, &lines, &stop));
            trained.map_err(Error::from).flatten()
        },
        |line: String| notify.call1((line,)).map(drop),
    );
    if let Some(exception) = done.exception {
        return Err(exception);
    }
    let outcome = done.result.map_err(raised)?;
    serde_json::to_string(&outcome).map_err(|error| PyValueError::new_err(error.to_string()))
}

/// Names of the built-in studies.
#[pyfunction]
pub fn study_names() -> Vec<&'static str> {
    builtin_names()
}

fn run(
    arguments: &Arguments,
    device: DeviceChoice,
    lines: &Sender<String>,
    stop: &AtomicBool,
) -> Result<Outcome, Error> {
    let mut study = arguments.study()?;
    if study.data().is_none() {
        return Err(Error::Input("there is no data to train on: pass data".into()));
    }
    study.adapt(stop)?.into_iter().for_each(|notice| _ = lines.send(notice));
    let display = if arguments.progress { Display::detect() } else { Display::Quiet };
    let open = |config: &glowflow::train::RunConfig| {
        devices::open(device, config.train.precision).map(|(device, _)| device)
    };
    study::run(&study, &arguments.out, open, study::Options { display, stop })
}
