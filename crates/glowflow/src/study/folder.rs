//! A study's folder, which belongs to a single study.

use std::fs;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Study;
use super::runs::RunId;
use crate::tensor_file::write_atomically;
use crate::{Error, text_file};

/// File name of the resolved study.
pub const STUDY: &str = "study.toml";

/// The key of the seed that selects held-out images.
const TEST_SEED: &str = "test_seed";

/// The key of the configurations in a study file.
const CONFIGURATIONS: &str = "configurations";

const COMMENT: &str = "# The resolved study of this folder. The same study continues here; to repeat it in another folder, \
                       run this file.\n\n";

/// The folder of a run.
pub fn run_folder(out: &Path, study: &Study, run: RunId) -> PathBuf {
    run.folder(&out.join(&study.configurations[run.configuration].name))
}

/// Claims a folder for a study, or checks that it already belongs to the same study. Configurations may be
/// added.
///
/// # Errors
/// [`Error::Input`] if the folder holds another study or other files.
pub fn claim(out: &Path, study: &mut Study) -> Result<(), Error> {
    let path = out.join(STUDY);
    if !path.exists() {
        if fs::read_dir(out).map_err(Error::io(out))?.next().is_some() {
            return Err(Error::Input(format!(
                "{} holds files, but no {STUDY}: choose an empty or new folder",
                out.display()
            )));
        }
        return write_atomically(&path, format!("{COMMENT}{}", study.to_toml()?).as_bytes());
    }
    let claimed = text_file::read(&path)?;
    if !claimed.contains(TEST_SEED) {
        // Of an older version: each seed has its own held-out images, also in runs that are added.
        study.configurations.iter_mut().for_each(|configuration| configuration.run.data.test_seed = None);
    }
    let text = study.to_toml()?;
    // Values that all configurations share are written once, so an added configuration can change the others'
    // text.
    let known = |claimed: &Table| {
        let mut known = study.clone();
        let names: Vec<_> = entries(claimed).iter().map(name).collect();
        known.configurations.retain(|configuration| names.contains(&configuration.name));
        known.to_toml()
    };
    let parse = |text: &str| {
        text.parse::<Table>().map_err(|error| Error::file(&path, format!("not a study: {}", error.message())))
    };
    let (there, here) = (parse(&claimed)?, parse(&text)?);
    let known = parse(&known(&there)?)?;
    let none_is_missing = entries(&known).len() == entries(&there).len();
    match difference(&there, if none_is_missing { &known } else { &here }) {
        None if difference(&there, &here).is_none() => Ok(()),
        None => write_atomically(&path, format!("{COMMENT}{text}").as_bytes()),
        Some(difference) => Err(Error::Input(format!(
            "{} holds another study: {difference}. Repeat that study's arguments to continue it, or choose another folder",
            out.display()
        ))),
    }
}

/// The configurations of a study.
fn entries(study: &Table) -> Vec<Value> {
    study.get(CONFIGURATIONS).and_then(Value::as_array).cloned().unwrap_or_default()
}

/// The first difference between two studies.
fn difference(there: &Table, here: &Table) -> Option<String> {
    let keys = there.keys().chain(here.keys().filter(|key| !there.contains_key(*key)));
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
