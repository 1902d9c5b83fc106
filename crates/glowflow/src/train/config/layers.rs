//! Merges the layers of a configuration: defaults of an architecture, preset, file, overrides.

use std::path::Path;

use super::RunConfig;
use crate::models::{Architecture, ModelConfig};
use crate::train::presets;
use crate::{Error, text_file};

/// Formats a TOML error with its location: a line of `text`, or a key. Names of Rust types are replaced by
/// words.
pub fn wrong(error: &toml::de::Error, text: &str) -> String {
    let message = match error.span() {
        Some(span) => {
            let start = place(error.message(), text, span.start);
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            format!("line {line}: {}", error.message())
        }
        // The message, and the key that it refers to on a separate line.
        None => error.to_string().trim().replace('\n', " "),
    };
    [
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected an array of length 3", "expected height, width and channels"),
        ("expected one of `image`, `bits`,", "expected one of `architecture`, `image`, `bits`,"),
    ]
    .iter()
    .fold(message, |message, (from, to)| message.replace(from, to))
}

/// Position of an error reported at `start`: that of the unknown key, if only its section was reported.
fn place(message: &str, text: &str, start: usize) -> usize {
    let key = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let found = key.and_then(|key| text.get(start..)?.find(key));
    start + found.unwrap_or(0)
}

/// Merges the preset, the file and the overrides `key=value` into `table`, in this order.
pub(super) fn merge_layers(
    table: &mut toml::Table,
    preset: Option<&str>,
    file: Option<&Path>,
    overrides: &[String],
) -> Result<(), Error> {
    let mut set = toml::Table::new();
    if let Some(path) = file {
        let text = text_file::read(path)?;
        let wrong = |e| Error::Config(format!("{}: {}", path.display(), wrong(&e, &text)));
        // Parsed separately first, so that errors have line numbers of this file.
        let parsed: toml::Table = text.parse().map_err(wrong)?;
        // In a table the architecture comes first, in the text perhaps later.
        toml::from_str::<RunConfig>(&text)
            .map(drop)
            .or_else(|error| RunConfig::of_table(parsed.clone()).map(drop).map_err(|_| wrong(error)))?;
        merge(&mut set, parsed);
    }
    for text in overrides {
        merge(&mut set, override_table(text)?);
    }
    merge(table, with_preset(preset, set)?);
    Ok(())
}

/// Merges settings into those of a preset. A preset's scale applies to its affine couplings: settings with other
/// couplings remove it.
pub fn with_preset(preset: Option<&str>, set: toml::Table) -> Result<toml::Table, Error> {
    let mut table = preset.map(presets::preset).transpose()?.unwrap_or_default();
    let architecture = |table: &toml::Table| {
        let named =
            table.get("model").and_then(|model| model.get("architecture")).and_then(|name| name.as_str());
        named.unwrap_or("glow").to_owned()
    };
    let own = set.get("model").is_some_and(|model| model.get("architecture").is_some());
    if let (Some(preset), true) = (preset, own)
        && architecture(&table) != architecture(&set)
    {
        return Err(Error::Config(format!(
            "model.architecture is {}, and the preset {preset} is for {}: choose another preset, or none",
            architecture(&set),
            architecture(&table)
        )));
    }
    let coupling = set.get("model").and_then(|model| model.get("coupling"));
    if coupling.is_some_and(|coupling| coupling.as_str() != Some("affine"))
        && let Some(toml::Value::Table(model)) = table.get_mut("model")
    {
        model.remove("scale");
    }
    merge(&mut table, set);
    Ok(table)
}

/// Merges a new run's settings into the defaults of its architecture. The caller validates the result.
pub(super) fn with_defaults(mut table: toml::Table) -> toml::Table {
    let model = table.get("model").cloned().unwrap_or_else(|| toml::Table::new().into());
    let Ok(model) = model.try_into::<ModelConfig>() else { return table };
    let Ok(mut train) = toml::Table::try_from(model.train_defaults()) else { return table };
    match table.remove("train") {
        Some(toml::Value::Table(set)) => merge(&mut train, set),
        Some(other) => {
            table.insert("train".into(), other);
            return table;
        }
        None => {}
    }
    table.insert("train".into(), train.into());
    table
}

/// Merges `from` into `into`, section by section.
pub fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// Parses `section.key=value` as a table. A value that is not valid TOML is a string.
pub fn override_table(text: &str) -> Result<toml::Table, Error> {
    let wrong = || {
        Error::Config(format!(
            "invalid override {text:?}: write it as section.key=value, such as model.steps=8"
        ))
    };
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    let (section, key) = path.trim().split_once('.').ok_or_else(wrong)?;
    let value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.trim().to_owned()));
    let section_table = toml::Table::from_iter([(key.to_owned(), value)]);
    Ok(toml::Table::from_iter([(section.to_owned(), section_table.into())]))
}
