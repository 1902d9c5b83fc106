//! Image by image.

use super::FinalPriorParams;
use crate::cpu::conv::column_sums;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::shape::Grid;

/// The final prior.
pub struct FinalPrior<T> {
    /// Mean and log standard deviation, `[2·channels]`.
    base: Vec<T>,
    /// Contribution of each class, `[classes, 2·channels]`.
    class_weight: Vec<T>,
}

impl<T: Scalar> FinalPrior<T> {
    fn prepare(at: &FinalPriorParams, params: &[T]) -> Self {
        let class_weight = at.class_weight.map_or(vec![], |span| params[span.range()].to_vec());
        Self { base: [&params[at.mean.range()], &params[at.logs.range()]].concat(), class_weight }
    }

    /// Mean and log standard deviation at every pixel.
    fn run(&self, grid: Grid, labels: &[T], prior: &mut [T]) {
        let width = self.base.len();
        for (b, prior) in prior.chunks_exact_mut(grid.pixels() * width).enumerate() {
            let mut row = self.base.clone();
            if !self.class_weight.is_empty() {
                let weight = &self.class_weight[class(labels, b) * width..][..width];
                row.iter_mut().zip(weight).for_each(|(row, &weight)| *row += weight);
            }
            prior.chunks_exact_mut(width).for_each(|prior| prior.copy_from_slice(&row));
        }
    }
}

/// The class of an image.
fn class<T: Scalar>(labels: &[T], image: usize) -> usize {
    labels[image].wide() as usize
}

/// Adds the gradient of the final prior's parameters.
fn backward<T: Scalar>(at: &FinalPriorParams, grid: Grid, labels: &[T], d_prior: &[T], gradient: &mut [T]) {
    let width = 2 * at.channels;
    for (b, d_prior) in d_prior.chunks_exact(grid.pixels() * width).enumerate() {
        let sums = column_sums(width, d_prior);
        let (d_mean, d_logs) = sums.split_at(at.channels);
        let add = |to: &mut [T], values: &[T]| {
            to.iter_mut().zip(values).for_each(|(to, &value)| *to += value);
        };
        add(&mut gradient[at.mean.range()], d_mean);
        add(&mut gradient[at.logs.range()], d_logs);
        if let Some(weight) = at.class_weight {
            add(&mut gradient[weight.range()][class(labels, b) * width..][..width], &sums);
        }
    }
}

impl<T: Scalar> super::FinalPrior for Cpu<T> {
    type Prior = FinalPrior<T>;

    fn prepare_final_prior(&self, at: &FinalPriorParams, params: &Buffer<T>) -> FinalPrior<T> {
        FinalPrior::prepare(at, params)
    }

    fn final_prior(&self, top: &FinalPrior<T>, grid: Grid, labels: &Buffer<T>, prior: &mut Buffer<T>) {
        top.run(grid, labels, prior);
    }

    fn final_prior_backward(
        &self,
        at: &FinalPriorParams,
        grid: Grid,
        labels: &Buffer<T>,
        d_prior: &Buffer<T>,
        gradient: &mut Buffer<T>,
    ) {
        backward(at, grid, labels, d_prior, gradient);
    }
}
