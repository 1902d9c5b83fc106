//! Changes that a resumed run may make to its configuration.
//!
//! A learning rate may turn out too large after days of training. What the weights, the optimiser's moments
//! or the order of the images depend on stays as it was.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::config::{RunConfig, override_table};
use crate::{Error, data};

/// What a resumed run does differently from now on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// The folder or file that the training images are in now.
    pub data: Option<&'a Path>,
    /// The folder or file that the test images are in now.
    pub test_data: Option<&'a Path>,
    /// Overrides `key=value` of the configuration.
    pub overrides: &'a [String],
}

impl Changes<'_> {
    /// The changed configuration, and what has changed, one sentence each.
    ///
    /// # Errors
    /// [`Error::Config`] for what is no override or cannot be changed, [`Error::Input`] for images to test on
    /// that the run had none of.
    pub fn apply(&self, before: &RunConfig) -> Result<(RunConfig, Vec<String>), Error> {
        let mut table = before.table()?;
        for text in self.overrides {
            super::config::merge(&mut table, override_table(text)?);
        }
        let mut after = RunConfig::of_table(table)?;
        // A path that is not overridden keeps its text: a resumed run has the bytes of one without a stop.
        let (old, new) = (&before.data, &mut after.data);
        for (old, new) in [(&old.path, &mut new.path), (&old.test, &mut new.test)] {
            if let Some(path) = new.as_mut().filter(|path| old.as_ref() != Some(&**path)) {
                *path = absolute(path)?;
            }
        }
        for (now, path) in [(self.data, &mut after.data.path), (self.test_data, &mut after.data.test)] {
            *path = now.map(Path::to_owned).or(path.take());
        }
        if after.data.test.is_some() && before.data.test.is_none() {
            return Err(Error::Input(
                "this run has no separate test data, and a resumed run cannot be given any: leave it out"
                    .into(),
            ));
        }
        after.validate()?;
        let notices = notices(before, &after)?;
        Ok((after, notices))
    }
}

/// A path that stays valid in other folders. The name of the built-in data stays as it is.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    if data::is_portraits(path) {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).map_err(Error::io(path))
}

/// A sentence for each value that differs, or an error if one of them must not.
fn notices(before: &RunConfig, after: &RunConfig) -> Result<Vec<String>, Error> {
    let (before, after) = (before.table()?, after.table()?);
    let mut notices = vec![];
    for (section, was) in &before {
        let (Some(was), Some(now)) = (was.as_table(), after.get(section).and_then(Value::as_table)) else {
            continue;
        };
        // A value that is not set is not in the table.
        let added = now.keys().filter(|key| !was.contains_key(*key));
        for key in was.keys().chain(added).filter(|key| was.get(*key) != now.get(*key)) {
            if let Some(reason) = fixed_by(section, key) {
                return Err(Error::Config(format!(
                    "{section}.{key} cannot be changed in a run that has begun: {reason}. Start another run for it"
                )));
            }
            let text = |table: &Table| match table.get(key) {
                None => "not set".to_owned(),
                // With an exponent if that is shorter.
                Some(Value::Float(value)) => format!("{value:?}"),
                Some(value) => value.to_string(),
            };
            notices.push(format!("{section}.{key} is {} from here on; it was {}", text(now), text(was)));
        }
    }
    Ok(notices)
}

/// The reason why a value stays the same in all of a run, if it does.
fn fixed_by(section: &str, key: &str) -> Option<&'static str> {
    match (section, key) {
        ("model", _) | ("data", "classes") => Some("the weights were made for it"),
        ("train", "batch") => Some("it decides which images each step sees"),
        ("train", "accumulate") => Some("it decides how gradients are rounded"),
        ("train", "seed") => Some("it decides the order of the images and the noise of each step"),
        ("train", "optimizer" | "muon") => Some("the moments in the checkpoint are those of this optimiser"),
        ("train", "from" | "from_fingerprint") => Some("it began with the weights of that model"),
        ("train", "precision") => Some("it decides how every step is rounded"),
        ("data", "test_fraction") => Some("images to test on would be some that it was trained on"),
        _ => None,
    }
}
