//! The coupling network, as three products over parts of a batch.
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W1 → ReLU → h1 [rows, hidden]
//! h1                           · W2 → ReLU → h2 [rows, hidden]
//! h2                           · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! Where a kernel does all three at once (`fused.rs`), h1 and h2 are written for the way back only.
//!
//! Matrices are filled up to multiples of 8 columns. A part of the batch goes through all products before the next one
//! begins, so that what a network needs beside its hidden activations stays small.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::divisor::{Divisor, Plane};
use super::driver::{Argument, Launch};
use super::fused::{FusedNetwork, Kept, Matrices, Way};
use super::hidden::HiddenLayer;
use super::memory::{Block, Buffer};
use super::product::{Element, Epilogue, Kind, Operands, Product};
use super::queue::{Lane, Queue, launch};
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
    /// The transposes of all three, where kernels want them on the way back.
    back: [Option<Block>; 3],
}

/// A coupling network, ready to run.
pub struct Network(Arc<Weights>);

/// Hidden activations, `[rows, width2]` each, behind their ReLUs; and for each part of the batch its patches, and masks of what is not 0
/// in the activations, where products have made some.
pub struct Hidden {
    weights: Arc<Weights>,
    grid: Grid,
    h: [Arc<Block>; 2],
    parts: Vec<KeptPart>,
}

struct KeptPart {
    patches: Arc<Block>,
    masks: [Option<Block>; 2],
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

/// A network's matrices to make, and what of; as in `weights.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Folded {
    /// Inputs, hidden units, outputs, and the three widths.
    sizes: [i32; 6],
    /// Weight, bias and logs of each layer.
    params: [[u64; 3]; 3],
    conv1: u64,
    bias1: u64,
    conv2: u64,
    bias2: u64,
    conv3: u64,
    edge: u64,
    bias3: u64,
    back: [u64; 3],
}

/// Networks of one launch; as in `weights.cu`.
const FOLDED_AT_ONCE: usize = 16;

/// A network that has no matrices yet, with the memory that making them reads and writes.
pub struct Unfolded {
    folded: Folded,
    weights: Arc<Weights>,
    _params: Arc<Block>,
}

/// Makes the matrices of all networks that are pending.
pub fn make_pending(queue: &Queue) -> Result<()> {
    for group in queue.pending_networks.take().chunks(FOLDED_AT_ONCE) {
        let folded: Vec<_> = group.iter().map(|network| (network.folded, &*network.weights)).collect();
        fold(queue, queue.gpu.element, &folded)?;
    }
    Ok(())
}

/// Makes matrices in one launch.
fn fold(queue: &Queue, element: Element, networks: &[(Folded, &Weights)]) -> Result<()> {
    let mut list = [Folded::zeroed(); FOLDED_AT_ONCE];
    for (to, (folded, _)) in list.iter_mut().zip(networks) {
        *to = *folded;
    }
    let rows = networks.iter().map(|(_, weights)| weights.rows()).max().unwrap_or(0);
    let shape = Launch { block: 128, ..Launch::grid(rows, networks.len(), 1) };
    launch!(queue, queue.kernels().of(element).fold_network, shape; Argument::borrowed(&list))
}

impl Weights {
    /// Room for a network's matrices.
    fn new(queue: &Queue, params: &NetworkParams, element: Element) -> Result<Self> {
        let (inputs, hidden, outputs) = (params.inputs, params.hidden, params.conv3.outputs);
        let width1 = (9 * (inputs + 1)).next_multiple_of(8);
        let width2 = hidden.next_multiple_of(8);
        let width3 = (9 * outputs).next_multiple_of(8);
        // Where own kernels make a hidden layer, with its mask, and the gradient by it.
        let back = |depths: [usize; 2]| {
            let can = |depth| HiddenLayer { rows: 1, depth, columns: width2 }.can(queue);
            let both = element == Element::Bf16 && depths.into_iter().all(can);
            both.then(|| queue.matrix(width2, depths[1], element)).transpose()
        };
        let whole = FusedNetwork { rows: 1, depth: width3, hidden: width2, width: width1 };
        let first = (element == Element::Bf16 && whole.fits(queue, Way::Back))
            .then(|| queue.matrix(width1, width2, element))
            .transpose()?;
        Ok(Self {
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
            back: [first, back([width1, width2])?, back([width2, width3])?],
        })
    }

