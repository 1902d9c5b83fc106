//! The optimiser step, in one pass over weights, gradient, moments and average.

use rayon::prelude::*;

use super::Workspace;
use crate::device::{Rule, Training, Update, UpdateReport};
use crate::real::Real;

/// Elements that one task takes.
const BLOCK: usize = 1 << 14;

/// In eight sums, which the compiler can keep in vectors.
#[inline(always)]
fn sum_of_squares<T: Real>(block: &[T]) -> f64 {
    let mut sums = [0.0; 8];
    for part in block.chunks(8) {
        sums.iter_mut().zip(part).for_each(|(sum, g)| *sum += g.wide() * g.wide());
    }
    sums.iter().sum()
}

pub fn update<T: Real>(
    work: &Workspace<T>,
    update: &Update,
    logp: &[&super::Buffer<T>],
    training: Training<'_, super::Buffer<T>>,
) -> UpdateReport {
    let Training { weights, gradient, first, second, ema } = training;
    // Summed in f64 and in order: the same bits whatever the number of threads.
    let squares: Vec<f64> =
        gradient.par_chunks(BLOCK).map(|block| work.enabled(|| sum_of_squares(block))).collect();
    let gradient_norm = squares.iter().sum::<f64>().sqrt();
    let applied =
        gradient_norm.is_finite() && logp.iter().all(|logp| logp.iter().all(|logp| logp.is_finite()));
    if !applied {
        gradient.fill(T::zero());
        return UpdateReport { gradient_norm, applied };
    }

    let shrink = match update.clip {
        Some(clip) if gradient_norm > clip => clip / gradient_norm,
        _ => 1.0,
    };
    let correction1 = 1.0 - update.beta1.powf(update.count as f64);
    let correction2 = 1.0 - update.beta2.powf(update.count as f64);
    let number = T::of;
    let (shrink, beta1, beta2) = (number(shrink), number(update.beta1), number(update.beta2));
    let (rest1, rest2) = (number(1.0 - update.beta1), number(1.0 - update.beta2));
    let rate = number(update.learning_rate / correction1);
    let unbias2 = number(correction2.sqrt().recip());
    let (epsilon, decay) = (number(update.epsilon), number(update.ema_decay));
    let renew = number(1.0 - update.ema_decay);
    weights
        .par_chunks_mut(BLOCK)
        .zip(gradient.par_chunks_mut(BLOCK))
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .zip(ema.par_chunks_mut(BLOCK))
        .for_each(|((((weights, gradient), first), second), ema)| {
            // All of one length, which the compiler cannot know.
            let len = weights.len();
            let (gradient, first) = (&mut gradient[..len], &mut first[..len]);
            let (second, ema) = (&mut second[..len], &mut ema[..len]);
            work.enabled(|| {
                for i in 0..len {
                    let g = gradient[i] * shrink;
                    gradient[i] = T::zero();
                    first[i] = beta1 * first[i] + rest1 * g;
                    let denominator = match update.rule {
                        Rule::Adam => {
                            second[i] = beta2 * second[i] + rest2 * g * g;
                            second[i].sqrt() * unbias2 + epsilon
                        }
                        Rule::Adamax => {
                            second[i] = (beta2 * second[i]).max(g.abs() + epsilon);
                            second[i]
                        }
                    };
                    weights[i] -= rate * first[i] / denominator;
                    ema[i] = decay * ema[i] + renew * weights[i];
                }
            });
        });
    UpdateReport { gradient_norm, applied }
}
