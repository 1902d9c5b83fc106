//! The optimiser step, in one pass over weights, gradient, moments and average.

use rayon::prelude::*;

use super::Workspace;
use super::isa::Task;
use crate::device::{Rule, Training, Update, UpdateReport};
use crate::real::Real;

/// Elements that one task takes.
const BLOCK: usize = 1 << 14;

/// The sum of a block's squares.
struct SumOfSquares<'a, T>(&'a [T]);

impl<T: Real> Task for SumOfSquares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        // In so many sums, which the compiler can keep in vectors.
        const SUMS: usize = 32;
        let mut sums = [0.0; SUMS];
        for part in self.0.chunks(SUMS) {
            sums.iter_mut().zip(part).for_each(|(sum, g)| *sum += g.wide() * g.wide());
        }
        sums.iter().sum()
    }
}

/// What [`Update`] says, in the numbers of the weights.
#[derive(Clone, Copy)]
struct Rates<T> {
    rule: Rule,
    shrink: T,
    beta1: T,
    beta2: T,
    rest1: T,
    rest2: T,
    rate: T,
    unbias2: T,
    epsilon: T,
    decay: T,
    renew: T,
}

/// The optimiser's step for as many weights as one task takes.
struct Block<'a, T> {
    rates: Rates<T>,
    weights: &'a mut [T],
    gradient: &'a mut [T],
    first: &'a mut [T],
    second: &'a mut [T],
    ema: &'a mut [T],
}

impl<T: Real> Task for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { rates, weights, gradient, first, second, ema } = self;
        // All of one length, which the compiler cannot know.
        let len = weights.len();
        let (gradient, first) = (&mut gradient[..len], &mut first[..len]);
        let (second, ema) = (&mut second[..len], &mut ema[..len]);
        for i in 0..len {
            let g = gradient[i] * rates.shrink;
            gradient[i] = T::zero();
            first[i] = rates.beta1 * first[i] + rates.rest1 * g;
            let denominator = match rates.rule {
                Rule::Adam => {
                    second[i] = rates.beta2 * second[i] + rates.rest2 * g * g;
                    second[i].sqrt() * rates.unbias2 + rates.epsilon
                }
                Rule::Adamax => {
                    second[i] = (rates.beta2 * second[i]).max(g.abs() + rates.epsilon);
                    second[i]
                }
            };
            weights[i] -= rates.rate * first[i] / denominator;
            ema[i] = rates.decay * ema[i] + rates.renew * weights[i];
        }
    }
}

pub fn update<T: Real>(
    work: &Workspace<T>,
    update: &Update,
    logp: &[&super::Buffer<T>],
    training: Training<'_, super::Buffer<T>>,
) -> UpdateReport {
    let Training { weights, gradient, first, second, ema } = training;
    // Summed in f64 and in order: the same bits whatever the number of threads.
    let squares: Vec<f64> = gradient.par_chunks(BLOCK).map(|block| work.run(SumOfSquares(block))).collect();
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
    let correction = |beta: f64| 1.0 - beta.powf(update.count as f64);
    let rates = Rates {
        rule: update.rule,
        shrink: T::of(shrink),
        beta1: T::of(update.beta1),
        beta2: T::of(update.beta2),
        rest1: T::of(1.0 - update.beta1),
        rest2: T::of(1.0 - update.beta2),
        rate: T::of(update.learning_rate / correction(update.beta1)),
        unbias2: T::of(correction(update.beta2).sqrt().recip()),
        epsilon: T::of(update.epsilon),
        decay: T::of(update.ema_decay),
        renew: T::of(1.0 - update.ema_decay),
    };
    weights
        .par_chunks_mut(BLOCK)
        .zip(gradient.par_chunks_mut(BLOCK))
        .zip(first.par_chunks_mut(BLOCK))
        .zip(second.par_chunks_mut(BLOCK))
        .zip(ema.par_chunks_mut(BLOCK))
        .for_each(|((((weights, gradient), first), second), ema)| {
            work.run(Block { rates, weights, gradient, first, second, ema });
        });
    UpdateReport { gradient_norm, applied }
}
