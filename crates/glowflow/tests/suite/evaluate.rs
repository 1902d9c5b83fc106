//! Scores of datasets.

use std::sync::Arc;

use crate::common::{glow, model_file};
use glowflow::evaluate::{Inversion, evaluate, score};
use glowflow::{Draws, Error, GlowConfig, Model};
use glowflow_data::portraits::Portraits;
use glowflow_data::{Dataset, Subset};
use ndarray::Array4;

/// Scores of copies of one image: two batches of 64, the number scored at once.
fn scores(draws: u64, seed: u64) -> Vec<f64> {
    let config = GlowConfig { image: [32, 32, 3], levels: 1, steps: 1, hidden: 4, ..GlowConfig::default() };
    let glow = Model::new(config, 0).unwrap();
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
fn every_batch_draw_and_seed_has_different_noise() {
    let runs = [scores(1, 0), scores(1, 1)];
    assert_eq!(runs[0], scores(1, 0), "equal seeds give equal noise");
    let batches: Vec<&[f64]> = runs.iter().flat_map(|run| run.chunks(64)).collect();
    for (i, batch) in batches.iter().enumerate() {
        assert!(!batches[..i].contains(batch), "batch {} of seed {} has the noise of another", i % 2, i / 2);
    }
    assert_ne!(scores(2, 0), runs[0], "the second draw is the first again");
}

fn portraits(count: usize) -> Arc<dyn Dataset> {
    Arc::new(Portraits::new(count, 32, 0))
}

#[test]
fn exactness_is_counted_over_the_images_that_are_named() {
    let evaluated = |glow: &Model, images, seed| {
        evaluate(glow, &portraits(150), Draws::Midpoint, Inversion { images, seed }, |_| Ok(())).unwrap()
    };
    let sound = glow(&model_file(0.05));
    let all = evaluated(&sound, usize::MAX, 0);
    assert_eq!((all.images, all.inverted, all.exact), (150, 150, 150));
    assert!(all.inverse_error < 0.5 / 256.0);
    let part = evaluated(&sound, 70, 0);
    assert_eq!((part.images, part.inverted, part.exact), (150, 70, 70));
    assert_eq!(part.bits_per_dim, all.bits_per_dim);
    assert!(part.inverse_error <= all.inverse_error && part.inverse_error > 0.0);
    assert_eq!(evaluated(&sound, 70, 0).inverse_error, part.inverse_error, "the seed decides on the images");

    let poor = evaluated(&glow(&model_file(3.0)), usize::MAX, 0);
    assert!(
        poor.exact < 150 && (poor.inverse_error > 0.5 / 256.0 || poor.inverse_error.is_nan()),
        "{poor:?}"
    );
}

#[test]
fn an_evaluation_is_stopped_between_batches() {
    let glow = glow(&model_file(0.05));
    let inversion = Inversion { images: usize::MAX, seed: 0 };
    // Three batches are scored, then three are inverted.
    for stop_after in 1..=6 {
        let mut done = vec![];
        let result = evaluate(&glow, &portraits(150), Draws::Midpoint, inversion, |count| {
            done.push(count);
            if done.len() == stop_after { Err(Error::Stopped) } else { Ok(()) }
        });
        assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
        assert_eq!(done, [64, 64, 22, 64, 64, 22][..stop_after]);
    }
}

#[test]
fn one_image_has_no_standard_error() {
    let evaluated = |images| {
        let inversion = Inversion { images: 0, seed: 0 };
        evaluate(&glow(&model_file(0.05)), &portraits(images), Draws::Midpoint, inversion, |_| Ok(()))
            .unwrap()
    };
    assert!(evaluated(1).bits_per_dim.is_finite() && evaluated(1).standard_error.is_nan());
    assert!(evaluated(2).standard_error > 0.0);
}

/// NaN results are distinguished from numbers.
#[test]
fn images_without_a_finite_score_are_named() {
    let mut file = model_file(0.05);
    file.weights.fill(100.0);
    let overflowing = glow(&file);
    let inversion = Inversion { images: 3, seed: 0 };
    let evaluation = evaluate(&overflowing, &portraits(5), Draws::Midpoint, inversion, |_| Ok(())).unwrap();
    assert_eq!(evaluation.not_finite.len(), 5);
    assert_eq!((evaluation.inverted, evaluation.exact), (3, 0));
    score(&overflowing, &portraits(2), Draws::Midpoint, None, |score| {
        assert!(!score.is_finite());
        Ok(())
    })
    .unwrap();
}

/// Two chunks, each with its own noise.
#[test]
fn bits_per_dim_is_the_score_of_a_dataset() {
    let glow = glow(&model_file(0.05));
    let dataset = portraits(70);
    let draws = Draws::Uniform { draws: 3, seed: 5 };
    let mut expected = vec![];
    score(&glow, &dataset, draws, None, |score| {
        assert_eq!((score.dequantization, score.draws), ("uniform", 3));
        expected.push(score.bits_per_dim);
        Ok(())
    })
    .unwrap();
    let mut pixels = vec![0; 70 * 32 * 32 * 3];
    for (index, image) in pixels.chunks_mut(32 * 32 * 3).enumerate() {
        dataset.read(index, image).unwrap();
    }
    let pixels = Array4::from_shape_vec((70, 32, 32, 3), pixels).unwrap();
    assert_eq!(glow.bits_per_dim(pixels.view(), &[], draws).unwrap(), expected);
    assert_ne!(
        glow.bits_per_dim(pixels.view(), &[], Draws::Uniform { draws: 3, seed: 6 }).unwrap(),
        expected
    );
    assert!(glow.bits_per_dim(pixels.view(), &[0], draws).is_err(), "the model has no classes");
}

/// A Gaussian's log-density is concave: at the centre of a bin it exceeds its mean over the bin.
#[test]
fn the_midpoint_is_not_the_bound() {
    let mut file = model_file(0.0);
    // The final prior's standard deviation is a fiftieth of a bin.
    let narrow = (1.0f32 / 256.0 / 50.0).ln();
    for parameter in &file.layout().parameters {
        if parameter.name == "prior.logs" {
            file.weights[parameter.span.range()].fill(narrow);
        }
    }
    let glow = glow(&file);
    let pixels = Array4::from_elem((1, 32, 32, 3), 128);
    let bits = |draws| glow.bits_per_dim(pixels.view(), &[], draws).unwrap()[0];
    assert!(bits(Draws::Midpoint) < bits(Draws::Uniform { draws: 4, seed: 0 }));
}
