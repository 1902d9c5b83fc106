//! The coupling network, as three products over parts of a batch.
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W1 → ReLU → h1 [rows, hidden]
//! h1                           · W2 → ReLU → h2 [rows, hidden]
//! h2                           · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! Matrices are filled up to multiples of 8 columns. A part of the batch goes through all products before the next one
//! begins, so that hidden activations stay in the second-level cache from one product to the next.

use std::sync::Arc;

use super::driver::{Argument, Launch};
use super::memory::Block;
use super::product::{Element, Epilogue, Kind, Operands, Product, mask_stride};
use super::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::shape::{ActNormParams, Grid, NetworkParams, Span};

type Result<T> = std::result::Result<T, DeviceError>;

/// The address of a part of the parameters, or of their gradient.
pub(super) fn at(buffer: u64, span: Span) -> u64 {
    buffer + 4 * span.start as u64
}

/// A network's weights, folded and in the order of its products.
struct Weights {
    inputs: usize,
    outputs: usize,
    element: Element,
    /// Columns of patches.
    width1: usize,
    /// Columns of hidden activations.
    width2: usize,
    /// Columns of contributions.
    width3: usize,
    /// `[width2, width1]`
    conv1: Block,
    bias1: Block,
    /// `[width2, width2]`
    conv2: Block,
    bias2: Block,
    /// `[width3, width2]`
    conv3: Block,
    /// `[9, outputs]`, `f32`
    edge: Block,
    /// `[outputs]`, `f32`
    bias3: Block,
}

/// A coupling network, ready to run.
pub struct Network(Arc<Weights>);

/// Hidden activations, `[rows, width2]` each, behind their ReLUs; and where they are not 0, if products have told.
pub struct Hidden {
    weights: Arc<Weights>,
    h: [Block; 2],
    masks: Option<[Block; 2]>,
}

/// A part of a batch: its images, and the row at which it begins.
pub(super) struct Part {
    pub grid: Grid,
    pub first: usize,
}

/// A batch in parts of whole images.
pub(super) fn parts(queue: &Queue, grid: Grid) -> impl Iterator<Item = Part> + use<> {
    let at_once = (queue.gpu.rows_at_once / grid.pixels()).max(1);
    (0..grid.batch).step_by(at_once).map(move |image| Part {
        grid: Grid { batch: at_once.min(grid.batch - image), ..grid },
        first: image * grid.pixels(),
    })
}

impl Weights {
    /// A product of this network over some rows.
    fn product(&self, kind: Kind, layer: usize, rows: usize, tf32: bool) -> Product {
        let (inputs, outputs) = match layer {
            1 => (self.width1, self.width2),
            2 => (self.width2, self.width2),
            _ => (self.width2, self.width3),
        };
        Product {
            kind,
            rows,
            inputs,
            outputs,
            x_stride: inputs,
            y_stride: outputs,
            w_stride: inputs,
            operands: self.element,
            result: self.element,
            tf32,
            epilogue: Epilogue::Nothing,
            accumulate: false,
        }
    }

    /// The products of both directions that make masks and use them, for the hidden layer behind product `layer`.
    fn masked(&self, layer: usize, rows: usize) -> [Product; 2] {
        [
            Product { epilogue: Epilogue::BiasReluMask, ..self.product(Kind::Forward, layer, rows, false) },
            Product { epilogue: Epilogue::MaskSum, ..self.product(Kind::ByInput, layer + 1, rows, false) },
        ]
    }
}

/// Addresses of a product without bias and mask.
pub(super) fn operands(left: u64, right: u64, result: u64) -> Operands {
    Operands { left, right, result, bias: 0, mask: 0 }
}

impl Network {
    pub(super) fn prepare(queue: &Queue, params: &NetworkParams, buffer: u64) -> Result<Self> {
        Self::prepare_as(queue, params, buffer, queue.gpu.element)
    }

