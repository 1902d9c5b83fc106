//! A study, resolved: every value of every run.

use std::path::Path;

use toml::{Table, Value};

use super::builtin::{self, Scale};
use super::check::{check_comparable, check_distinct, check_name, fail, within};
use super::form::{Base, Entry, Form, check_sections};
use crate::model::memory;
use crate::train::{Adapt, RunConfig, absolute, adapt, merge, override_table, preset};
use crate::{Error, text_file};

/// Training of each run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Images, rounded up to whole batches.
    Images(u64),
    /// Optimiser steps.
    Steps(u64),
    /// Minutes of training, evaluations not included.
    Minutes(f64),
}

/// Values that replace those of a study file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides<'a> {
    /// The data.
    pub data: Option<&'a Path>,
    /// The seeds.
    pub seeds: Option<&'a [u64]>,
    /// The budget.
    pub budget: Option<Budget>,
    /// `section.key=value` for all configurations.
    pub set: &'a [String],
}

/// A named configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The name, and that of its folder.
    pub name: String,
    /// The configuration of its runs, except for the seed.
    pub run: RunConfig,
}

/// A set of configurations to train with equal budgets.
#[derive(Clone, Debug)]
pub struct Study {
    /// The name.
    pub name: String,
    /// The headline of figure and table.
    pub title: String,
    /// Seeds; each configuration is trained once with each.
    pub seeds: Vec<u64>,
    /// Training of each run.
    pub budget: Budget,
    /// Images between two evaluations: a whole number of batches of each configuration.
    pub evaluate_every: u64,
    /// The configurations.
    pub configurations: Vec<Configuration>,
    /// Whether the study sets `model.image` itself.
    image_is_set: bool,
}

impl Study {
    /// Resolves a built-in study.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, naming the known ones, and for overrides that do not fit.
    pub fn builtin(name: &str, scale: Scale, overrides: Overrides<'_>) -> Result<Self, Error> {
        Self::parse(builtin::text(name, scale)?, overrides).map_err(|error| within(name, error))
    }

    /// Reads and resolves a study file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if it cannot be read; [`Error::Config`] with the file, the key, and the line if
    /// one line is at fault.
    pub fn read(path: &Path, overrides: Overrides<'_>) -> Result<Self, Error> {
        let text = text_file::read(path)?;
        Self::parse(&text, overrides).map_err(|error| within(&path.display().to_string(), error))
    }

    fn parse(text: &str, overrides: Overrides<'_>) -> Result<Self, Error> {
        let form = Form::parse(text)?;
        check_name("name", &form.name)?;
        let own = budget(&form)?;
        let budget = overrides.budget.unwrap_or(own);
        check_budget(budget)?;
        let seeds = overrides.seeds.map_or(form.seeds.clone(), <[u64]>::to_vec);
        check_distinct("seeds", &seeds)?;
        if let Some(seed) = seeds.iter().find(|&&seed| i64::try_from(seed).is_err()) {
            return fail(format!("seeds holds {seed}; seeds must be below 2^63"));
        }
        if form.configurations.is_empty() {
            return fail("configurations is empty; a study needs at least 1");
        }
        for entry in &form.configurations {
            check_name("a configuration's name", &entry.name)?;
        }
        // File systems that ignore case have one folder for both.
        let names: Vec<_> = form.configurations.iter().map(|entry| entry.name.to_lowercase()).collect();
        check_distinct("configurations", &names)?;

        let set = overrides.set.iter().map(|text| override_table(text)).collect::<Result<Vec<_>, _>>()?;
        let mut image_is_set = false;
        let mut configurations = vec![];
        for entry in &form.configurations {
            let layers = layers(form.base.as_ref(), entry, &set);
            image_is_set |= layers.iter().any(sets_image);
            let name = entry.preset.as_deref().or(form.base.as_ref().and_then(|base| base.preset.as_deref()));
            let here = |error| within(&format!("configuration {:?}", entry.name), error);
            let table = merged(name, layers).map_err(here)?;
            let run = RunConfig::of_new_run(table).or_else(|error| {
                check_sections(text)?;
                Err(here(error))
            })?;
            let run = located(run, overrides.data).map_err(here)?;
            configurations.push(Configuration { name: entry.name.clone(), run });
        }
        check_comparable(&configurations)?;

        // A time does not say how many images there will be.
        let counted = if matches!(budget, Budget::Minutes(_)) { own } else { budget };
        let evaluate_every = evaluate_every(&form, counted, &configurations)?;
        let title = form.title.unwrap_or_else(|| form.name.clone());
        let mut study =
            Self { name: form.name, title, seeds, budget, evaluate_every, configurations, image_is_set };
        study.schedule()?;
        Ok(study)
    }

