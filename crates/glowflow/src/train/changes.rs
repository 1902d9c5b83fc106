//! Changes that a resumed run may make to its configuration.
//!
//! A learning rate may turn out too large after days of training. Settings tied to the existing weights and
//! moments, to the order of the images, or to the rounding of steps cannot change.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::config::{RunConfig, override_table};
use crate::{Error, data};

/// Changes from the resumed step on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changes<'a> {
    /// The new location of the training images, a folder or file.
    pub data: Option<&'a Path>,
    /// The new location of the test images, a folder or file.
    pub test_data: Option<&'a Path>,
    /// Overrides `key=value` of the configuration.
    pub overrides: &'a [String],
}

impl Changes<'_> {
    /// Returns the changed configuration, and the changes, one sentence each.
    ///
    /// # Errors
    /// [`Error::Config`] for an invalid override or a value that cannot be changed, [`Error::Input`] for test
    /// images if the run had none.
    pub fn apply(&self, before: &RunConfig) -> Result<(RunConfig, Vec<String>), Error> {
        let mut table = before.table()?;
        for text in self.overrides {
            super::config::merge(&mut table, override_table(text)?);
        }
        let mut after = RunConfig::of_table(table)?;
        // Paths without an override keep their text, so that a resumed run has the same bytes as one that was
        // never stopped.
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
                "this run has no separate test data, and none can be added to a resumed run: omit it".into(),
            ));
        }
        after.validate()?;
        let notices = notices(before, &after)?;
        Ok((after, notices))
    }
}

/// Makes a path valid from other working directories. The name of the built-in data is unchanged.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    if data::is_portraits(path) {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).map_err(Error::io(path))
}

/// Returns a sentence for each value that differs, or an error if one of them cannot change.
fn notices(before: &RunConfig, after: &RunConfig) -> Result<Vec<String>, Error> {
    let (before, after) = (before.table()?, after.table()?);
    let mut notices = vec![];
    for (section, was) in &before {
        let (Some(was), Some(now)) = (was.as_table(), after.get(section).and_then(Value::as_table)) else {
            continue;
        };
        // Unset values are missing from the table.
        let added = now.keys().filter(|key| !was.contains_key(*key));
        for key in was.keys().chain(added).filter(|key| was.get(*key) != now.get(*key)) {
            if let Some(reason) = fixed_by(section, key) {
                return Err(Error::Config(format!(
                    "{section}.{key} cannot be changed during a run: {reason}. Start another run instead"
                )));
            }
            let text = |table: &Table| match table.get(key) {
                None => "not set".to_owned(),
                // Formats with an exponent if that is shorter.
                Some(Value::Float(value)) => format!("{value:?}"),
                Some(value) => value.to_string(),
            };
            notices.push(format!("{section}.{key} is {} from here on; it was {}", text(now), text(was)));
        }
    }
    Ok(notices)
}

/// The reason why a value cannot change during a run; `None` if it can.
fn fixed_by(section: &str, key: &str) -> Option<&'static str> {
    match (section, key) {
        ("model", _) | ("data", "classes") => Some("the weights depend on it"),
        ("train", "batch") => Some("it determines which images each step sees"),
        ("train", "accumulate") => Some("it determines how gradients are rounded"),
        ("train", "seed") => Some("it determines the order of the images and the noise of each step"),
        ("train", "optimizer" | "muon") => Some("the moments in the checkpoint are those of this optimiser"),
        ("train", "from" | "from_fingerprint") => Some("the run started from the weights of that model"),
        ("train", "precision") => Some("it determines how every step is rounded"),
        ("data", "test_fraction" | "test_seed") => {
            Some("test images would include some that the model was trained on")
        }
        _ => None,
    }
}