    fn prepare_as(queue: &Queue, params: &NetworkParams, buffer: u64, element: Element) -> Result<Self> {
        let (inputs, hidden, outputs) = (params.inputs, params.hidden, params.conv3.outputs);
        let width1 = (9 * (inputs + 1)).next_multiple_of(8);
        let width2 = hidden.next_multiple_of(8);
        let width3 = (9 * outputs).next_multiple_of(8);
        let weights = Weights {
            inputs,
            outputs,
            element,
            width1,
            width2,
            width3,
            conv1: queue.matrix(width2, width1, element)?,
            bias1: queue.matrix(width2, 1, element)?,
            conv2: queue.matrix(width2, width2, element)?,
            bias2: queue.matrix(width2, 1, element)?,
            conv3: queue.matrix(width3, width2, element)?,
            edge: queue.floats(9 * outputs)?,
            bias3: queue.floats(outputs)?,
        };
        let kernels = queue.kernels().of(element);
        let norm = |norm: ActNormParams| (at(buffer, norm.bias), at(buffer, norm.logs));
        let ((bias1, logs1), (bias2, logs2)) = (norm(params.actnorm1), norm(params.actnorm2));
        let conv3 = &params.conv3;
        launch!(
            queue, kernels.fold_conv, Launch::of(width2 * width1);
            width2, hidden, inputs, width1, at(buffer, params.conv1), bias1, logs1, weights.conv1.address,
            weights.bias1.address
        )?;
        launch!(
            queue, kernels.fold_dense, Launch::of(width2 * width2);
            hidden, width2, at(buffer, params.conv2), bias2, logs2, weights.conv2.address, weights.bias2.address
        )?;
        launch!(
            queue, kernels.fold_contributions, Launch::of(width3 * width2);
            width3, outputs, hidden, width2, at(buffer, conv3.weight), at(buffer, conv3.bias), at(buffer, conv3.logs),
            weights.conv3.address, weights.edge.address, weights.bias3.address
        )?;
        Ok(Self(Arc::new(weights)))
    }

