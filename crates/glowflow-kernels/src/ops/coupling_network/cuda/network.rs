//! The coupling network, as three products over parts of a batch.
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W1 → ReLU → h1 [rows, hidden]
//! h1                           · W2 → ReLU → h2 [rows, hidden]
//! h2                           · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! If one kernel does all three (`fused.rs`), h1 and h2 are only written for the backward pass.
//!
//! Matrices are padded to multiples of 8 columns. A part of the batch passes through all products before the
//! next one starts, which keeps a network's temporary memory small.

use std::sync::Arc;

use super::back::{Hidden, SavedPart};
use super::fused::{HiddenAddresses, Matrices, Pass};
use super::weights::{PendingNetwork, Weights, address_of, fold};
use crate::cuda::divisor::{Divisor, Plane};
use crate::cuda::driver::{Argument, Launch};
use crate::cuda::memory::{Block, Buffer, at};
use crate::cuda::parts::{Part, parts, rows_at_once};
use crate::cuda::patches::{groups, patches};
use crate::cuda::product::{Element, Epilogue, Kind, Operands, Product, operands};
use crate::cuda::queue::{Queue, launch};
use crate::device::DeviceError;
use crate::ops::NetworkParams;
use crate::ops::actnorm::cuda as actnorm;
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// A coupling network, ready to run.
pub struct Network(Arc<Weights>);

impl Network {
    /// Number of channels of the flow's half that is the input, and of outputs.
    pub fn ends(&self) -> (usize, usize) {
        (self.0.inputs, self.0.outputs)
    }

    /// A network whose matrices are computed later. `params` is read only then, and any code that writes to
    /// it must flush deferred work first.
    pub fn prepare(queue: &Queue, params: &NetworkParams, buffer: &Buffer) -> Result<Option<Self>> {
        let Some(block) = buffer.block() else { return Ok(None) };
        let network = Self(Arc::new(Weights::new(queue, params, queue.gpu.element)?));
        let folded = network.0.folded(params, buffer.address());
        queue.defer(PendingNetwork { folded, weights: Arc::clone(&network.0), _params: Arc::clone(block) });
        Ok(Some(network))
    }

    /// Kernels count a part's elements in 32 bits.
    fn check(&self, queue: &Queue, grid: Grid) -> Result<()> {
        let Weights { width1, width2, width3, .. } = *self.0;
        let (rows, widest) = (rows_at_once(queue, grid), width1.max(width2).max(width3));
        if rows.checked_mul(widest).is_some_and(|numbers| numbers <= i32::MAX as usize) {
            return Ok(());
        }
        Err(DeviceError::Failed {
            device: queue.gpu.context.name.clone(),
            reason: format!("{rows} pixels with {widest} numbers each are more than kernels can address"),
        })
    }

    /// Runs the network on the first half of the channels of `x` into `o`.
    pub fn run(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<()> {
        self.check(queue, grid)?;
        for part in parts(queue, grid) {
            self.run_part(queue, &part, x, o, None)?;
        }
        Ok(())
    }

    /// Like [`run`](Self::run), and returns the hidden activations.
    pub fn run_saving(&self, queue: &Queue, grid: Grid, x: u64, o: u64) -> Result<Hidden> {
        self.check(queue, grid)?;
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
            let kept = HiddenAddresses {
                layers: hidden.activations(part.first),
                masks: masks.each_ref().map(address_of),
            };
            let patches = self.run_part(queue, &part, x, o, Some(kept))?;
            hidden.parts.push(SavedPart { patches: Arc::new(patches), masks });
        }
        Ok(hidden)
    }

    /// Returns the patches.
    fn run_part(
        &self,
        queue: &Queue,
        part: &Part,
        x: u64,
        o: u64,
        kept: Option<HiddenAddresses>,
    ) -> Result<Block> {
        let weights = &*self.0;
        let rows = part.grid.rows();
        let patches =
            patches(queue, weights.element, part, weights.inputs, 2 * weights.inputs, weights.width1, x)?;
        let contributions = queue.floats(rows * weights.width3)?;
        let pass = if kept.is_some() { Pass::ForwardSaving } else { Pass::Forward };
        let masked = kept.is_none_or(|kept| !kept.masks.contains(&0));
        if masked && weights.element == Element::Bf16 && weights.whole(rows).pays(queue, pass) {
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
            rows, Plane::of(part.grid), outputs, Divisor::new(groups(outputs)), weights.width3,
            contributions.address, weights.edge.address, weights.bias3.address,
            o + 4 * (part.first * outputs) as u64
        )?;
        Ok(patches)
    }

    /// Runs the products one after another.
    fn run_layers(
        &self,
        queue: &Queue,
        rows: usize,
        patches: u64,
        contributions: u64,
        kept: Option<HiddenAddresses>,
    ) -> Result<()> {
        let (weights, tf32) = (&*self.0, queue.gpu.tf32);
        let room = || queue.matrix(rows, weights.width2, weights.element);
        let dropped = kept.is_none().then(|| Ok::<_, DeviceError>([room()?, room()?])).transpose()?;
        let HiddenAddresses { layers: [h1, h2], masks: [mask1, mask2] } = kept.unwrap_or(HiddenAddresses {
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

/// Data-dependent initialisation of both actnorms, in `f32`: the second on the output of the initialised
/// first one.
pub fn initialize(queue: &Queue, params: &NetworkParams, grid: Grid, x: u64, buffer: u64) -> Result<()> {
    let rows = grid.rows();
    // Statistics need all rows at once.
    queue.counted(rows * params.hidden.next_multiple_of(8))?;
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
        actnorm::initialize(queue, &norm, rows, params.hidden.next_multiple_of(8), h.address, buffer)?;
        drop(h);
        input = Some(run(from.address, Epilogue::BiasRelu)?);
    }
    Ok(())
}
