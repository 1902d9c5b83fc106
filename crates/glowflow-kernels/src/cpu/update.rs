//! The optimiser step, in one pass over weights, gradient, moments and average of each segment.

use rayon::prelude::*;

use super::isa::Task;
use super::workspace::Workspace;
use super::{Buffer, Scalar};
use crate::optimizer::{Rule, Segment, Training, Update, UpdateReport};

/// Elements per task.
const BLOCK: usize = 1 << 14;

/// The sum of squares of a block.
struct SumOfSquares<'a, T>(&'a [T]);

impl<T: Scalar> Task for SumOfSquares<'_, T> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        // Independent sums that the compiler can keep in vectors.
        const SUMS: usize = 32;
        let mut sums = [0.0; SUMS];
        for part in self.0.chunks(SUMS) {
            sums.iter_mut().zip(part).for_each(|(sum, g)| *sum += g.wide() * g.wide());
        }
        sums.iter().sum()
    }
}

/// The coefficients of an [`Update`], in the type of the weights.
#[derive(Clone, Copy)]
struct Rates<T> {
    rule: Rule,
    shrink: T,
    beta1: T,
    beta2: T,
    rest1: T,
    rest2: T,
    rate: T,
    /// 1 minus learning rate times weight decay.
    keep: T,
    unbias2: T,
    epsilon: T,
    decay: T,
    renew: T,
}

/// The optimiser step for one task's share of the weights. Returns false if a new value was not finite.
struct Block<'a, T> {
    rates: Rates<T>,
    weights: &'a mut [T],
    gradient: &'a mut [T],
    first: &'a mut [T],
    second: &'a mut [T],
    ema: &'a mut [T],
}

impl<T: Scalar> Task for Block<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Self { rates, weights, gradient, first, second, ema } = self;
        // All of equal length, which the compiler cannot infer.
        let len = weights.len();
        let (gradient, first) = (&mut gradient[..len], &mut first[..len]);
        let (second, ema) = (&mut second[..len], &mut ema[..len]);
        let mut all_finite = true;
        for i in 0..len {
            let g = gradient[i] * rates.shrink;
            gradient[i] = T::zero();
            let moment = flushed(rates.beta1 * first[i] + rates.rest1 * g);
            let (spread, denominator) = match rates.rule {
                Rule::Adam => {
                    let spread = flushed(rates.beta2 * second[i] + rates.rest2 * g * g);
                    (spread, spread.sqrt() * rates.unbias2 + rates.epsilon)
                }
                Rule::Adamax => {
                    let spread = (rates.beta2 * second[i]).max(g.abs() + rates.epsilon);
                    (spread, spread)
                }
            };
            let weight = rates.keep * weights[i] - rates.rate * moment / denominator;
            let average = rates.decay * ema[i] + rates.renew * weight;
            // A non-finite first moment makes the weight non-finite, which makes the average non-finite.
            let finite = average.is_finite() & spread.is_finite();
            all_finite &= finite;
            first[i] = if finite { moment } else { first[i] };
            second[i] = if finite { spread } else { second[i] };
            weights[i] = if finite { weight } else { weights[i] };
            ema[i] = if finite { average } else { ema[i] };
        }
        all_finite
    }
}

/// Replaces a subnormal number by 0. Without gradients, as of a unit whose ReLU is never active, a moment decays to
/// the smallest one and stays there. Arithmetic with subnormal numbers takes a hundred times as long.
#[inline(always)]
fn flushed<T: Scalar>(x: T) -> T {
    if x.abs() < T::min_positive_value() { T::zero() } else { x }
}

/// Splits the segments of an array into parts of one task each.
fn cut<'a, T>(mut rest: &'a mut [T], segments: &[Segment]) -> Vec<&'a mut [T]> {
    let (mut start, mut blocks) = (0, vec![]);
    for Segment { span, .. } in segments {
        let (_, from) = rest.split_at_mut(span.start - start);
        let (segment, behind) = from.split_at_mut(span.len);
        blocks.extend(segment.chunks_mut(BLOCK));
        (rest, start) = (behind, span.start + span.len);
    }
    blocks
}

pub fn update<T: Scalar>(
    work: &Workspace<T>,
    update: &Update,
    logp: &[&Buffer<T>],
    training: Training<'_, Buffer<T>>,
    segments: &[Segment],
) -> UpdateReport {
    let Training { weights, gradient, first, second, ema } = training;
    // Summed in f64 and in order: the bits do not depend on the number of threads.
    let squares: Vec<f64> = gradient.par_chunks(BLOCK).map(|block| work.run(SumOfSquares(block))).collect();
    let gradient_norm = squares.iter().sum::<f64>().sqrt();
    let shrink = update.shrink(gradient_norm);
    // Adam squares the gradient, in the precision of the weights.
    let largest = T::of(gradient_norm * shrink);
    let fits = update.rule == Rule::Adamax || (largest * largest).is_finite();
    let applied =
        gradient_norm.is_finite() && fits && logp.iter().all(|logp| logp.iter().all(|logp| logp.is_finite()));
    Segment::check(segments, weights.len());
    if !applied {
        cut(gradient, segments).into_iter().for_each(|block| block.fill(T::zero()));
        return UpdateReport { gradient_norm, applied, all_finite: true };
    }

    let correction = |beta: f64| 1.0 - beta.powf(update.count as f64);
    let rates = Rates {
        rule: update.rule,
        shrink: T::of(shrink),
        beta1: T::of(update.beta1),
        beta2: T::of(update.beta2),
        rest1: T::of(1.0 - update.beta1),
        rest2: T::of(1.0 - update.beta2),
        rate: T::of(update.learning_rate / correction(update.beta1)),
        keep: T::one(),
        unbias2: T::of(correction(update.beta2).sqrt().recip()),
        epsilon: T::of(update.epsilon),
        decay: T::of(update.ema_decay),
        renew: T::of(1.0 - update.ema_decay),
    };
    let keeps = segments.iter().flat_map(|segment| {
        let keep = T::of(segment.keep(update.learning_rate));
        std::iter::repeat_n(keep, segment.span.len.div_ceil(BLOCK))
    });
    let all_finite = (cut(weights, segments).into_par_iter())
        .zip(cut(gradient, segments))
        .zip(cut(first, segments))
        .zip(cut(second, segments))
        .zip(cut(ema, segments))
        .zip(keeps.collect::<Vec<T>>())
        .map(|(((((weights, gradient), first), second), ema), keep)| {
            let rates = Rates { keep, ..rates };
            work.run(Block { rates, weights, gradient, first, second, ema })
        })
        // Without short-circuiting: every block is updated.
        .reduce(|| true, |a, b| a & b);
    UpdateReport { gradient_norm, applied, all_finite }
}