    /// Runs the network on the first half of the channels of `x` into `o`.
    pub(super) fn run(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<()> {
        let weights = &self.0;
        let can_mask = self.can_mask(queue, grid)?;
        for part in parts(queue, grid) {
            let rows = part.grid.rows();
            // Nobody reads these masks. But a product with one may be another algorithm than one without, and the bits of both runs
            // must be the same.
            let masks = if can_mask { Some(self.masks(queue, rows)?) } else { None };
            let masks = masks.as_ref().map(|[mask1, mask2]| [mask1.address, mask2.address]);
            let [h1, h2] = [
                queue.matrix(rows, weights.width2, weights.element)?,
                queue.matrix(rows, weights.width2, weights.element)?,
            ];
            self.run_part(queue, &part, x, o, [h1.address, h2.address], masks)?;
        }
        Ok(())
    }

    /// As [`run`](Self::run), and keeps the hidden activations.
    pub(super) fn run_keeping(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<Hidden> {
        let (weights, rows) = (&self.0, grid.rows());
        let take = || queue.matrix(rows, weights.width2, weights.element);
        let h = [take()?, take()?];
        let masks = if self.can_mask(queue, grid)? { Some(self.masks(queue, rows)?) } else { None };
        let hidden = Hidden { weights: Arc::clone(weights), h, masks };
        for part in parts(queue, grid) {
            self.run_part(queue, &part, x, o, hidden.activations(part.first), hidden.masks(part.first))?;
        }
        Ok(hidden)
    }

    /// Memory for the masks of so many rows.
    fn masks(&self, queue: &Queue, rows: usize) -> Result<[Block; 2]> {
        let take = || queue.pool.take(rows * mask_stride(self.0.width2) / 8);
        Ok([take()?, take()?])
    }

    /// Whether the library's products make masks and use them, for all parts of a batch.
    fn can_mask(&self, queue: &Queue, grid: Grid) -> Result<bool> {
        if self.0.element != Element::Bf16 || !queue.gpu.masks {
            return Ok(false);
        }
        for part in parts(queue, grid) {
            for layer in [1, 2] {
                for product in self.0.masked(layer, part.grid.rows()) {
                    if !queue.gpu.products.can(product)? {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    fn run_part(
        &self,
        queue: &Queue,
        part: &Part,
        x: u64,
        o: u64,
        [h1, h2]: [u64; 2],
        masks: Option<[u64; 2]>,
    ) -> Result<()> {
        let (weights, tf32) = (&*self.0, queue.gpu.tf32);
        let (rows, grid) = (part.grid.rows(), part.grid);
        let patches =
            patches(queue, weights.element, part, weights.inputs, 2 * weights.inputs, weights.width1, x)?;
        let contributions = queue.floats(rows * weights.width3)?;
        let hidden_layer = |layer, left, result, weight: &Block, bias: &Block| {
            let (epilogue, mask) = match masks {
                Some(masks) => (Epilogue::BiasReluMask, masks[layer - 1]),
                None => (Epilogue::BiasRelu, 0),
            };
            let product = Product { epilogue, ..weights.product(Kind::Forward, layer, rows, tf32) };
            queue.product(
                product,
                Operands { bias: bias.address, mask, ..operands(left, weight.address, result) },
            )
        };
        hidden_layer(1, patches.address, h1, &weights.conv1, &weights.bias1)?;
        hidden_layer(2, h1, h2, &weights.conv2, &weights.bias2)?;
        let product = Product { result: Element::F32, ..weights.product(Kind::Forward, 3, rows, tf32) };
        queue.product(product, operands(h2, weights.conv3.address, contributions.address))?;
        let outputs = weights.outputs;
        launch!(
            queue, queue.kernels().add_shifted, Launch::of(rows * outputs);
            rows, grid.height, grid.width, outputs, weights.width3, contributions.address, weights.edge.address,
            weights.bias3.address, o + 4 * (part.first * outputs) as u64
        )
    }
}

/// The patches of a part of `x`, of which the first `inputs` of `channels` channels count.
pub(super) fn patches(
    queue: &Queue,
    element: Element,
    part: &Part,
    inputs: usize,
    channels: usize,
    stride: usize,
    x: u64,
) -> Result<Block> {
    let (rows, grid) = (part.grid.rows(), part.grid);
    let patches = queue.matrix(rows, stride, element)?;
    launch!(
        queue, queue.kernels().of(element).patches, Launch::of(rows * stride * element.bytes() / 16);
        rows, grid.height, grid.width, inputs, channels, stride, x + 4 * (part.first * channels) as u64, patches.address
    )?;
    Ok(patches)
}

impl Hidden {
    fn activations(&self, first: usize) -> [u64; 2] {
        let offset = first * self.weights.width2 * self.weights.element.bytes();
        [&self.h[0], &self.h[1]].map(|block| block.address + offset as u64)
    }

    fn masks(&self, first: usize) -> Option<[u64; 2]> {
        let offset = first * mask_stride(self.weights.width2) / 8;
        self.masks.as_ref().map(|masks| [&masks[0], &masks[1]].map(|block| block.address + offset as u64))
    }

    /// Adds the gradient by the input to the first half of the channels of `dx`, and the parameters' to `gradient`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        queue: &Queue,
        params: &NetworkParams,
        buffer: u64,
        grid: Grid,
        x: u64,
        d_o: u64,
        dx: u64,
        gradient: u64,
    ) -> Result<()> {
        let (weights, kernels) = (&*self.weights, queue.kernels());
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let (width1, width2, width3) = (weights.width1, weights.width2, weights.width3);
        // The gradients by the folded weights and biases, one behind the other.
        let lengths = [width2 * width1, width2 * width2, width3 * width2, width2, width2];
        let sums = queue.zeros(lengths.iter().sum())?;
        let mut next = sums.address;
        let [d_conv1, d_conv2, d_conv3, d_bias1, d_bias2] = lengths.map(|len| {
            let address = next;
            next += 4 * len as u64;
            address
        });
        for part in parts(queue, grid) {
            let (rows, first) = (part.grid.rows(), part.first);
            let [h1, h2] = self.activations(first);
            let by_weight = |layer, dy: u64, x: u64, result: u64| {
                let product = Product {
                    result: Element::F32,
                    accumulate: true,
                    ..weights.product(Kind::ByWeight, layer, rows, queue.gpu.tf32)
                };
                queue.product(product, operands(dy, x, result))
            };
            let d_contributions = queue.matrix(rows, width3, weights.element)?;
            launch!(
                queue, queue.kernels().of(weights.element).gather_back,
                Launch::of(rows * width3 * weights.element.bytes() / 16);
                rows, grid.height, grid.width, outputs, width3, d_o + 4 * (first * outputs) as u64,
                d_contributions.address
            )?;
            by_weight(3, d_contributions.address, h2, d_conv3)?;
            let d_h2 =
                self.masked_gradient(queue, 2, &part, d_contributions.address, &weights.conv3, d_bias2)?;
            drop(d_contributions);
            by_weight(2, d_h2.address, h1, d_conv2)?;
            let d_h1 = self.masked_gradient(queue, 1, &part, d_h2.address, &weights.conv2, d_bias1)?;
            drop(d_h2);
            let patches = patches(queue, weights.element, &part, inputs, 2 * inputs, width1, x)?;
            by_weight(1, d_h1.address, patches.address, d_conv1)?;
            drop(patches);
            let contributions = queue.floats(rows * width1)?;
            let product =
                Product { result: Element::F32, ..weights.product(Kind::ByInput, 1, rows, queue.gpu.tf32) };
            queue.product(product, operands(d_h1.address, weights.conv1.address, contributions.address))?;
            launch!(
                queue, kernels.add_shifted_back, Launch::of(rows * inputs);
                rows, grid.height, grid.width, inputs, 2 * inputs, width1, contributions.address,
                dx + 4 * (first * 2 * inputs) as u64
            )?;
        }
        let edge_sums = queue.edge_sums(grid, outputs, d_o)?;
        let (hidden, conv3) = (params.hidden, &params.conv3);
        let (norm1, norm2) = (params.actnorm1, params.actnorm2);
        launch!(
            queue, kernels.unfold_conv, Launch::blocks(hidden);
            inputs, width1, at(buffer, params.conv1), at(buffer, norm1.bias), at(buffer, norm1.logs), d_conv1,
            d_bias1, at(gradient, params.conv1), at(gradient, norm1.bias), at(gradient, norm1.logs)
        )?;
        launch!(
            queue, kernels.unfold_dense, Launch::blocks(hidden);
            hidden, width2, at(buffer, params.conv2), at(buffer, norm2.bias), at(buffer, norm2.logs), d_conv2,
            d_bias2, at(gradient, params.conv2), at(gradient, norm2.bias), at(gradient, norm2.logs)
        )?;
        launch!(
            queue, kernels.unfold_contributions, Launch { block: 1024, ..Launch::blocks(outputs) };
            outputs, hidden, width2, at(buffer, conv3.weight), at(buffer, conv3.bias), at(buffer, conv3.logs),
            d_conv3, edge_sums.address, at(gradient, conv3.weight), at(gradient, conv3.bias), at(gradient, conv3.logs)
        )
    }

    /// The gradient by the pre-activations of hidden layer `layer`, given that by the product behind it; their column
    /// sums are added to `d_bias`.
    fn masked_gradient(
        &self,
        queue: &Queue,
        layer: usize,
        part: &Part,
        dy: u64,
        weight: &Block,
        d_bias: u64,
    ) -> Result<Block> {
        let (weights, rows) = (&*self.weights, part.grid.rows());
        let (width, kernels) = (weights.width2, queue.kernels().of(weights.element));
        let gradient = queue.matrix(rows, width, weights.element)?;
        let addresses = operands(dy, weight.address, gradient.address);
        let (sums, accumulate) = match self.masks(part.first) {
            Some(masks) => {
                let [_, product] = weights.masked(layer, rows);
                let sums = queue.matrix(width, 1, weights.element)?;
                queue
                    .product(product, Operands { bias: sums.address, mask: masks[layer - 1], ..addresses })?;
                (sums, kernels.accumulate)
            }
            None => {
                queue.product(weights.product(Kind::ByInput, layer + 1, rows, queue.gpu.tf32), addresses)?;
                let (slabs, slab) = Queue::slabs(rows);
                let [partial, sums] = [queue.floats(slabs * width)?, queue.floats(width)?];
                launch!(
                    queue, kernels.mask_and_sum, Launch::grid(slabs, width.div_ceil(32), 1);
                    rows, width, slab, self.activations(part.first)[layer - 1], gradient.address, partial.address
                )?;
                queue.sum_slabs(width, slabs, partial.address, sums.address)?;
                (sums, queue.kernels().accumulate_f32)
            }
        };
        launch!(queue, accumulate, Launch::of(width); width, sums.address, d_bias)?;
        Ok(gradient)
    }
}

/// Data-dependent initialisation of both actnorms, in `f32`: the second on what the first, initialised, lets through.
pub fn initialize(queue: &Queue, params: &NetworkParams, grid: Grid, x: u64, buffer: u64) -> Result<()> {
    let rows = grid.rows();
    // Statistics need all rows at once.
    if rows * params.hidden.next_multiple_of(8) > i32::MAX as usize {
        return Err(DeviceError::Failed {
            device: queue.gpu.context.name.clone(),
            reason: format!(
                "{} images at once are too many for the initialisation's kernels; raise train.accumulate",
                grid.batch
            ),
        });
    }
    let all = Part { grid, first: 0 };
    let mut input: Option<Block> = None;
    for (layer, norm) in [(1, params.actnorm1), (2, params.actnorm2)] {
        queue.stream.clear(at(buffer, norm.bias), 4 * norm.bias.len)?;
        queue.stream.clear(at(buffer, norm.logs), 4 * norm.logs.len)?;
        let run = |input: u64, epilogue| {
            let Network(weights) = Network::prepare_as(queue, params, buffer, Element::F32)?;
            let h = queue.matrix(rows, weights.width2, Element::F32)?;
            let (weight, bias) = match layer {
                1 => (&weights.conv1, &weights.bias1),
                _ => (&weights.conv2, &weights.bias2),
            };
            let product = Product { epilogue, ..weights.product(Kind::Forward, layer, rows, false) };
            let addresses = operands(input, weight.address, h.address);
            queue.product(product, Operands { bias: bias.address, ..addresses })?;
            Ok::<_, DeviceError>(h)
        };
        let from = match input.take() {
            Some(h1) => h1,
            None => {
                let width = (9 * (params.inputs + 1)).next_multiple_of(8);
                patches(queue, Element::F32, &all, params.inputs, 2 * params.inputs, width, x)?
            }
        };
        let h = run(from.address, Epilogue::Nothing)?;
        initialize_actnorm(queue, &norm, rows, params.hidden.next_multiple_of(8), h.address, buffer)?;
        drop(h);
        input = Some(run(from.address, Epilogue::BiasRelu)?);
    }
    Ok(())
}

/// Sets an actnorm's bias and logs from `x` `[rows, stride]`.
pub fn initialize_actnorm(
    queue: &Queue,
    norm: &ActNormParams,
    rows: usize,
    stride: usize,
    x: u64,
    buffer: u64,
) -> Result<()> {
    launch!(
        queue, queue.kernels().initialize_actnorm, Launch::blocks(norm.bias.len);
        rows, stride, x, at(buffer, norm.bias), at(buffer, norm.logs)
    )
}
