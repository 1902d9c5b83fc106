//! One thread per number; gradients use one block per column (`gaussian.cu`).

use super::FinalPriorParams;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::lengths::{holds, holds_parameters};
use crate::cuda::memory::Block;
use crate::cuda::queue::launch;
use crate::cuda::{Buffer, Cuda};
use crate::shape::Grid;

/// A copy of the final prior's parameters: mean and logs, then the contributions of classes.
pub struct FinalPrior {
    width: usize,
    classes: usize,
    values: Option<Block>,
}

impl super::FinalPrior for Cuda {
    type Prior = FinalPrior;

    fn prepare_final_prior(&self, at: &FinalPriorParams, params: &Buffer) -> FinalPrior {
        holds_parameters(params, at);
        let width = 2 * at.channels;
        let classes = at.class_weight.map_or(0, |weight| weight.len / width);
        let values = self.make_ready(|queue| {
            let block = queue.floats(width * (1 + classes))?;
            let mut to = block.address;
            for span in [Some(at.mean), Some(at.logs), at.class_weight].into_iter().flatten() {
                queue.stream.copy(params.at(span.start), to, 4 * span.len)?;
                to += 4 * span.len as u64;
            }
            Ok(block)
        });
        FinalPrior { width, classes, values }
    }

    fn final_prior(&self, top: &FinalPrior, grid: Grid, labels: &Buffer, prior: &mut Buffer) {
        if top.classes > 0 {
            holds("labels", labels, prior.len().div_ceil(top.width * grid.pixels()));
        }
        let Some(values) = &top.values else { return };
        self.attempt(|queue| {
            let class_weight = values.address + 4 * top.width as u64;
            launch!(
                queue, queue.kernels().final_prior, Launch::of(prior.len());
                prior.len(), grid.pixels(), top.width, top.classes, values.address, class_weight,
                labels.address(), prior.address()
            )
        });
    }

    fn final_prior_backward(
        &self,
        at: &FinalPriorParams,
        grid: Grid,
        labels: &Buffer,
        d_prior: &Buffer,
        gradient: &mut Buffer,
    ) {
        holds_parameters(gradient, at);
        holds("d_prior", d_prior, grid.rows() * 2 * at.channels);
        if at.class_weight.is_some() {
            holds("labels", labels, grid.batch);
        }
        self.attempt(|queue| {
            let width = 2 * at.channels;
            let (classes, d_class_weight) =
                at.class_weight.map_or((0, 0), |span| (span.len / width, gradient.at(span.start)));
            launch!(
                queue, queue.kernels().final_prior_backward, Launch::blocks(width);
                grid.batch, grid.pixels(), width, classes, labels.address(), d_prior.address(),
                gradient.at(at.mean.start), gradient.at(at.logs.start), d_class_weight
            )
        });
    }
}