    /// Sets steps and evaluations of each configuration.
    fn schedule(&mut self) -> Result<(), Error> {
        for index in 0..self.configurations.len() {
            let steps = self.steps(index);
            let Configuration { name, run } = &mut self.configurations[index];
            run.train.steps = steps;
            run.train.eval_every = self.evaluate_every / run.train.batch as u64;
            run.validate().map_err(|error| within(&format!("configuration {name:?}"), error))?;
        }
        Ok(())
    }

    /// Adapts the models to the data: one channel for grey images, unless the study sets `model.image`. Returns facts
    /// for the user.
    ///
    /// # Errors
    /// As [`adapt`].
    pub fn adapt(&mut self, stop: &std::sync::atomic::AtomicBool) -> Result<Vec<String>, Error> {
        let channels = !self.image_is_set;
        let mut first = self.configurations[0].run.clone();
        let adapted = adapt(&mut first, Adapt { channels, classes: false }, stop)?;
        for configuration in &mut self.configurations {
            configuration.run.model.set_channels(first.model.image()[2]);
        }
        Ok(adapted.notices)
    }

    /// Steps of each run of a configuration; `None` if the budget is a time.
    pub fn steps(&self, index: usize) -> Option<u64> {
        let batch = self.configurations[index].run.train.batch as u64;
        match self.budget {
            Budget::Images(images) => Some(images.div_ceil(batch)),
            Budget::Steps(steps) => Some(steps),
            Budget::Minutes(_) => None,
        }
    }

    /// Images of each run of a configuration; `None` if the budget is a time.
    pub fn images(&self, index: usize) -> Option<u64> {
        let batch = self.configurations[index].run.train.batch as u64;
        self.steps(index).map(|steps| steps.saturating_mul(batch))
    }

    /// The data to train on, if they are given.
    pub fn data(&self) -> Option<&Path> {
        self.configurations[0].run.data.path.as_deref()
    }

    /// Number of trained parameters of a configuration.
    pub fn parameters(&self, index: usize) -> u128 {
        memory::parameters(&self.configurations[index].run.model)
    }

    /// The configuration of one run.
    pub fn run_config(&self, index: usize, seed: u64) -> RunConfig {
        let mut run = self.configurations[index].run.clone();
        run.train.seed = seed;
        run
    }

    /// The study as a study file with every value.
    ///
    /// # Errors
    /// [`Error::Config`] if a value has no TOML form, such as a path that is not Unicode.
    pub fn to_toml(&self) -> Result<String, Error> {
        let mut data = None;
        let mut configurations = vec![];
        for Configuration { name, run } in &self.configurations {
            let mut table = run.table()?;
            let mut section = |name| match table.remove(name) {
                Some(Value::Table(section)) => Some(section),
                _ => None,
            };
            data = section("data");
            let (model, mut train) = (section("model"), section("train"));
            for (key, _) in RESERVED {
                train.as_mut().and_then(|train| train.remove(key));
            }
            configurations.push(Entry { name: name.clone(), preset: None, model, train });
        }
        let (images, steps, minutes) = match self.budget {
            Budget::Images(images) => (Some(images), None, None),
            Budget::Steps(steps) => (None, Some(steps), None),
            Budget::Minutes(minutes) => (None, None, Some(minutes)),
        };
        let form = Form {
            name: self.name.clone(),
            title: Some(self.title.clone()),
            seeds: self.seeds.clone(),
            images,
            steps,
            minutes,
            evaluations: None,
            evaluate_every: Some(self.evaluate_every),
            base: Some(Base { preset: None, model: None, train: None, data }),
            configurations,
        };
        toml::to_string(&form).map_err(|e| Error::Config(format!("the study cannot be written: {e}")))
    }
}

/// Keys of `[train]` that follow from the study, and the keys that they follow from.
const RESERVED: [(&str, &str); 3] = [
    ("seed", "seeds"),
    ("steps", "the budget (images, steps or minutes)"),
    ("eval_every", "evaluations or evaluate_every"),
];

