//! Layers of a configuration, one table over the other: what an architecture prefers, a preset, a file, overrides.

use std::path::Path;

use super::RunConfig;
use crate::models::{Architecture, ModelConfig};
use crate::train::presets;
use crate::{Error, text_file};

/// What is wrong, and where: on a line of `text`, or at a key. Types of Rust are put into words.
pub fn wrong(error: &toml::de::Error, text: &str) -> String {
    let message = match error.span() {
        Some(span) => {
            let start = place(error.message(), text, span.start);
            let line = 1 + text.bytes().take(start).filter(|&byte| byte == b'\n').count();
            format!("line {line}: {}", error.message())
        }
        // The message and, on a line of its own, the key that it is about.
        None => error.to_string().trim().replace('\n', " "),
    };
    [
        ("expected usize", "expected a whole number"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected an array of length 3", "expected height, width and channels"),
    ]
    .iter()
    .fold(message, |message, (from, to)| message.replace(from, to))
}

/// Place of an error that was found at `start`: of the unknown key, where only its section is known.
fn place(message: &str, text: &str, start: usize) -> usize {
    let key = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let found = key.and_then(|key| text.get(start..)?.find(key));
    start + found.unwrap_or(0)
}

/// Puts the preset, the file and the overrides `key=value` over `table`, in this order.
pub(super) fn merge_layers(
    table: &mut toml::Table,
    preset: Option<&str>,
    file: Option<&Path>,
    overrides: &[String],
) -> Result<(), Error> {
    if let Some(name) = preset {
        merge(table, presets::preset(name)?);
    }
    if let Some(path) = file {
        let text = text_file::read(path)?;
        let wrong = |e| Error::Config(format!("{}: {}", path.display(), wrong(&e, &text)));
        // By itself first: what is wrong with it is then found on a line of this file.
        let parsed: toml::Table = text.parse().map_err(wrong)?;
        // In a table the architecture comes first, in a text perhaps later.
        toml::from_str::<RunConfig>(&text)
            .map(drop)
            .or_else(|error| RunConfig::of_table(parsed.clone()).map(drop).map_err(|_| wrong(error)))?;
        merge(table, parsed);
    }
    for text in overrides {
        merge(table, override_table(text)?);
    }
    Ok(())
}

/// Puts a new run's settings over those that its architecture prefers. What is wrong with them is for the caller to
/// find.
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

/// Puts `from` over `into`, section by section.
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

/// The table that `section.key=value` stands for. A value that is no TOML is a string.
pub fn override_table(text: &str) -> Result<toml::Table, Error> {
    let wrong = || {
        Error::Config(format!(
            "{text:?} is no override; write it as section.key=value, such as model.steps=8"
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
