//! A resolved study: all values of all runs.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::budget::{Budget, Evaluations};
use super::builtin::{self, Scale};
use super::check::{check_comparable, check_distinct, check_name, fail, within};
use super::form::{Base, Entry, Form, check_sections};
use super::runs::{Baseline, RunId};
use crate::model::memory;
use crate::models::Architecture;
use crate::train::{
    Adapt, RunConfig, Schedule, absolute, adapt, merge, override_table, set_channels, with_preset,
};
use crate::{Error, pretrained, text_file};

/// Values that override those of a study file.
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
    /// Names of the configurations to train; all by default. The baseline of a comparison is always trained.
    pub arms: Option<&'a [String]>,
    /// Multiples of the budget for the baseline.
    pub curve: Option<&'a [f64]>,
}

/// A named configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The name, which is also that of its folder.
    pub name: String,
    /// The configuration of its runs, without the seed.
    pub run: RunConfig,
}

/// A set of configurations to train with equal budgets.
#[derive(Clone, Debug)]
pub struct Study {
    /// The name.
    pub name: String,
    /// The title of figure and table.
    pub title: String,
    /// Seeds; each configuration is trained once per seed.
    pub seeds: Vec<u64>,
    /// Training budget of each run.
    pub budget: Budget,
    /// Schedule of evaluations.
    pub evaluations: Evaluations,
    /// The comparison with the first configuration, if there is one.
    pub baseline: Option<Baseline>,
    /// The configurations.
    pub configurations: Vec<Configuration>,
    /// Indices of the configurations to train.
    pub(super) selected: Vec<usize>,
    /// Measured images per second of each configuration, once a budget of minutes has been calibrated.
    pub(super) speeds: Vec<f64>,
    /// True if the study itself sets `model.image`.
    image_is_set: bool,
}

impl Study {
    /// Resolves a built-in study.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name, with the known ones, and for invalid overrides.
    pub fn builtin(name: &str, scale: Scale, overrides: Overrides<'_>) -> Result<Self, Error> {
        Self::parse(builtin::text(name, scale)?, overrides).map_err(|error| within(name, error))
    }

    /// Reads and resolves a study file.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] if it cannot be read; [`Error::Config`] with the file, the key, and
    /// the line if a single line is invalid.
    pub fn read(path: &Path, overrides: Overrides<'_>) -> Result<Self, Error> {
        let text = text_file::read(path)?;
        Self::parse(&text, overrides).map_err(|error| within(&path.display().to_string(), error))
    }

    fn parse(text: &str, overrides: Overrides<'_>) -> Result<Self, Error> {
        let form = Form::parse(text)?;
        check_name("name", &form.name)?;
        let own = Budget::of(&form)?;
        let budget = overrides.budget.unwrap_or(own);
        budget.check()?;
        let baseline = Baseline::of(&form, overrides.curve)?;
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
        // Case-insensitive file systems have one folder for both.
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
            let mut run = located(run, overrides.data).map_err(here)?;
            if run.data.test.is_none() {
                // Runs of all seeds are evaluated on the same images.
                run.data.test_seed.get_or_insert(seeds[0]);
            }
            configurations.push(Configuration { name: entry.name.clone(), run });
        }
        let augments: Vec<_> = form.configurations.iter().map(|entry| entry.data.is_some()).collect();
        check_comparable(&configurations, &augments)?;
        let selected = selected(&configurations, overrides.arms, baseline.is_some())?;

