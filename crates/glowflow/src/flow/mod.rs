//! The layers of a flow: each an invertible map whose log-determinant is known.
//!
//! A flow is a list of [`Layer`]s. Forward they turn an image into latents, one after the other; inverse
//! they turn latents into an image, in the opposite order. What passes from one to the next is a
//! [`State`]: the variable `x`, the latents factored out so far, and the log-likelihood that has come together.
//!
//! No tape records a training step. A layer's [`backward`](Prepared::backward) rebuilds its input from its output,
//! so what a flow needs for its gradient is where it ended, and memory does not grow with depth.
//!
//! A new layer is one file here that implements [`Layer`] and [`Prepared`], and one line in `tests/layers.rs`.

mod channel_map;
mod coupling;
mod split;
mod squeeze;
mod top;

pub use channel_map::ActNormPermutation;
pub use coupling::Coupling;
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

/// What passes from layer to layer.
#[derive(Debug)]
pub struct State<D: Device> {
    /// The flow's variable. Before the first layer the image `v`; after the last nothing is left of it.
    pub x: Tensor<D>,
    /// Standardised latents `eps`, one tensor for each level that has been factored out.
    pub latents: Vec<Tensor<D>>,
    /// Log-likelihood of each sample so far, `[batch]`.
    pub logp: D::Buffer,
    /// One-hot labels `[batch, classes]`; empty where the model has no classes.
    pub labels: D::Buffer,
}

/// What a coupling keeps on the way forward so that its gradient need not run its network again.
pub struct Kept<D: Device> {
    /// The network's hidden activations.
    pub hidden: D::Hidden,
    /// The network's output.
    pub o: D::Buffer,
}

/// The way back: everything that a layer needs to pass a gradient on.
pub struct Backward<'a, D: Device> {
    /// The device.
    pub device: &'a D,
    /// The flat parameter buffer.
    pub params: &'a D::Buffer,
    /// The output of the layer, which it turns into its input.
    pub state: State<D>,
    /// The gradient of the loss by `state.x`, which it turns likewise.
    pub dx: D::Buffer,
    /// The gradient of the loss by one sample's log-likelihood.
    pub dlogp: f64,
    /// The gradient by the parameters, to which it adds its own.
    pub gradient: &'a mut D::Buffer,
}

/// An invertible layer, as a description: where its parameters lie, and what it does with them.
pub trait Layer<D: Device>: Send + Sync {
    /// Reads the parameters and makes them ready to run in one direction.
    fn prepare(&self, device: &D, params: &D::Buffer, direction: Direction) -> Box<dyn Prepared<D>>;

    /// Data-dependent initialisation from the layer's first input.
    fn initialize(&self, _device: &D, _params: &mut D::Buffer, _input: &State<D>) {}
}

/// A layer with its parameters, ready to run in the direction it was prepared for, and in no other.
pub trait Prepared<D: Device>: Send + Sync {
    /// Towards the latents.
    fn forward(&self, device: &D, state: &mut State<D>);

    /// Towards the image. Log-likelihoods are left alone.
    fn inverse(&self, device: &D, state: &mut State<D>);

    /// As [`forward`](Self::forward); returns what saves work in [`backward`](Self::backward), if anything does.
    fn forward_keeping(&self, device: &D, state: &mut State<D>) -> Option<Kept<D>> {
        self.forward(device, state);
        None
    }

    /// Turns the layer's output into its input, and gradients likewise. `kept` is what
    /// [`forward_keeping`](Self::forward_keeping) returned, or `None` to compute it anew: the same numbers either way.
    fn backward(&self, pass: &mut Backward<'_, D>, kept: Option<Kept<D>>);
}