    /// What these matrices are made of.
    fn folded(&self, params: &NetworkParams, buffer: u64) -> Folded {
        let Weights { inputs, outputs, width1, width2, width3, .. } = *self;
        let layer = |weight, bias, logs| [weight, bias, logs].map(|span| at(buffer, span));
        let NetworkParams { actnorm1, actnorm2, conv3, .. } = params;
        Folded {
            sizes: [inputs, params.hidden, outputs, width1, width2, width3].map(|size| size as i32),
            params: [
                layer(params.conv1, actnorm1.bias, actnorm1.logs),
                layer(params.conv2, actnorm2.bias, actnorm2.logs),
                layer(conv3.weight, conv3.bias, conv3.logs),
            ],
            conv1: self.conv1.address,
            bias1: self.bias1.address,
            conv2: self.conv2.address,
            bias2: self.bias2.address,
            conv3: self.conv3.address,
            edge: self.edge.address,
            bias3: self.bias3.address,
            back: self.back.each_ref().map(address_of),
        }
    }

    /// Rows of all matrices together.
    fn rows(&self) -> usize {
        4 * self.width2 + self.width3 + self.width1
    }

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

    /// The product that makes hidden layer 1 or 2.
    fn hidden_layer(&self, layer: usize, rows: usize) -> HiddenLayer {
        let depth = if layer == 1 { self.width1 } else { self.width2 };
        HiddenLayer { rows, depth, columns: self.width2 }
    }

    /// All of it at once.
    fn whole(&self, rows: usize) -> FusedNetwork {
        FusedNetwork { rows, depth: self.width1, hidden: self.width2, width: self.width3 }
    }

    /// The product that makes the gradient by hidden layer 1 or 2.
    fn hidden_gradient(&self, layer: usize, rows: usize) -> HiddenLayer {
        let depth = if layer == 1 { self.width2 } else { self.width3 };
        HiddenLayer { rows, depth, columns: self.width2 }
    }
}

/// Where a block lies, 0 where there is none.
fn address_of(block: &Option<Block>) -> u64 {
    block.as_ref().map_or(0, |block| block.address)
}

/// Addresses of a product without bias.
pub(super) fn operands(left: u64, right: u64, result: u64) -> Operands {
    Operands { left, right, result, bias: 0 }
}

impl Network {
    /// Channels of the flow's half that goes in, and of what comes out.
    pub(super) fn ends(&self) -> (usize, usize) {
        (self.0.inputs, self.0.outputs)
    }

    /// A network whose matrices are made later. `params` is read then, too, and whatever writes there must see to it that nothing is
    /// pending.
    pub(super) fn prepare(queue: &Queue, params: &NetworkParams, buffer: &Buffer) -> Result<Option<Self>> {
        let Some(block) = buffer.block() else { return Ok(None) };
        let network = Self(Arc::new(Weights::new(queue, params, queue.gpu.element)?));
        let folded = network.0.folded(params, buffer.address());
        queue.pending_networks.push(Unfolded {
            folded,
            weights: Arc::clone(&network.0),
            _params: Arc::clone(block),
        });
        Ok(Some(network))
    }

