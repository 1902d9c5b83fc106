//! The layers of a flow: invertible maps with a known log-determinant.
//!
//! A flow is a list of [`Layer`]s. The forward direction maps an image to latents, layer by layer; the
//! inverse maps latents to an image, in reverse order. A [`State`] is threaded through the layers: the
//! variable `x`, the latents factored out so far, and the log-likelihood so far.
//!
//! A training step records no tape. A layer's [`backward`](Prepared::backward) reconstructs its input from
//! its output, so the gradient only needs the final state, and memory does not grow with depth.
//!
//! A new layer is a file here that implements [`Layer`] and [`Prepared`], and a line in `tests/suite/layers.rs`. It
//! declares its tensors with a [`ParamBuilder`](crate::params::ParamBuilder).

mod additive_coupling;
mod batch_norm;
mod builder;
mod channel_map;
mod condition_network;
mod conditional_coupling;
mod context;
mod coupling;
mod dequantizer;
mod edge_prior;
mod factor;
mod final_prior;
mod logit;
mod masked_coupling;
mod mlp;
mod network;
mod network_norm;
mod norm;
mod reorder;
mod residual_network;
mod saved;
mod scaling;
mod shape;
mod split;
mod squeeze;
pub mod views;
mod weight_norm;

pub use additive_coupling::AdditiveCoupling;
pub use batch_norm::BatchNorm;
pub use builder::{FlowBuilder, NamedLayer};
pub use channel_map::ActNormPermutation;
pub use conditional_coupling::{Changes, ConditionalCoupling};
pub use context::{Context, Mode};
pub use coupling::{Coupling, Transform};
pub use dequantizer::{Dequantized, Dequantizer, DequantizerConfig};
pub use factor::{FactorOut, FactorRest};
pub use final_prior::FinalPrior;
pub use logit::Logit;
pub use masked_coupling::{Mask, MaskedCoupling};
pub use network::{NetworkKind, SelfAttention};
pub use reorder::Reorder;
pub use saved::{Save, Saved};
pub use scaling::Scaling;
pub use shape::{Base, LatentShape, Shape, Shapes};
pub use split::Split;
pub use squeeze::Squeeze;

use glowflow_kernels::{Device, Direction, Grid};

/// Activations `[grid, channels]` on a device, NHWC.
#[derive(Debug)]
pub struct Tensor<D: Device> {
    /// Batch, height and width.
    pub grid: Grid,
    /// Channels.
    pub channels: usize,
    /// `grid.rows() · channels` numbers.
    pub data: D::Buffer,
}

/// State threaded through the layers.
#[derive(Debug)]
pub struct State<D: Device> {
    /// The flow variable: the image `v` before the first layer, empty after the last.
    pub x: Tensor<D>,
    /// Standardised latents `eps`, one tensor per level that has been factored out.
    pub latents: Vec<Tensor<D>>,
    /// Log-likelihood of each sample so far, `[batch]`.
    pub logp: D::Buffer,
    /// The class of each image, `[batch]`; empty if the model has no classes.
    pub labels: D::Buffer,
    /// Input of conditional layers, unchanged by all layers.
    pub condition: Option<Tensor<D>>,
    /// Batch statistics in the layout of the buffers; empty in [`Mode::Eval`].
    pub statistics: D::Buffer,
}

impl<D: Device> State<D> {
    /// Removes the most recently factored-out latents.
    ///
    /// # Panics
    /// If there are none: more layers ran backward than forward.
    pub(crate) fn pop_latents(&mut self) -> Tensor<D> {
        match self.latents.pop() {
            Some(latents) => latents,
            None => panic!("no latents are left for a layer that factored some out"),
        }
    }

    /// The input of conditional layers.
    ///
    /// # Panics
    /// If there is none.
    pub(crate) fn condition(&self) -> &Tensor<D> {
        match &self.condition {
            Some(condition) => condition,
            None => panic!("a conditional layer ran on a state without a condition"),
        }
    }
}

/// The backward pass: everything that a layer needs to propagate a gradient.
pub struct BackwardPass<'a, D: Device> {
    /// The context of the forward pass.
    pub cx: Context<'a, D>,
    /// The layer's output, which it replaces by its input.
    pub state: State<D>,
    /// The gradient of the loss with respect to `state.x`, replaced likewise.
    pub dx: D::Buffer,
    /// The gradient of the loss with respect to `state.condition`, to which conditional layers add theirs;
    /// empty without a condition.
    pub dcondition: D::Buffer,
    /// The gradient of the loss with respect to the log-likelihood of one sample.
    pub dlogp: f64,
    /// The parameters' gradient, to which the layer adds its own.
    pub gradient: &'a mut D::Buffer,
}

/// The description of an invertible layer: its parameters' spans, and its operations.
pub trait Layer<D: Device>: Send + Sync {
    /// Shapes of the output and of the factored-out latents.
    fn shapes(&self, input: Shape) -> Shapes;

    /// Numbers per image that the backward pass holds in memory in addition to input and output, for memory
    /// estimates.
    fn activations(&self, _input: Shape) -> usize {
        0
    }

    /// The part of [`activations`](Self::activations) that is in single precision regardless of the networks'
    /// precision.
    fn full_activations(&self, _input: Shape) -> usize {
        0
    }

    /// Multiply-adds per image of the matrix products and convolutions of a forward pass. Element-wise work
    /// is not counted.
    fn multiply_adds(&self, _input: Shape) -> u128 {
        0
    }

    /// Reads the parameters and prepares them for one direction.
    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>>;

    /// Data-dependent initialisation from the layer's first input: the parts of a batch.
    fn initialize(&self, _device: &D, _params: &mut D::Buffer, _parts: &[State<D>]) {}
}

/// A layer with its parameters, prepared for one direction and one mode.
///
/// Every function receives the context in which the layer was prepared.
pub trait Prepared<D: Device>: Send + Sync {
    /// Runs towards the latents.
    ///
    /// Returns the values requested by `save`. In [`Mode::Train`] a layer with running statistics writes
    /// those of the batch to [`State::statistics`].
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved;

    /// Runs towards the image. Log-likelihoods are unchanged.
    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>);

    /// Replaces the layer's output by its input, and the output gradient by the input gradient.
    ///
    /// `saved` is the value that [`forward`](Self::forward) returned for the same input. The results are the
    /// same for [`Save::Minimum`] and [`Save::Activations`].
    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved);
}
