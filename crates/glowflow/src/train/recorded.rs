//! Evaluations in a run's log.

use std::path::Path;

use glowflow_report::metrics;

use super::folder::{BEST, METRICS};
use super::state::Progress;
use crate::Error;
use crate::card::Card;

/// Step and bits/dim of the last evaluation in a run's log, up to the step `up_to`. The bits/dim are `None`
/// if they were not finite.
pub fn last_recorded(run: &Path, up_to: u64) -> Result<Option<(u64, Option<f64>)>, Error> {
    Ok(evaluations(run)?.into_iter().rev().find(|&(step, _)| step <= up_to))
}

/// Step and bits/dim of each evaluation in a run's log, as of [`last_recorded`].
fn evaluations(run: &Path) -> Result<Vec<(u64, Option<f64>)>, Error> {
    let records = metrics::read(&run.join(METRICS))?;
    let evaluations = records.iter().filter_map(|record| {
        let bits = record.get("test_bits_per_dim")?.as_f64();
        Some((record.get("step")?.as_u64()?, bits))
    });
    Ok(evaluations.collect())
}

/// Accepts the best model of steps that followed the checkpoint, and returns a notice about it. A run with
/// changes does not repeat these steps, and would replace their model by a worse one.
pub(super) fn keep_best(run: &Path, progress: &mut Progress) -> Option<String> {
    let (step, bits) = best_recorded(run).filter(|_| run.join(BEST).exists())?;
    let better = step > progress.step && progress.best.is_none_or(|(best, _)| bits < best);
    better.then(|| {
        progress.best = Some((bits, step));
        format!(
            "{BEST} is the model of step {step}, with {bits:.3} bits/dim, and stays until another is better"
        )
    })
}

/// Step and bits/dim of the evaluation of a run's best model; `None` if there is none.
pub(super) fn best_recorded(run: &Path) -> Option<(u64, f64)> {
    let logged = evaluations(run).unwrap_or_default().into_iter();
    let finite = logged.filter_map(|(step, bits)| Some((step, bits?)));
    // The card still knows it if an earlier attempt ended before its first checkpoint.
    let on_card = Card::read(run).and_then(|card| card.best).map(|best| (best.step, best.bits_per_dim));
    // Of equal ones, the first, whose model was written.
    finite.chain(on_card).min_by(|(_, a), (_, b)| a.total_cmp(b))
}