    /// Runs the network on the first half of the channels of `x` into `o`.
    pub(super) fn run(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<()> {
        for part in parts(queue, grid) {
            self.run_part(queue, &part, x, o, None)?;
        }
        Ok(())
    }

    /// As [`run`](Self::run), and keeps the hidden activations.
    pub(super) fn run_keeping(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<Hidden> {
        let (weights, rows) = (&self.0, grid.rows());
        let take = || queue.matrix(rows, weights.width2, weights.element);
        let mut hidden =
            Hidden { weights: Arc::clone(weights), grid, h: [take()?, take()?].map(Arc::new), parts: vec![] };
        for part in parts(queue, grid) {
            let mask = |layer| {
                let product = weights.hidden_layer(layer, part.grid.rows());
                weights.back[layer].as_ref().map(|_| product.mask(queue)).transpose()
            };
            let masks = [mask(1)?, mask(2)?];
            let kept =
                Kept { layers: hidden.activations(part.first), masks: masks.each_ref().map(address_of) };
            let patches = self.run_part(queue, &part, x, o, Some(kept))?;
            hidden.parts.push(KeptPart { patches: Arc::new(patches), masks });
        }
        Ok(hidden)
    }

    /// Returns the patches.
    fn run_part(&self, queue: &Queue, part: &Part, x: u64, o: u64, kept: Option<Kept>) -> Result<Block> {
        let weights = &*self.0;
        let rows = part.grid.rows();
        let patches =
            patches(queue, weights.element, part, weights.inputs, 2 * weights.inputs, weights.width1, x)?;
        let contributions = queue.floats(rows * weights.width3)?;
        let way = if kept.is_some() { Way::Keep } else { Way::Drop };
        let masked = kept.is_none_or(|kept| !kept.masks.contains(&0));
        if masked && weights.element == Element::Bf16 && weights.whole(rows).pays(queue, way) {
            let matrices = Matrices {
                input: patches.address,
                weights: [&weights.conv1, &weights.conv2, &weights.conv3].map(|block| block.address),
                result: contributions.address,
            };
            let biases = [weights.bias1.address, weights.bias2.address];
            weights.whole(rows).forward(queue, matrices, biases, kept)?;
        } else {
            self.run_layers(queue, rows, patches.address, contributions.address, kept)?;
        }
        let outputs = weights.outputs;
        launch!(
            queue, queue.kernels().add_shifted, Launch::of(rows * groups(outputs));
            rows, Plane::of(part.grid), outputs, Divisor::new(groups(outputs)), weights.width3, contributions.address, weights.edge.address,
            weights.bias3.address, o + 4 * (part.first * outputs) as u64
        )?;
        Ok(patches)
    }

    /// The products one after the other.
    fn run_layers(
        &self,
        queue: &Queue,
        rows: usize,
        patches: u64,
        contributions: u64,
        kept: Option<Kept>,
    ) -> Result<()> {
        let (weights, tf32) = (&*self.0, queue.gpu.tf32);
        let room = || queue.matrix(rows, weights.width2, weights.element);
        let dropped = kept.is_none().then(|| Ok::<_, DeviceError>([room()?, room()?])).transpose()?;
        let Kept { layers: [h1, h2], masks: [mask1, mask2] } = kept.unwrap_or(Kept {
            layers: dropped.as_ref().map_or([0; 2], |blocks| blocks.each_ref().map(|block| block.address)),
            masks: [0; 2],
        });
        let hidden_layer = |layer, left, result, weight: &Block, bias: &Block, mask| {
            let product = weights.hidden_layer(layer, rows);
            if weights.element == Element::Bf16 && product.can(queue) {
                return product.forward(queue, [left, weight.address, result], bias.address, mask);
            }
            let product =
                Product { epilogue: Epilogue::BiasRelu, ..weights.product(Kind::Forward, layer, rows, tf32) };
            queue.product(product, Operands { bias: bias.address, ..operands(left, weight.address, result) })
        };
        hidden_layer(1, patches, h1, &weights.conv1, &weights.bias1, mask1)?;
        hidden_layer(2, h1, h2, &weights.conv2, &weights.bias2, mask2)?;
        let product = Product { result: Element::F32, ..weights.product(Kind::Forward, 3, rows, tf32) };
        queue.product(product, operands(h2, weights.conv3.address, contributions))
    }
}

/// Into how many groups kernels divide channels whose numbers they read several at once: 4, 2 or 1, as in `patches.cu`.
pub(super) fn groups(channels: usize) -> usize {
    match channels % 4 {
        0 => channels / 4,
        2 => channels / 2,
        _ => channels,
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
    // A thread has 16 bytes of a row.
    let (rows, packs) = (part.grid.rows(), stride * element.bytes() / 16);
    let patches = queue.matrix(rows, stride, element)?;
    launch!(
        queue, queue.kernels().of(element).patches, Launch::of(rows * packs);
        rows, Plane::of(part.grid), Divisor::new(inputs), channels, Divisor::new(packs),
        x + 4 * (part.first * channels) as u64, patches.address
    )?;
    Ok(patches)
}

impl Hidden {
    /// Whether they are of such a network on such a grid.
    pub(super) fn are_of(&self, at: &NetworkParams, grid: Grid) -> bool {
        let weights = &self.weights;
        self.grid == grid
            && (weights.inputs, weights.outputs) == (at.inputs, at.conv3.outputs)
            && weights.width2 == at.hidden.next_multiple_of(8)
    }

    fn activations(&self, first: usize) -> [u64; 2] {
        let offset = first * self.weights.width2 * self.weights.element.bytes();
        [&self.h[0], &self.h[1]].map(|block| block.address + offset as u64)
    }

    /// Adds the gradient by the input to the first half of the channels of `dx`, and the parameters' to `gradient`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn backward(
        &self,
        queue: &Queue,
        params: &NetworkParams,
        buffer: &Buffer,
        grid: Grid,
        d_o: &Buffer,
        dx: u64,
        gradient: &Buffer,
    ) -> Result<()> {
        let weights = &*self.weights;
        let (inputs, outputs) = (weights.inputs, weights.outputs);
        let (width1, width2, width3) = (weights.width1, weights.width2, weights.width3);
        let [d_conv1, d_conv2, d_conv3] =
            [width1 * width2, width2 * width2, width3 * width2].map(|len| queue.floats(len));
        let [d_conv1, d_conv2, d_conv3] = [d_conv1?, d_conv2?, d_conv3?];
        // Partial sums of the gradients by pre-activations, for the gradients of biases: so many for each part.
        let slabs = |layer| -> Vec<usize> {
            parts(queue, grid)
                .enumerate()
                .map(|(index, part)| self.slabs(queue, layer, index, &part))
                .collect()
        };
        let (slabs1, slabs2) = (slabs(1), slabs(2));
        let sums = |slabs: &[usize]| queue.floats(slabs.iter().sum::<usize>() * width2);
        let (sums1, sums2) = (sums(&slabs1)?, sums(&slabs2)?);
        let (mut next1, mut next2) = (sums1.address, sums2.address);
        // The gradients by weights are computed beside those by activations, which the flow waits for.
        let buffers = [buffer, d_o, gradient];
        let [buffer, d_o, gradient] = buffers.map(Buffer::address);
        let mut used = self.h.to_vec();
        let (edge_slabs, edge_sums) = queue.beside(Lane::Last)?.edge_sums(grid, outputs, d_o)?;
        for (index, part) in parts(queue, grid).enumerate() {
            let (rows, first) = (part.grid.rows(), part.first);
            let [h1, h2] = self.activations(first);
            let by_weight = |layer, dy: u64, x: u64, result: &Block| {
                let product = Product {
                    result: Element::F32,
                    accumulate: index > 0,
                    ..weights.product(Kind::ByWeight, layer, rows, queue.gpu.tf32)
                };
                let lane = if layer == 2 { Lane::Middle } else { Lane::Outer };
                queue.beside(lane)?.product(product, operands(dy, x, result.address))
            };
            let d_contributions = queue.matrix(rows, width3, weights.element)?;
            let packs = width3 * weights.element.bytes() / 16;
            launch!(
                queue, queue.kernels().of(weights.element).gather_back, Launch::of(rows * packs);
                rows, Plane::of(part.grid), Divisor::new(outputs), Divisor::new(packs),
                d_o + 4 * (first * outputs) as u64, d_contributions.address
            )?;
            by_weight(3, d_contributions.address, h2, &d_conv3)?;
            let contributions = queue.floats(rows * width1)?;
            let [d_h2, d_h1] = match self.whole_back(queue, index, &part) {
                Some((whole, weights, masks)) => {
                    let room = || queue.matrix(rows, width2, self.weights.element);
                    let gradients = [room()?, room()?];
                    let matrices =
                        Matrices { input: d_contributions.address, weights, result: contributions.address };
                    let kept = Kept { layers: gradients.each_ref().map(|block| block.address), masks };
                    whole.back(queue, matrices, kept, [next2, next1])?;
                    by_weight(2, gradients[0].address, h1, &d_conv2)?;
                    gradients
                }
                None => {
                    let d_h2 =
                        self.masked_gradient(queue, 2, (index, &part), d_contributions.address, next2)?;
                    by_weight(2, d_h2.address, h1, &d_conv2)?;
                    let d_h1 = self.masked_gradient(queue, 1, (index, &part), d_h2.address, next1)?;
                    let product = Product {
                        result: Element::F32,
                        ..weights.product(Kind::ByInput, 1, rows, queue.gpu.tf32)
                    };
                    queue.product(
                        product,
                        operands(d_h1.address, weights.conv1.address, contributions.address),
                    )?;
                    [d_h2, d_h1]
                }
            };
            let patches = &self.parts[index].patches;
            by_weight(1, d_h1.address, patches.address, &d_conv1)?;
            launch!(
                queue, queue.kernels().add_shifted_back, Launch::of(rows * groups(inputs));
                rows, Plane::of(part.grid), inputs, Divisor::new(groups(inputs)), 2 * inputs, width1, contributions.address,
                dx + 4 * (first * 2 * inputs) as u64
            )?;
            next1 += 4 * (slabs1[index] * width2) as u64;
            next2 += 4 * (slabs2[index] * width2) as u64;
            used.extend([d_contributions, d_h2, d_h1].map(Arc::new));
            used.push(Arc::clone(patches));
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
        let beside = queue.beside_after_all()?;
        launch!(
            beside, queue.kernels().unfold_network, Launch::blocks(2 * hidden + outputs);
            inputs, hidden, outputs, width1, width2, conv1, bias1, logs1, conv2, bias2, logs2, conv3, bias3, logs3,
            d_conv1.address, d_conv2.address, d_conv3.address, slabs1.iter().sum::<usize>(), sums1.address,
            slabs2.iter().sum::<usize>(), sums2.address, edge_slabs, edge_sums.address, to_conv1, to_bias1, to_logs1,
            to_conv2, to_bias2, to_logs2, to_conv3, to_bias3, to_logs3
        )?;
        used.extend([d_conv1, d_conv2, d_conv3, sums1, sums2, edge_sums].map(Arc::new));
        queue.end_beside(used, &buffers)
    }

    /// The product that makes the gradient by hidden layer `layer`, its mask and the matrix that it wants, where there is such.
    fn with_mask(&self, layer: usize, index: usize, rows: usize) -> Option<(HiddenLayer, u64, u64)> {
        let product = self.weights.hidden_gradient(layer, rows);
        let mask = self.parts.get(index)?.masks[layer - 1].as_ref()?;
        let back = self.weights.back[layer].as_ref()?;
        Some((product, mask.address, back.address))
    }

    /// The whole way back of a part at once, its matrices and masks, where there is a kernel and it pays.
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
        whole.pays(queue, Way::Back).then_some((whole, weights, masks))
    }

    /// How many partial sums [`FusedNetwork::back`] or [`masked_gradient`](Self::masked_gradient) writes for a part.
    fn slabs(&self, queue: &Queue, layer: usize, index: usize, part: &Part) -> usize {
        if let Some((whole, ..)) = self.whole_back(queue, index, part) {
            return whole.slabs(queue);
        }
        match self.with_mask(layer, index, part.grid.rows()) {
            Some((product, ..)) => product.slabs(queue),
            None => Queue::slabs(part.grid.rows()).0,
        }
    }

    /// The gradient by the pre-activations of hidden layer `layer`, given that by the product behind it; and partial sums of its
    /// columns.
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
        // A block has 64 times 16 bytes of a row.
        let shape = Launch::grid(slabs, (width * weights.element.bytes()).div_ceil(1024), 1);
        launch!(
            queue, queue.kernels().of(weights.element).mask_and_sum, shape;
            rows, width, slab, self.activations(part.first)[layer - 1], gradient.address, sums
        )?;
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
            let weights = Weights::new(queue, params, Element::F32)?;
            fold(queue, Element::F32, &[(weights.folded(params, buffer), &weights)])?;
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
