//! A study's folder, which belongs to a single study.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::plan::absolute_model;
use super::runs::RunId;
use super::{Configuration, Study};
use crate::tensor_file::write_atomically;
use crate::{Error, text_file};

/// File name of the resolved study.
pub const STUDY: &str = "study.toml";

/// The key of the seed that selects held-out images.
const TEST_SEED: &str = "test_seed";

/// The key of the configurations in a study file.
const CONFIGURATIONS: &str = "configurations";

/// The key of the seeds in a study file.
const SEEDS: &str = "seeds";

const COMMENT: &str = "# The resolved study of this folder. The same study continues here; to repeat it in another folder, \
                       run this file.\n\n";

/// The folder of a run.
pub fn run_folder(out: &Path, study: &Study, run: RunId) -> PathBuf {
    run.folder(&out.join(&study.configurations[run.configuration].name))
}

/// A folder that is empty or belongs to the study, which is not yet written there.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    /// The new content of the study file, if it changes.
    text: Option<String>,
    /// Names of the added configurations and seeds.
    added: Option<String>,
}

impl Claim {
    /// Checks that a folder is empty or already belongs to the same study. Configurations may be added, and
    /// seeds after the others.
    ///
    /// # Errors
    /// [`Error::Input`] if the folder holds another study or other files.
    pub fn new(out: &Path, study: &mut Study) -> Result<Self, Error> {
        let path = out.join(STUDY);
        if !path.exists() {
            if fs::read_dir(out).map_err(Error::io(out))?.next().is_some() {
                return Err(Error::Input(format!(
                    "{} holds files, but no {STUDY}: choose an empty or new folder",
                    out.display()
                )));
            }
            return Ok(Self { path, text: Some(study.to_toml()?), added: None });
        }
        let parse = |text: &str| {
            text.parse::<Table>()
                .map_err(|error| Error::file(&path, format!("not a study: {}", error.message())))
        };
        let mut there = parse(&text_file::read(&path)?)?;
        let (names, seeds) = (names(&there), seeds(&there));
        let is_added = |configuration: &Configuration| !names.contains(&configuration.name);
        continue_older(&mut there, study)?;
        let mut known = study.clone();
        if study.seeds.starts_with(&seeds) {
            known.seeds.clone_from(&seeds);
        }
        let all = parse(&known.to_toml()?)?;
        // Values that all configurations share are written once, so an added configuration can change the
        // others' text.
        known.configurations.retain(|configuration| !is_added(configuration));
        let known = parse(&known.to_toml()?)?;
        let none_is_missing = entries(&known).len() == entries(&there).len();
        if let Some(difference) = difference(&there, if none_is_missing { &known } else { &all }) {
            return Err(Error::Input(format!(
                "{} holds another study: {difference}. Repeat that study's arguments to continue it, or choose another folder",
                out.display()
            )));
        }
        let text = study.to_toml()?;
        if difference(&there, &parse(&text)?).is_none() {
            return Ok(Self { path, text: None, added: None });
        }
        let configurations = study.configurations.iter().filter(|configuration| is_added(configuration));
        let configurations = configurations.map(|configuration| configuration.name.clone());
        let seeds = study.seeds[seeds.len()..].iter().map(|seed| format!("seed {seed}"));
        let added = configurations.chain(seeds).collect::<Vec<_>>().join(", ");
        Ok(Self { path, text: Some(text), added: Some(added) })
    }

    /// Writes the study to the folder. Returns the names of the added configurations and seeds, if there are
    /// any.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(self) -> Result<Option<String>, Error> {
        if let Some(text) = self.text {
            write_atomically(&self.path, format!("{COMMENT}{text}").as_bytes())?;
        }
        Ok(self.added)
    }
}

/// Makes a claimed study of an older version, and the study that continues it, comparable.
fn continue_older(there: &mut Table, study: &mut Study) -> Result<(), Error> {
    let held_out = there.get("base").and_then(|base| base.get("data")?.get(TEST_SEED));
    if held_out.is_none() {
        // Each seed has its own held-out images, also in runs that are added.
        let first = study.seeds[0];
        let data = study.configurations.iter_mut().map(|configuration| &mut configuration.run.data);
        data.filter(|data| data.test_seed == Some(first)).for_each(|data| data.test_seed = None);
    }
    let entries = there.get_mut(CONFIGURATIONS).and_then(Value::as_array_mut).into_iter().flatten();
    for from in entries.filter_map(|entry| entry.get_mut("train")?.get_mut("from")) {
        // The path was relative to the working directory.
        if let Some(path) = from.as_str().map(Path::new) {
            *from = Value::from(&*absolute_model(path)?.to_string_lossy());
        }
    }
    Ok(())
}

/// The names of a study's configurations.
fn names(study: &Table) -> Vec<String> {
    entries(study).iter().map(name).collect()
}

/// The configurations of a study.
fn entries(study: &Table) -> Vec<Value> {
    study.get(CONFIGURATIONS).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The seeds of a study.
fn seeds(study: &Table) -> Vec<u64> {
    let seeds = study.get(SEEDS).and_then(Value::as_array);
    seeds.into_iter().flatten().filter_map(|seed| u64::try_from(seed.as_integer()?).ok()).collect()
}

/// The first difference between two studies.
fn difference(there: &Table, here: &Table) -> Option<String> {
    let keys = there.keys().chain(here.keys().filter(|key| !there.contains_key(*key)));
    // The seeds first: other values follow from them.
    let keys = [SEEDS].into_iter().chain(keys.map(String::as_str));
    keys.into_iter().find_map(|key| differing(key, there.get(key), here.get(key)))
}

fn differing(key: &str, there: Option<&Value>, here: Option<&Value>) -> Option<String> {
    match (there, here) {
        (Some(Value::Table(there)), Some(Value::Table(here))) => {
            let keys = there.keys().chain(here.keys().filter(|key| !there.contains_key(*key)));
            let inner =
                |inner: &String| differing(&format!("{key}.{inner}"), there.get(inner), here.get(inner));
            keys.into_iter().find_map(inner)
        }
        (Some(Value::Array(there)), Some(Value::Array(here)))
            if there.iter().chain(here).all(Value::is_table) =>
        {
            let names = |entries: &[Value]| entries.iter().map(name).collect::<Vec<_>>().join(", ");
            let (old, new) = (names(there), names(here));
            if old != new {
                return Some(format!("its {key} are {old}, not {new}"));
            }
            let entries = there.iter().zip(here);
            entries.into_iter().find_map(|(there, here)| differing(&name(there), Some(there), Some(here)))
        }
        _ if there == here => None,
        _ => {
            let text = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
            Some(format!("{key} is {} there, and {} here", text(there), text(here)))
        }
    }
}

/// The name of a configuration.
fn name(entry: &Value) -> String {
    entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
}
