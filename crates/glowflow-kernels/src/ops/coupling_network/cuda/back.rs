//! The backward pass of a coupling network.
//!
//! ```text
//! dcontributions = nine shifted copies of do          dW3 = dcontributionsᵀ · h2
//! dh2            = dcontributions · W3  where h2 > 0   dW2 = dh2ᵀ · h1
//! dh1            = dh2 · W2             where h1 > 0   dW1 = dh1ᵀ · patches
//! dx            += shifted copies of dh1 · W1
//! ```
//!
//! Weight and bias gradients are sums over all parts of a batch, and are computed on side streams while the
//! main stream continues with the left column.

use std::sync::Arc;

use super::fused::{FusedNetwork, HiddenAddresses, Matrices, Pass};
use super::hidden::HiddenLayer;
use super::weights::Weights;
use crate::cuda::divisor::{Divisor, Plane};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::memory::{Block, Buffer, at};
use crate::cuda::parts::{Part, parts};
use crate::cuda::patches::{edge_sums, groups};
use crate::cuda::product::{Element, Kind, Product, operands};
use crate::cuda::queue::{Lane, Queue, launch};
use crate::device::DeviceError;
use crate::ops::NetworkParams;
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// Hidden activations, `[rows, width2]` each, after their ReLUs; and for each part of the batch its patches,
/// and the masks of non-zero activations, if the products computed them.
pub struct Hidden {
    pub(super) weights: Arc<Weights>,
    pub(super) grid: Grid,
    pub(super) h: [Arc<Block>; 2],
    pub(super) parts: Vec<SavedPart>,
}

pub(super) struct SavedPart {
    pub(super) patches: Arc<Block>,
    pub(super) masks: [Option<Block>; 2],
}

/// Accumulators over the parts of a batch.
struct Totals {
    /// Gradients of the folded weights of all three layers, in `f32`.
    by_weight: [Block; 3],
    /// Partial sums of the pre-activation gradients of both hidden layers, `[slabs, width2]`, for the bias
    /// gradients.
    sums: [Block; 2],
    /// Number of partial sums per part, for each layer.
    slabs: Vec<[usize; 2]>,
}

impl Totals {
    fn new(queue: &Queue, hidden: &Hidden) -> Result<Self> {
        let Weights { width1, width2, width3, .. } = *hidden.weights;
        let slabs: Vec<_> = parts(queue, hidden.grid)
            .enumerate()
            .map(|(index, part)| [1, 2].map(|layer| hidden.slabs(queue, layer, index, &part)))
            .collect();
        let totals = |layer: usize| slabs.iter().map(|of_part| of_part[layer - 1]).sum::<usize>() * width2;
        Ok(Self {
            by_weight: [
                queue.floats(width1 * width2)?,
                queue.floats(width2 * width2)?,
                queue.floats(width3 * width2)?,
            ],
            sums: [queue.floats(totals(1))?, queue.floats(totals(2))?],
            slabs,
        })
    }

    /// Number of partial sums for each layer.
    fn count(&self) -> [usize; 2] {
        [0, 1].map(|layer| self.slabs.iter().map(|of_part| of_part[layer]).sum())
    }

    /// Address of a part's partial sums.
    fn sums_of(&self, index: usize, width: usize) -> [u64; 2] {
        [0, 1].map(|layer| {
            let before: usize = self.slabs[..index].iter().map(|of_part| of_part[layer]).sum();
            self.sums[layer].address + 4 * (before * width) as u64
        })
    }
}

impl Hidden {
    /// Returns whether they belong to such a network on such a grid.
    pub fn are_of(&self, at: &NetworkParams, grid: Grid) -> bool {
        let weights = &self.weights;
        self.grid == grid
            && (weights.inputs, weights.outputs) == (at.inputs, at.conv3.outputs)
            && weights.width2 == at.hidden.next_multiple_of(8)
    }

    pub(super) fn activations(&self, first: usize) -> [u64; 2] {
        let offset = first * self.weights.width2 * self.weights.element.bytes();
        [&self.h[0], &self.h[1]].map(|block| block.address + offset as u64)
    }

