//! The layers of a flow: each an invertible map whose log-determinant is known.
//!
//! A flow is a list of [`Layer`]s. Forward they turn an image into latents, one after the other; inverse
//! they turn latents into an image, in the opposite order. They are threaded through by a
//! [`State`]: the variable `x`, the latents factored out so far, and the log-likelihood so far.
//!
//! No tape records a training step. A layer's [`backward`](Prepared::backward) rebuilds its input from its output,
//! so what a flow needs for its gradient is where it ended, and memory does not grow with depth.
//!
//! A new layer is one file here that implements [`Layer`] and [`Prepared`], and one line in `tests/layers.rs`. It declares
//! its tensors with a [`ParamBuilder`](crate::params::ParamBuilder).

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
mod top;
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
pub use logit::Logit;
pub use masked_coupling::{Keeps, MaskedCoupling};
pub use network::NetworkKind;
pub use reorder::Reorder;
pub use saved::{Save, Saved};
pub use scaling::Scaling;
pub use shape::{Base, LatentShape, Shape, Shapes};
pub use split::Split;
pub use squeeze::Squeeze;
pub use top::Top;

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
    /// The flow's variable. Before the first layer the image `v`; after the last nothing is left of it.
    pub x: Tensor<D>,
    /// Standardised latents `eps`, one tensor for each level that has been factored out.
    pub latents: Vec<Tensor<D>>,
    /// Log-likelihood of each sample so far, `[batch]`.
    pub logp: D::Buffer,
    /// The number of each image's class, `[batch]`; empty if the model has no classes.
    pub labels: D::Buffer,
    /// Input of conditional layers, which no layer changes.
    pub condition: Option<Tensor<D>>,
    /// Statistics of the batch, laid out as the buffers are; empty in [`Mode::Eval`].
    pub statistics: D::Buffer,
}

impl<D: Device> State<D> {
    /// Takes the latents that were factored out last.
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

/// The backward pass: everything that a layer needs to pass a gradient on.
pub struct BackwardPass<'a, D: Device> {
    /// The context of the forward pass.
    pub cx: Context<'a, D>,
    /// The output of the layer, which it turns into its input.
    pub state: State<D>,
    /// The gradient of the loss by `state.x`, which it turns likewise.
    pub dx: D::Buffer,
    /// The gradient of the loss by `state.condition`, to which conditional layers add theirs; empty without a condition.
    pub dcondition: D::Buffer,
    /// The gradient of the loss by one sample's log-likelihood.
    pub dlogp: f64,
    /// The gradient by the parameters, to which it adds its own.
    pub gradient: &'a mut D::Buffer,
}

/// An invertible layer, as a description: where its parameters lie, and what it does with them.
pub trait Layer<D: Device>: Send + Sync {
    /// Shapes of the output and of what is factored out.
    fn shapes(&self, input: Shape) -> Shapes;

    /// Numbers of one image that the backward pass has in memory besides input and output: to estimate memory.
    fn activations(&self, _input: Shape) -> usize {
        0
    }

    /// Multiply-adds of the matrix products and convolutions of a forward pass on one image. Element-wise work does not
    /// count.
    fn multiply_adds(&self, _input: Shape) -> u128 {
        0
    }

    /// Reads the parameters and makes them ready to run in one direction.
    fn prepare(&self, cx: &Context<'_, D>, direction: Direction) -> Box<dyn Prepared<D>>;

    /// Data-dependent initialisation from the layer's first input.
    fn initialize(&self, _device: &D, _params: &mut D::Buffer, _input: &State<D>) {}
}

/// A layer with its parameters, ready to run in the direction and the mode it was prepared for, and in no other.
///
/// Every function gets the context that the layer was prepared in.
pub trait Prepared<D: Device>: Send + Sync {
    /// Towards the latents.
    ///
    /// Returns what `save` asks for. In [`Mode::Train`] a layer with running statistics writes those of the batch to
    /// [`State::statistics`].
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, save: Save) -> Saved;

    /// Towards the image. Log-likelihoods are left alone.
    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>);

    /// Turns the layer's output into its input, and the gradient by the one into that by the other.
    ///
    /// `saved` is what [`forward`](Self::forward) returned for the same input. The numbers are the same for
    /// [`Save::Minimum`] and [`Save::Activations`].
    fn backward(&self, pass: &mut BackwardPass<'_, D>, saved: Saved);
}
