//! Weights of a model that has not seen any data.
//!
//! Inner convolutions are drawn from N(0, 0.05²), 1×1 convolutions are random rotations, everything else is 0.
//! Every tensor has a random stream of its own, named by its place, so that weights depend on the seed alone.

use glowflow_kernels::Stream;
use nalgebra::{DMatrix, DVector};

use super::layout::{FixedPermutation, Layout, build, step_name};
use crate::models::{ModelConfig, PermutationType};
use crate::random;

/// What a new model is made of.
pub struct Initial {
    /// The fixed parts of the permutations, one a step.
    pub permutations: Vec<FixedPermutation>,
    /// The flat buffer.
    pub weights: Vec<f32>,
}

/// Draws the weights of a new model.
pub fn initial(config: &ModelConfig, seed: u64) -> Initial {
    let ModelConfig::Glow(glow) = config;
    let mut permutations = vec![];
    let mut factors = vec![];
    for level in 0..glow.levels {
        for step in 0..glow.steps {
            let stream = Stream { seed, id: random::PERMUTATION + (level * glow.steps + step) as u64 };
            let n = glow.level_channels(level);
            match glow.permutation {
                PermutationType::Conv1x1 => {
                    let lu = random_rotation(stream, n);
                    permutations.push(lu.fixed);
                    let name = step_name(level, step);
                    factors.push((format!("{name}.permutation.lower"), lu.lower));
                    factors.push((format!("{name}.permutation.upper"), lu.upper));
                    factors.push((format!("{name}.permutation.log_s"), lu.log_s));
                }
                PermutationType::Shuffle => permutations.push(fixed(shuffled(stream, n))),
                PermutationType::Reverse => permutations.push(fixed((0..n).rev().collect())),
            }
        }
    }

    let (layout, _): (Layout, _) = build::<glowflow_kernels::Cpu<f32>>(config, &permutations);
    let mut weights = vec![0.0; layout.len()];
    let mut factors = factors.into_iter();
    for (i, parameter) in layout.parameters.iter().enumerate() {
        let weights = &mut weights[parameter.span.range()];
        if parameter.name.ends_with(".conv1.weight") || parameter.name.ends_with(".conv2.weight") {
            let stream = Stream { seed, id: random::WEIGHTS + i as u64 };
            for (block, four) in weights.chunks_mut(4).enumerate() {
                let numbers = stream.normal(block as u64);
                four.iter_mut().zip(numbers).for_each(|(w, x)| *w = (0.05 * x) as f32);
            }
        } else if parameter.name.contains(".permutation.") {
            // The factors were pushed in the order in which the layout names them.
            if let Some((name, values)) = factors.next() {
                debug_assert_eq!(name, parameter.name);
                weights.copy_from_slice(&values);
            }
        }
    }
    Initial { permutations, weights }
}

fn fixed(index: Vec<usize>) -> FixedPermutation {
    FixedPermutation { index, sign: vec![] }
}

/// A random permutation, by sorting random numbers.
fn shuffled(stream: Stream, n: usize) -> Vec<usize> {
    let mut index: Vec<usize> = (0..n).collect();
    index.sort_by_cached_key(|&i| (stream.block(i as u64)[0], i));
    index
}

struct Lu {
    fixed: FixedPermutation,
    lower: Vec<f32>,
    upper: Vec<f32>,
    log_s: Vec<f32>,
}

/// The LU form `P·L·(U + diag(sign ⊙ exp(log_s)))` of a random rotation, the Q of a Gaussian matrix.
fn random_rotation(stream: Stream, n: usize) -> Lu {
    let gaussian = DMatrix::from_fn(n, n, |i, j| stream.normal((i * n + j) as u64)[0]);
    let lu = gaussian.qr().q().lu();
    // Row i of L·U is row taken[i] of the rotation; P undoes that.
    let mut taken = DVector::from_fn(n, |i, _| i);
    lu.p().permute_rows(&mut taken);
    let mut index = vec![0; n];
    taken.iter().enumerate().for_each(|(i, &row)| index[row] = i);
    let (l, u) = (lu.l(), lu.u());
    let part = |matrix: &DMatrix<f64>, read: fn(usize, usize) -> bool| {
        (0..n * n)
            .map(|at| (at / n, at % n))
            .map(|(i, j)| if read(i, j) { matrix[(i, j)] as f32 } else { 0.0 })
            .collect()
    };
    Lu {
        fixed: FixedPermutation { index, sign: (0..n).map(|i| u[(i, i)].signum()).collect() },
        lower: part(&l, |i, j| i > j),
        upper: part(&u, |i, j| i < j),
        log_s: (0..n).map(|i| u[(i, i)].abs().ln() as f32).collect(),
    }
}
