//! Scores of datasets.

use std::sync::Arc;

use glowflow::evaluate::{Draws, score};
use glowflow::{Glow, ModelConfig};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, Subset};

/// Scores of one picture, over and over: two batches of 64, as many as are scored at once.
fn scores(draws: u64, seed: u64) -> Vec<f64> {
    let config = ModelConfig { image: [32, 32, 3], levels: 1, steps: 1, hidden: 4, ..ModelConfig::default() };
    let glow = Glow::new(config, 0).unwrap();
    let portraits: Arc<dyn Dataset> = Arc::new(Portraits::new(1, 32, 0));
    let dataset: Arc<dyn Dataset> = Arc::new(Subset::new(portraits, vec![0; 128]));
    let mut scores = vec![];
    score(&glow, &dataset, Draws::Uniform { draws, seed }, None, |score| {
        scores.push(score.log_likelihood);
        Ok(())
    })
    .unwrap();
    scores
}

#[test]
fn every_batch_draw_and_seed_has_noise_of_its_own() {
    let runs = [scores(1, 0), scores(1, 1)];
    assert_eq!(runs[0], scores(1, 0), "equal seeds give equal noise");
    let batches: Vec<&[f64]> = runs.iter().flat_map(|run| run.chunks(64)).collect();
    for (i, batch) in batches.iter().enumerate() {
        assert!(!batches[..i].contains(batch), "batch {} of seed {} has the noise of another", i % 2, i / 2);
    }
    assert_ne!(scores(2, 0), runs[0], "the second draw is the first again");
}