        let calibrated = is_calibrated(budget, baseline.as_ref(), &configurations);
        // A time alone does not determine the number of images.
        let counted = match (budget, own) {
            (Budget::Minutes(_), Budget::Images(_) | Budget::Steps(_)) if !calibrated => own,
            _ => budget,
        };
        let evaluations = Evaluations::of(&form, counted, calibrated, &configurations)?;
        let title = form.title.unwrap_or_else(|| form.name.clone());
        let mut study = Self {
            name: form.name,
            title,
            seeds,
            budget,
            evaluations,
            baseline,
            configurations,
            selected,
            speeds: vec![],
            image_is_set,
        };
        study.schedule()?;
        Ok(study)
    }

    /// Sets steps and evaluations of the configurations to train, and validates their values.
    fn schedule(&mut self) -> Result<(), Error> {
        for index in self.selected.clone() {
            let name = self.configurations[index].name.clone();
            let here = |error| within(&format!("configuration {name:?}"), error);
            if matches!(self.budget, Budget::Flops(_)) && self.multiply_adds(index) == 0 {
                return fail("it has no counted multiply-adds, which a budget of flops requires")
                    .map_err(here);
            }
            let mut run = self.config_of(RunId::new(index, 0));
            if self.is_calibrated() {
                // Schedules need an end, which is only known after the calibration.
                run.train.steps = run.train.steps.or(Some(1));
            }
            run.validate().map_err(here)?;
            self.configurations[index].run = run;
        }
        let multiples = self.baseline.iter().flat_map(Baseline::others);
        let longest = multiples.fold(1.0, f64::max);
        let steps = self.steps_of(RunId { multiple: longest, ..RunId::new(0, 0) });
        if steps.is_some_and(|steps| i64::try_from(steps).is_err()) {
            return fail(format!(
                "{longest} times the budget is too large: a run must have fewer than 2^63 steps"
            ));
        }
        Ok(())
    }

    /// Adapts the models to the data: one channel for grey images, unless the study sets `model.image`.
    /// Returns remarks for the user.
    ///
    /// # Errors
    /// As [`adapt`].
    pub fn adapt(&mut self, stop: &std::sync::atomic::AtomicBool) -> Result<Vec<String>, Error> {
        let channels = !self.image_is_set;
        let mut first = self.configurations[self.selected[0]].run.clone();
        let adapted = adapt(&mut first, Adapt { channels, classes: false }, stop)?;
        for configuration in &mut self.configurations {
            set_channels(&mut configuration.run, first.model.image()[2]);
        }
        let mut notices = adapted.notices;
        for notice in self.selected.iter().flat_map(|&index| self.configurations[index].run.model.unread()) {
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
        Ok(notices)
    }

    /// The data to train on, if they are given.
    pub fn data(&self) -> Option<&Path> {
        self.configurations[0].run.data.path.as_deref()
    }

    /// Number of trained parameters of a configuration.
    pub fn parameters(&self, index: usize) -> u128 {
        memory::parameters(&self.configurations[index].run.model)
    }

    /// Serialises the study as a study file with every value.
    ///
    /// # Errors
    /// [`Error::Config`] if a value cannot be represented in TOML, such as a path that is not Unicode.
    pub fn to_toml(&self) -> Result<String, Error> {
        let tables = self.configurations.iter().map(|named| named.run.table());
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let section = |table: &Table, name| match table.get(name) {
            Some(Value::Table(section)) => Some(section.clone()),
            _ => None,
        };
        // Keys that differ remain in the configurations.
        let all: Vec<_> = tables.iter().filter_map(|table| section(table, "data")).collect();
        let common = |key: &str, value: &Value| all.iter().all(|data| data.get(key) == Some(value));
        let mut data = all.first().cloned();
        data.iter_mut().for_each(|data| data.retain(|key, value| common(key, value)));
        let mut configurations = vec![];
        for (Configuration { name, .. }, table) in self.configurations.iter().zip(&tables) {
            let (model, mut train) = (section(table, "model"), section(table, "train"));
            for (key, _) in RESERVED {
                train.as_mut().and_then(|train| train.remove(key));
            }
            let mut own = section(table, "data");
            own.iter_mut().for_each(|own| own.retain(|key, value| !common(key, value)));
            let own = own.filter(|own| !own.is_empty());
            configurations.push(Entry { name: name.clone(), preset: None, model, train, data: own });
        }
        let (evaluations, evaluate_every) = match self.evaluations {
            Evaluations::Every(images) => (None, Some(images)),
            Evaluations::Times(count) => (Some(count), None),
        };
        let mut form = Form {
            name: self.name.clone(),
            title: Some(self.title.clone()),
            seeds: self.seeds.clone(),
            images: None,
            steps: None,
            minutes: None,
            flops: None,
            evaluations,
            evaluate_every,
            curve: None,
            curve_seeds: None,
            score_images: None,
            base: Some(Base { preset: None, model: None, train: None, data }),
            configurations,
        };
        self.budget.write(&mut form);
        self.baseline.iter().for_each(|baseline| baseline.write(&mut form));
        toml::to_string(&form).map_err(|e| Error::Config(format!("the study cannot be written: {e}")))
    }
}

