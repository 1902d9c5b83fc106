//! The matrices of a coupling network: its parameters with the actnorm scales folded in, in the layout of its
//! products (`weights.cu`).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use super::fused::{FusedNetwork, Pass};
use super::hidden::HiddenLayer;
use crate::cuda::deferred::Deferred;
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::memory::{Block, at};
use crate::cuda::product::{Element, Epilogue, Kind, Product};
use crate::cuda::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::ops::NetworkParams;

type Result<T> = std::result::Result<T, DeviceError>;

/// A network's folded weights, in the order of its products.
pub(super) struct Weights {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) element: Element,
    /// Number of patch columns.
    pub(super) width1: usize,
    /// Number of hidden activation columns.
    pub(super) width2: usize,
    /// Number of contribution columns.
    pub(super) width3: usize,
    /// `[width2, width1]`
    pub(super) conv1: Block,
    pub(super) bias1: Block,
    /// `[width2, width2]`
    pub(super) conv2: Block,
    pub(super) bias2: Block,
    /// `[width3, width2]`
    pub(super) conv3: Block,
    /// `[9, outputs]`, `f32`
    pub(super) edge: Block,
    /// `[outputs]`, `f32`
    pub(super) bias3: Block,
    /// The transposes of all three, if the backward kernels need them.
    pub(super) back: [Option<Block>; 3],
}

/// A network's matrices to compute, and their inputs; as in `weights.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Folded {
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

/// Networks per launch; as in `weights.cu`.
const FOLDED_AT_ONCE: usize = 16;

/// A network with pending matrices, and the memory that their computation reads and writes.
pub struct PendingNetwork {
    pub(super) folded: Folded,
    pub(super) weights: Arc<Weights>,
    pub(super) _params: Arc<Block>,
}

impl Deferred for PendingNetwork {
    /// Computes the matrices of all networks.
    fn flush(queue: &Queue, networks: Vec<Self>) -> Result<()> {
        for group in networks.chunks(FOLDED_AT_ONCE) {
            let folded: Vec<_> = group.iter().map(|network| (network.folded, &*network.weights)).collect();
            fold(queue, queue.gpu.element, &folded)?;
        }
        Ok(())
    }
}

/// Computes matrices in one launch.
pub(super) fn fold(queue: &Queue, element: Element, networks: &[(Folded, &Weights)]) -> Result<()> {
    let mut list = [Folded::zeroed(); FOLDED_AT_ONCE];
    for (to, (folded, _)) in list.iter_mut().zip(networks) {
        *to = *folded;
    }
    let rows = networks.iter().map(|(_, weights)| weights.rows()).max().unwrap_or(0);
    let shape = Launch { block: 128, ..Launch::grid(rows, networks.len(), 1) };
    launch!(queue, queue.kernels().of(element).fold_network, shape; Argument::borrowed(&list))
}

impl Weights {
    /// Allocates a network's matrices.
    pub(super) fn new(queue: &Queue, params: &NetworkParams, element: Element) -> Result<Self> {
        let (inputs, hidden, outputs) = (params.inputs, params.hidden, params.conv3.outputs);
        let width1 = (9 * (inputs + 1)).next_multiple_of(8);
        let width2 = hidden.next_multiple_of(8);
        let width3 = (9 * outputs).next_multiple_of(8);
        // Custom kernels compute a hidden layer with its mask, and its gradient.
        let back = |depths: [usize; 2]| {
            let can = |depth| HiddenLayer { rows: 1, depth, columns: width2 }.can(queue);
            let both = element == Element::Bf16 && depths.into_iter().all(can);
            both.then(|| queue.matrix(width2, depths[1], element)).transpose()
        };
        let whole = FusedNetwork { rows: 1, depth: width3, hidden: width2, width: width1 };
        let first = (element == Element::Bf16 && whole.fits(queue, Pass::Backward))
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

    /// The inputs of these matrices.
    pub(super) fn folded(&self, params: &NetworkParams, buffer: u64) -> Folded {
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

    /// Total number of rows of all matrices.
    fn rows(&self) -> usize {
        4 * self.width2 + self.width3 + self.width1
    }

    /// A product of this network over a number of rows.
    pub(super) fn product(&self, kind: Kind, layer: usize, rows: usize, tf32: bool) -> Product {
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
            aligned: true,
            batch: None,
        }
    }

    /// The product that computes hidden layer 1 or 2.
    pub(super) fn hidden_layer(&self, layer: usize, rows: usize) -> HiddenLayer {
        let depth = if layer == 1 { self.width1 } else { self.width2 };
        HiddenLayer { rows, depth, columns: self.width2 }
    }

    /// The whole network in one kernel.
    pub(super) fn whole(&self, rows: usize) -> FusedNetwork {
        FusedNetwork { rows, depth: self.width1, hidden: self.width2, width: self.width3 }
    }

    /// The product that computes the gradient of hidden layer 1 or 2.
    pub(super) fn hidden_gradient(&self, layer: usize, rows: usize) -> HiddenLayer {
        let depth = if layer == 1 { self.width2 } else { self.width3 };
        HiddenLayer { rows, depth, columns: self.width2 }
    }
}

/// Address of a block, 0 if absent.
pub(super) fn address_of(block: &Option<Block>) -> u64 {
    block.as_ref().map_or(0, |block| block.address)
}