    /// Adds the input gradient to the first half of the channels of `dx`, and the parameters' gradients to
    /// `gradient`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        queue: &Queue,
        params: &NetworkParams,
        buffer: &Buffer,
        grid: Grid,
        d_o: &Buffer,
        dx: u64,
        gradient: &Buffer,
    ) -> Result<()> {
        let Weights { inputs, outputs, width1, width2, .. } = *self.weights;
        let totals = Totals::new(queue, self)?;
        let buffers = [buffer, d_o, gradient];
        let [buffer, d_o, gradient] = buffers.map(Buffer::address);
        let mut used = self.h.to_vec();
        let (edge_slabs, edge_sums) = edge_sums(queue.side_stream(Lane::Last)?, grid, outputs, d_o)?;
        for (index, part) in parts(queue, grid).enumerate() {
            used.extend(self.part_back(queue, (index, &part), &totals, d_o, dx)?);
        }
        let (hidden, conv3) = (params.hidden, &params.conv3);
        let (norm1, norm2) = (params.actnorm1, params.actnorm2);
        let spans = [
            params.conv1,
            norm1.bias,
            norm1.logs,
            params.conv2,
            norm2.bias,
            norm2.logs,
            conv3.weight,
            conv3.bias,
            conv3.logs,
        ];
        let [conv1, bias1, logs1, conv2, bias2, logs2, conv3, bias3, logs3] =
            spans.map(|span| at(buffer, span));
        let [to_conv1, to_bias1, to_logs1, to_conv2, to_bias2, to_logs2, to_conv3, to_bias3, to_logs3] =
            spans.map(|span| at(gradient, span));
        let [d_conv1, d_conv2, d_conv3] = totals.by_weight.each_ref().map(|block| block.address);
        let [sums1, sums2] = totals.sums.each_ref().map(|block| block.address);
        let [slabs1, slabs2] = totals.count();
        let side = queue.side_stream_after_all()?;
        launch!(
            side, queue.kernels().unfold_network, Launch::blocks(2 * hidden + outputs);
            inputs, hidden, outputs, width1, width2, conv1, bias1, logs1, conv2, bias2, logs2, conv3, bias3,
            logs3, d_conv1, d_conv2, d_conv3, slabs1, sums1, slabs2, sums2, edge_slabs, edge_sums.address,
            to_conv1, to_bias1, to_logs1, to_conv2, to_bias2, to_logs2, to_conv3, to_bias3, to_logs3
        )?;
        used.extend(totals.by_weight.into_iter().chain(totals.sums).chain([edge_sums]).map(Arc::new));
        queue.retire(used, &buffers)
    }

    /// Processes one part of a batch; returns the memory that side work reads.
    fn part_back(
        &self,
        queue: &Queue,
        (index, part): (usize, &Part),
        totals: &Totals,
        d_o: u64,
        dx: u64,
    ) -> Result<[Arc<Block>; 4]> {
        let weights = &*self.weights;
        let Weights { inputs, outputs, width1, width3, element, .. } = *weights;
        let (rows, first, plane) = (part.grid.rows(), part.first, Plane::of(part.grid));
        let [h1, h2] = self.activations(first);
        let by_weight = |layer: usize, dy: &Block, x: u64| {
            let product = Product {
                result: Element::F32,
                accumulate: index > 0,
                ..weights.product(Kind::ByWeight, layer, rows, queue.gpu.tf32)
            };
            let lane = if layer == 2 { Lane::Middle } else { Lane::Outer };
            let result = totals.by_weight[layer - 1].address;
            queue.side_stream(lane)?.product(product, operands(dy.address, x, result))
        };
        let d_contributions = queue.matrix(rows, width3, element)?;
        let packs = width3 * element.bytes() / 16;
        launch!(
            queue, queue.kernels().of(element).gather_back, Launch::of(rows * packs);
            rows, plane, Divisor::new(outputs), Divisor::new(packs), d_o + 4 * (first * outputs) as u64,
            d_contributions.address
        )?;
        by_weight(3, &d_contributions, h2)?;
        let contributions = queue.floats(rows * width1)?;
        let sums = totals.sums_of(index, weights.width2);
        let ends = (d_contributions.address, contributions.address);
        let d_h2 = |d_h2: &Block| by_weight(2, d_h2, h1);
        let [d_h2, d_h1] = match self.whole_back(queue, index, part) {
            Some((whole, weights, masks)) => {
                let gradients =
                    [queue.matrix(rows, whole.hidden, element)?, queue.matrix(rows, whole.hidden, element)?];
                let matrices = Matrices { input: ends.0, weights, result: ends.1 };
                let kept = HiddenAddresses { layers: gradients.each_ref().map(|block| block.address), masks };
                whole.back(queue, matrices, kept, [sums[1], sums[0]])?;
                d_h2(&gradients[0])?;
                gradients
            }
            None => self.layers_back(queue, (index, part), ends, sums, d_h2)?,
        };
        let patches = &self.parts[index].patches;
        by_weight(1, &d_h1, patches.address)?;
        launch!(
            queue, queue.kernels().add_shifted_back, Launch::of(rows * groups(inputs));
            rows, plane, inputs, Divisor::new(groups(inputs)), 2 * inputs, width1, contributions.address,
            dx + 4 * (first * 2 * inputs) as u64
        )?;
        Ok([Arc::new(d_contributions), Arc::new(d_h2), Arc::new(d_h1), Arc::clone(patches)])
    }

    /// The gradients of both hidden layers, the second first, and of the patches, one product after another:
    /// from and to `ends`. Calls `d_h2` as soon as that gradient is available.
    fn layers_back(
        &self,
        queue: &Queue,
        (index, part): (usize, &Part),
        ends: (u64, u64),
        sums: [u64; 2],
        d_h2: impl FnOnce(&Block) -> Result<()>,
    ) -> Result<[Block; 2]> {
        let (weights, rows) = (&*self.weights, part.grid.rows());
        let by_h2 = self.masked_gradient(queue, 2, (index, part), ends.0, sums[1])?;
        d_h2(&by_h2)?;
        let by_h1 = self.masked_gradient(queue, 1, (index, part), by_h2.address, sums[0])?;
        let product =
            Product { result: Element::F32, ..weights.product(Kind::ByInput, 1, rows, queue.gpu.tf32) };
        queue.product(product, operands(by_h1.address, weights.conv1.address, ends.1))?;
        Ok([by_h2, by_h1])
    }

    /// The product for the gradient of hidden layer `layer`, with its mask and matrix, if available.
    fn with_mask(&self, layer: usize, index: usize, rows: usize) -> Option<(HiddenLayer, u64, u64)> {
        let product = self.weights.hidden_gradient(layer, rows);
        let mask = self.parts.get(index)?.masks[layer - 1].as_ref()?;
        let back = self.weights.back[layer].as_ref()?;
        Some((product, mask.address, back.address))
    }

    /// The whole backward pass of a part in one kernel, with its matrices and masks, if there is a kernel and
    /// it is faster.
    fn whole_back(
        &self,
        queue: &Queue,
        index: usize,
        part: &Part,
    ) -> Option<(FusedNetwork, [u64; 3], [u64; 2])> {
        let forward = self.weights.whole(part.grid.rows());
        let whole = FusedNetwork { depth: forward.width, width: forward.depth, ..forward };
        let address = |block: &Option<Block>| block.as_ref().map(|block| block.address);
        let [first, second, last] = self.weights.back.each_ref().map(address);
        let [mask1, mask2] = self.parts.get(index)?.masks.each_ref().map(address);
        let (weights, masks) = ([last?, second?, first?], [mask2?, mask1?]);
        whole.pays(queue, Pass::Backward).then_some((whole, weights, masks))
    }

    /// Number of partial sums that [`FusedNetwork::back`] or [`masked_gradient`](Self::masked_gradient)
    /// writes for a part.
    fn slabs(&self, queue: &Queue, layer: usize, index: usize, part: &Part) -> usize {
        if let Some((whole, ..)) = self.whole_back(queue, index, part) {
            return whole.slabs(queue);
        }
        match self.with_mask(layer, index, part.grid.rows()) {
            Some((product, ..)) => product.slabs(queue),
            None => Queue::slabs(part.grid.rows()).0,
        }
    }

    /// The pre-activation gradient of hidden layer `layer`, given that of the following product's input; and
    /// partial sums of its columns.
    fn masked_gradient(
        &self,
        queue: &Queue,
        layer: usize,
        (index, part): (usize, &Part),
        dy: u64,
        sums: u64,
    ) -> Result<Block> {
        let (weights, rows) = (&*self.weights, part.grid.rows());
        let width = weights.width2;
        let gradient = queue.matrix(rows, width, weights.element)?;
        if let Some((product, mask, back)) = self.with_mask(layer, index, rows) {
            product.backward(queue, [dy, back, gradient.address], mask, sums)?;
            return Ok(gradient);
        }
        let weight = if layer == 1 { &weights.conv2 } else { &weights.conv3 };
        let addresses = operands(dy, weight.address, gradient.address);
        queue.product(weights.product(Kind::ByInput, layer + 1, rows, queue.gpu.tf32), addresses)?;
        let (slabs, slab) = Queue::slabs(rows);
        // A block handles 64 times 16 bytes of a row.
        let shape = Launch::grid(slabs, (width * weights.element.bytes()).div_ceil(1024), 1);
        launch!(
            queue, queue.kernels().of(weights.element).mask_and_sum, shape;
            rows, width, slab, self.activations(part.first)[layer - 1], gradient.address, sums
        )?;
        Ok(gradient)
    }
}
