//! Amount of training of a run so far, from its last checkpoint, log and configuration.

use std::path::Path;

use glowflow_report::metrics;

use super::checkpoint;
use super::config::{CONFIG, RunConfig};
use super::folder::METRICS;
use crate::card::Card;

/// Amount of training of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trained {
    /// Number of steps up to the last checkpoint or, without one, up to the last record of the log.
    pub steps: u64,
    /// Number of images in all steps, counting repetitions.
    pub images: u64,
}

impl Trained {
    fn of(steps: u64, batch: usize) -> Self {
        Self { steps, images: steps.saturating_mul(batch as u64) }
    }
}

/// Training of the run in a folder, or of the model that a card in it describes; `None` if there is none, or
/// its files cannot be read.
pub fn trained(run: &Path) -> Option<Trained> {
    let Some(steps) = checkpoint::last_step(run).or_else(|| last_recorded_step(run)) else {
        let card = Card::read(run)?.training;
        return (card.steps > 0).then(|| Trained::of(card.steps, card.batch));
    };
    let train = RunConfig::read(&run.join(CONFIG)).ok()?.train;
    Some(Trained::of(steps, train.batch))
}

fn last_recorded_step(run: &Path) -> Option<u64> {
    let records = metrics::read(&run.join(METRICS)).ok()?;
    records.iter().rev().find_map(|record| record.get("step")?.as_u64())
}
