//! Class names of a trained model.

use std::path::Path;

use super::config::{CONFIG, RunConfig};
use super::run::run_folder;
use crate::{ModelConfig, card};

/// Class names of a model, from `config.toml` of its run or `config.json` of its card, in the folder of the
/// model's file. Empty if neither exists, or if the file describes another architecture.
pub fn class_names(model: &Path, config: &ModelConfig) -> Vec<String> {
    let folder = run_folder(model);
    match RunConfig::read(&folder.join(CONFIG)) {
        Ok(run) if run.model == *config => run.data.classes,
        Ok(_) => vec![],
        Err(_) => card::class_names(folder, config),
    }
}