/// The tables to merge over the preset, in order.
fn layers(base: Option<&Base>, entry: &Entry, set: &[Table]) -> Vec<Table> {
    let sections = |model: &Option<Table>, train: &Option<Table>, data: Option<&Table>| {
        let sections = [("model", model.as_ref()), ("train", train.as_ref()), ("data", data)];
        let present = sections.into_iter().filter_map(|(name, section)| Some((name, section?)));
        present.map(|(name, section)| (name.to_owned(), Value::Table(section.clone()))).collect::<Table>()
    };
    let base = base.map(|base| sections(&base.model, &base.train, base.data.as_ref()));
    let entry = sections(&entry.model, &entry.train, None);
    base.into_iter().chain([entry]).chain(set.iter().cloned()).collect()
}

/// Whether a table sets `model.image`.
fn sets_image(table: &Table) -> bool {
    table.get("model").and_then(|model| model.get("image")).is_some()
}

/// A preset and the tables over it.
fn merged(name: Option<&str>, layers: Vec<Table>) -> Result<Table, Error> {
    let mut table = name.map(preset).transpose()?.unwrap_or_default();
    for layer in layers {
        merge(&mut table, layer);
    }
    for (key, from) in RESERVED {
        if table.get("train").and_then(|train| train.get(key)).is_some() {
            return fail(format!("train.{key} follows from {from}: leave it out"));
        }
    }
    Ok(table)
}

/// A configuration on the given data, or on its own, with absolute paths.
fn located(mut run: RunConfig, data: Option<&Path>) -> Result<RunConfig, Error> {
    if data.is_some() {
        run.data.path = data.map(Path::to_owned);
    }
    for path in [&mut run.data.path, &mut run.data.test].into_iter().flatten() {
        *path = absolute(path)?;
    }
    if run.train.batch == 0 {
        return fail("train.batch is 0; it must be at least 1");
    }
    Ok(run)
}

/// The budget of a study file.
fn budget(form: &Form) -> Result<Budget, Error> {
    match (form.images, form.steps, form.minutes) {
        (Some(images), None, None) => Ok(Budget::Images(images)),
        (None, Some(steps), None) => Ok(Budget::Steps(steps)),
        (None, None, Some(minutes)) => Ok(Budget::Minutes(minutes)),
        (None, None, None) => fail("the budget is missing: set one of images, steps and minutes"),
        _ => fail("the study has several budgets: set only one of images, steps and minutes"),
    }
}

fn check_budget(budget: Budget) -> Result<(), Error> {
    match budget {
        Budget::Images(0) => fail("images is 0; it must be at least 1"),
        Budget::Steps(0) => fail("steps is 0; it must be at least 1"),
        Budget::Minutes(minutes) if !(minutes > 0.0 && minutes.is_finite()) => {
            fail(format!("minutes is {minutes}; it must be above 0"))
        }
        _ => Ok(()),
    }
}

/// Images between two evaluations, given a budget. The same number for each configuration, so a multiple
/// of each batch.
fn evaluate_every(form: &Form, budget: Budget, configurations: &[Configuration]) -> Result<u64, Error> {
    let batches = || configurations.iter().map(|configuration| configuration.run.train.batch as u64);
    let largest = batches().max().unwrap_or(1);
    let images = match (form.evaluations, form.evaluate_every) {
        (Some(0), _) => return fail("evaluations is 0; it must be at least 1"),
        (_, Some(0)) => return fail("evaluate_every is 0; it must be at least 1"),
        (None, Some(images)) => images,
        (Some(count), None) => match budget {
            Budget::Images(images) => images.div_ceil(count),
            Budget::Steps(steps) => steps.saturating_mul(largest).div_ceil(count),
            Budget::Minutes(_) => {
                return fail(
                    "evaluations needs a budget of images or steps; with minutes, set evaluate_every to a number of \
                     images",
                );
            }
        },
        (None, None) => return fail("evaluations is missing: set it, or evaluate_every in images"),
        _ => return fail("evaluations and evaluate_every exclude each other: set one of them"),
    };
    let common = batches().try_fold(1u64, |common, batch| (common / gcd(common, batch)).checked_mul(batch));
    let rounded = common.and_then(|common| images.div_ceil(common).checked_mul(common));
    rounded
        .ok_or_else(|| Error::Config("the values of train.batch have no common multiple in 64 bits".into()))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
