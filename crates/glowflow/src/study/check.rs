//! Validation rules of a study, with errors that state the location.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;

use super::Configuration;
use crate::Error;
use crate::train::{DataConfig, RunConfig};

/// Maximum length of the name of a study or configuration.
const MAX_NAME: usize = 64;

/// Checks that bits/dim of different configurations are comparable. `augments` marks configurations with
/// their own section `data`, which may set the augmentation.
pub fn check_comparable(configurations: &[Configuration], augments: &[bool]) -> Result<(), Error> {
    let ([first, others @ ..], [first_augments, augments @ ..]) = (configurations, augments) else {
        return Ok(());
    };
    for (other, augments) in others.iter().zip(augments) {
        let differs = |what: &str, one: String, two: String| {
            fail(format!(
                "{what} is {one} in configuration {:?} and {two} in {:?}; all configurations of a study need the same value: set it in [base]",
                first.name, other.name
            ))
        };
        let (one, two) = (&first.run, &other.run);
        if one.model.image() != two.model.image() {
            return differs(
                "model.image",
                format!("{:?}", one.model.image()),
                format!("{:?}", two.model.image()),
            );
        }
        if one.model.bits() != two.model.bits() {
            return differs("model.bits", one.model.bits().to_string(), two.model.bits().to_string());
        }
        let same = if *first_augments || *augments {
            images(&one.data) == images(&two.data)
        } else {
            one.data == two.data
        };
        if !same {
            let text =
                |run: &RunConfig| toml::to_string(&run.data).unwrap_or_default().trim().replace('\n', ", ");
            return differs("[data]", text(one), text(two));
        }
    }
    Ok(())
}

/// The part of the section `[data]` that selects images.
fn images(data: &DataConfig) -> DataConfig {
    let DataConfig { path, test, test_fraction, test_seed, classes, .. } = data.clone();
    DataConfig { path, test, test_fraction, test_seed, classes, ..DataConfig::default() }
}

/// Checks that a name is valid as a folder name.
pub fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let known = |c: char| c.is_alphanumeric() || "-_+.".contains(c);
    let fits = !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(known);
    if fits && !name.starts_with('.') && !name.starts_with("study.") {
        return Ok(());
    }
    fail(format!(
        "{what} is {name:?}; it becomes a folder name: use up to {MAX_NAME} letters, digits and the characters \
         - _ + . and do not begin with \".\" or \"study.\""
    ))
}

/// Checks that there are values, without duplicates.
pub fn check_distinct<T: Hash + Eq + Debug>(key: &str, values: &[T]) -> Result<(), Error> {
    if values.is_empty() {
        return fail(format!("{key} is empty; a study needs at least 1"));
    }
    let mut seen = HashSet::new();
    match values.iter().find(|value| !seen.insert(*value)) {
        Some(value) => fail(format!("{key} holds {value:?} twice; values must be distinct")),
        None => Ok(()),
    }
}

/// A configuration error.
pub fn fail<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error::Config(message.into()))
}

/// Prefixes an error with its location.
pub fn within(place: &str, error: Error) -> Error {
    match error {
        Error::Config(message) => Error::Config(format!("{place}: {message}")),
        error => error,
    }
}