/// Returns whether a budget of minutes is converted to steps: a comparison requires equal work, and a
/// schedule needs its end.
pub(super) fn is_calibrated(
    budget: Budget,
    baseline: Option<&Baseline>,
    configurations: &[Configuration],
) -> bool {
    let mut schedules = configurations.iter().map(|configuration| configuration.run.train.schedule);
    let ends = schedules.any(|schedule| schedule != Schedule::Constant);
    matches!(budget, Budget::Minutes(_)) && (baseline.is_some() || ends)
}

/// Indices of the configurations to train.
fn selected(
    configurations: &[Configuration],
    arms: Option<&[String]>,
    with_first: bool,
) -> Result<Vec<usize>, Error> {
    let Some(arms) = arms else { return Ok((0..configurations.len()).collect()) };
    check_distinct("arms", arms)?;
    let names: Vec<_> = configurations.iter().map(|named| named.name.as_str()).collect();
    if let Some(unknown) = arms.iter().find(|&arm| !names.contains(&arm.as_str())) {
        return fail(format!("unknown configuration {unknown:?}, expected one of {}", names.join(", ")));
    }
    let trains = |index: &usize| (with_first && *index == 0) || arms.iter().any(|arm| arm == names[*index]);
    Ok((0..names.len()).filter(trains).collect())
}

/// Keys of `[train]` that are derived from the study, with their sources.
const RESERVED: [(&str, &str); 3] = [
    ("seed", "seeds"),
    ("steps", "the budget (images, steps, minutes or flops)"),
    ("eval_every", "evaluations or evaluate_every"),
];

/// The tables to merge into the preset, in order.
fn layers(base: Option<&Base>, entry: &Entry, set: &[Table]) -> Vec<Table> {
    let sections = |model: &Option<Table>, train: &Option<Table>, data: Option<&Table>| {
        let sections = [("model", model.as_ref()), ("train", train.as_ref()), ("data", data)];
        let present = sections.into_iter().filter_map(|(name, section)| Some((name, section?)));
        present.map(|(name, section)| (name.to_owned(), Value::Table(section.clone()))).collect::<Table>()
    };
    let base = base.map(|base| sections(&base.model, &base.train, base.data.as_ref()));
    let entry = sections(&entry.model, &entry.train, entry.data.as_ref());
    base.into_iter().chain([entry]).chain(set.iter().cloned()).collect()
}

/// Returns whether a table sets `model.image`.
fn sets_image(table: &Table) -> bool {
    table.get("model").and_then(|model| model.get("image")).is_some()
}

/// A preset merged with the tables.
fn merged(name: Option<&str>, layers: Vec<Table>) -> Result<Table, Error> {
    let mut set = Table::new();
    for layer in layers {
        merge(&mut set, layer);
    }
    let table = with_preset(name, set)?;
    for (key, from) in RESERVED {
        if table.get("train").and_then(|train| train.get(key)).is_some() {
            return fail(format!("train.{key} follows from {from}: omit it"));
        }
    }
    Ok(table)
}

/// Makes the path of a model valid from other working directories. That of an included model is unchanged.
pub(super) fn absolute_model(path: &Path) -> Result<PathBuf, Error> {
    if pretrained::is_pretrained(path) || pretrained::bytes(path).is_some() {
        return Ok(path.to_owned());
    }
    absolute(path)
}

/// A configuration with the given data, or its own, with absolute paths.
fn located(mut run: RunConfig, data: Option<&Path>) -> Result<RunConfig, Error> {
    if data.is_some() {
        run.data.path = data.map(Path::to_owned);
    }
    for path in [&mut run.data.path, &mut run.data.test].into_iter().flatten() {
        *path = absolute(path)?;
    }
    if let Some(from) = &mut run.train.from {
        *from = absolute_model(from)?;
    }
    if run.train.batch == 0 {
        return fail("train.batch is 0; it must be at least 1");
    }
    Ok(run)
}
