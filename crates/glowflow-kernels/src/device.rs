//! The seam between the flow and the machine that computes it.

use std::fmt::Debug;

use crate::random::Stream;
use crate::real::Real;
use crate::shape::{
    ActNormParams, ChannelMapParams, CouplingKind, Grid, NetworkParams, TopPriorParams, ZeroConvParams,
};

/// Why a device could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    /// This machine has no such device.
    #[error("there is no device {device}: {reason}")]
    Absent {
        /// The device as the user named it.
        device: String,
        /// What was looked for, and what there is instead.
        reason: String,
    },
    /// The device cannot be used as it is.
    #[error("device {device} is not available: {reason}")]
    Unavailable {
        /// The device as the user named it.
        device: String,
        /// What is missing, and what would help.
        reason: String,
    },
    /// An earlier operation failed; what came after it was not computed.
    #[error("{device} failed: {reason}")]
    Failed {
        /// The device's name.
        device: String,
        /// The failure, in the device's words.
        reason: String,
    },
    /// The device's memory does not suffice.
    #[error(
        "{device} has too little memory: {} MiB more were needed, {} of its {} MiB are free. Less is needed with \
         a smaller train.batch, a larger train.accumulate, train.backprop=reversible, a smaller model.hidden or fewer images \
         at once",
        requested >> 20, free >> 20, total >> 20
    )]
    OutOfMemory {
        /// The device's name.
        device: String,
        /// Bytes that were asked for.
        requested: usize,
        /// Bytes that were free.
        free: usize,
        /// Bytes that there are.
        total: usize,
    },
}

/// Where the noise of dequantisation comes from.
#[derive(Clone, Copy, Debug)]
pub enum Noise<'a, R> {
    /// The middle of every bin: deterministic.
    Midpoint,
    /// Uniform over every bin, from a random stream.
    Uniform(Stream),
    /// Given, in `[0, 1/bins)`, one number for each byte.
    Given(&'a [R]),
}

/// What [`Device::quantize`] makes of images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantized {
    /// The pixels.
    pub pixels: Vec<u8>,
    /// Whether all numbers were finite: pixels of those that were not mean nothing.
    pub finite: bool,
}

/// Direction in which an invertible map, or a layer, is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the image towards the latents.
    Forward,
    /// From the latents towards the image.
    Inverse,
    /// The way back of a training step: from the latents towards the image, with gradients.
    Backward,
}

/// The optimiser's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Kingma and Ba, "Adam", algorithm 1.
    Adam,
    /// Kingma and Ba, "Adam", algorithm 2, with ε added to |g| as PyTorch does.
    Adamax,
}

/// One optimiser step, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// The rule.
    pub rule: Rule,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Keeps the denominator from 0.
    pub epsilon: f64,
    /// Which update this is, counted from 1: bias correction needs it.
    pub count: u64,
    /// Gradients of a larger norm are scaled down to this one.
    pub clip: Option<f64>,
    /// `ema ← decay·ema + (1 − decay)·weights` after the update.
    pub ema_decay: f64,
}

/// What an optimiser step works on: flat buffers of one length.
#[derive(Debug)]
pub struct Training<'a, B> {
    /// The weights.
    pub weights: &'a mut B,
    /// Their gradient; zero afterwards.
    pub gradient: &'a mut B,
    /// First moment.
    pub first: &'a mut B,
    /// Second moment (Adam) or infinity norm (Adamax).
    pub second: &'a mut B,
    /// Exponential moving average of the weights.
    pub ema: &'a mut B,
}

/// What became of an optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct UpdateReport {
    /// Euclidean norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// False if the loss or the gradient was not finite, or too large for the rule: only the gradient was
    /// changed.
    pub applied: bool,
    /// False if a new weight, moment or average was not finite. Such a parameter keeps its old values while
    /// all others are updated, so that the buffers hold finite numbers but the state of no step: training
    /// must not go on from it.
    ///
    /// Checking in advance would read all buffers a second time, and undoing the step is not exact.
    pub all_finite: bool,
}

/// A machine that computes the parts of a flow.
///
/// Activations are row-major `[rows, channels]` with `rows = grid.rows()`, in `Real`, which is `f32`
/// on every device that trains; what a coupling network uses inside is the device's own affair
/// ([`Network`](Self::Network), [`Hidden`](Self::Hidden)), provided that equal inputs give equal
/// bits, since a coupling is inverted by running its network again.
///
/// **Operations do not return errors.** A device may queue them. It remembers the first failure, does
/// nothing from there on, and reports it at the next [`download`](Self::download) or
/// [`update`](Self::update), the points at which a host waits for results.
///
/// **Buffers have the lengths that shapes say.** Operations panic where one is too short.
///
/// In `backward` operations `dlogp` is the derivative of the loss by the log-likelihood of one
/// sample: the same for every sample, and known beforehand. Gradients are added to `gradient`, a
/// buffer laid out as the parameters are.
#[allow(clippy::too_many_arguments)]
pub trait Device: Clone + Debug + Send + Sync + 'static {
    /// Scalar of the flow variables and parameters.
    type Real: Real;
    /// An array of `Real` in the device's memory.
    type Buffer: Debug + Send + Sync;
    /// An actnorm and permutation folded into one affine map, made for one direction.
    type ChannelMap: Send + Sync;
    /// A coupling network's weights as the device wants them.
    type Network: Send + Sync;
    /// Hidden activations of a coupling network, kept for its gradient.
    type Hidden: Send + Sync;
    /// A zero convolution's weights as the device wants them.
    type ZeroConv: Send + Sync;
    /// The top prior's parameters as the device wants them.
    type TopPrior: Send + Sync;
    /// Operations that the device can repeat by itself.
    type Recording: Send + Sync;

    /// What to call this device in a report.
    fn name(&self) -> String;

    /// Pixels that should be computed at once where nothing else speaks for a number.
    fn pixels_at_once(&self) -> usize;

    /// Layers that should be made ready together before a training step runs them: few, whatever the depth, for their weights are in memory
    /// twice meanwhile.
    fn layers_at_once(&self) -> usize;

    /// The most bytes of its own memory that the device has used at once, where it has memory of its own.
    fn peak_memory(&self) -> Option<u64>;

    /// Calls `work`, which runs many operations, from where they cost least to start: on a processor that is
    /// one of its threads.
    fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    // ---- repetition ----------------------------------------------------------------------------

    /// Records the operations that `work` asks of the device it is given, without doing them, for [`replay`](Self::replay) to do them
    /// again and again on the same buffers; `None` where the device gains nothing by that, or has not the memory for it. What
    /// `work` returns may hold buffers: each replay overwrites them.
    ///
    /// All that `work` does must have been done once before, for a device may have things to prepare that cannot be recorded. It must
    /// not wait for results, and nothing that varies may pass through the host. Gradients are complete when the record ends, and where they are copied;
    /// nothing else may read them before.
    fn record<T>(&self, work: impl FnOnce(&Self) -> T) -> Option<(T, Self::Recording)>;

    /// Does what was recorded.
    fn replay(&self, recording: &Self::Recording);

    // ---- memory --------------------------------------------------------------------------------

    /// A buffer whose contents do not matter.
    fn scratch(&self, len: usize) -> Self::Buffer;

    /// A buffer of zeros.
    fn zeros(&self, len: usize) -> Self::Buffer;

    /// A buffer with these contents.
    fn upload(&self, values: &[Self::Real]) -> Self::Buffer;

    /// The contents of a buffer, when everything queued before is done.
    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<Self::Real>, DeviceError>;

    /// Overwrites `to` with `from`, of the same length.
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer);

    /// A copy of a buffer that holds `len` numbers.
    fn copied(&self, from: &Self::Buffer, len: usize) -> Self::Buffer {
        let mut copy = self.scratch(len);
        self.copy(from, &mut copy);
        copy
    }

    // ---- data and noise ------------------------------------------------------------------------

    /// `v = floor(pixel / 2^(8−bits)) / 2^bits − 0.5 + noise`, element by element.
    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, Self::Real>, v: &mut Self::Buffer);

    /// Pixels of continuous images `v`, when everything queued before is done: `clamp(floor((v + 0.5)·2^bits), 0, 2^bits − 1)`, scaled to
    /// 0..=255. A NaN becomes 0.
    ///
    /// # Errors
    /// The first failure of this device, if there was one.
    fn quantize(&self, v: &Self::Buffer, bits: u32) -> Result<Quantized, DeviceError>;

    /// Fills `out` `[images, …]` with `scale` times standard normal numbers; image `i` is drawn from the stream with the id
    /// `stream.id + i`, and so does not depend on the others.
    fn normal(&self, stream: Stream, images: usize, scale: f64, out: &mut Self::Buffer);

    // ---- layout --------------------------------------------------------------------------------

    /// Squeeze of `x` `[grid, channels]` into `y` `[grid.halved(), 4·channels]`:
    /// output channel `4c + 2dy + dx` is input channel `c` at pixel `(2h + dy, 2w + dx)`.
    fn squeeze(&self, grid: Grid, channels: usize, x: &Self::Buffer, y: &mut Self::Buffer);

    /// The inverse of [`squeeze`](Self::squeeze), with the same `grid` and `channels`.
    fn unsqueeze(&self, grid: Grid, channels: usize, y: &Self::Buffer, x: &mut Self::Buffer);

    /// Takes `x` `[rows, channels]` apart into its first and its last half of the channels.
    fn split(&self, channels: usize, x: &Self::Buffer, first: &mut Self::Buffer, last: &mut Self::Buffer);

    /// The inverse of [`split`](Self::split).
    fn join(&self, channels: usize, first: &Self::Buffer, last: &Self::Buffer, x: &mut Self::Buffer);

    // ---- actnorm and permutation ---------------------------------------------------------------

    /// Folds an actnorm and its permutation into one affine map. A device may wait with that until it is asked for something else than to
    /// make ready, so that it does several maps at once; they are made of the parameters as they are now.
    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Self::Buffer,
        direction: Direction,
    ) -> Self::ChannelMap;

    /// Applies a map made for [`Direction::Forward`] or [`Direction::Inverse`] to `x` in place. The one forward adds its log-determinant to
    /// `logp` `[batch]`; the inverse adds nothing, as densities are of interest on the way forward alone.
    fn channel_map(
        &self,
        map: &Self::ChannelMap,
        grid: Grid,
        x: &mut Self::Buffer,
        logp: Option<&mut Self::Buffer>,
    );

    /// Turns the output `x` into the input and the gradient `dx` by the output into that by the input, given the map made for
    /// [`Direction::Backward`].
    fn channel_map_backward(
        &self,
        map: &Self::ChannelMap,
        at: &ChannelMapParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        dlogp: f64,
        gradient: &mut Self::Buffer,
    );

    /// Data-dependent initialisation: sets bias and logs so that the actnorm of `x`
    /// `[rows, channels]` has mean 0 and standard deviation 1 in every channel.
    fn initialize_actnorm(&self, at: &ActNormParams, x: &Self::Buffer, params: &mut Self::Buffer);

    // ---- coupling networks ---------------------------------------------------------------------

    /// Brings a network's weights into the device's form; a device may wait with that as with channel maps.
    fn prepare_network(&self, at: &NetworkParams, params: &Self::Buffer) -> Self::Network;

    /// Runs the network on the first half of the channels of `x` `[rows, 2·inputs]`, into `o`
    /// `[rows, outputs]`.
    fn network(&self, network: &Self::Network, grid: Grid, x: &Self::Buffer, o: &mut Self::Buffer);

    /// As [`network`](Self::network), and hands out the hidden activations.
    fn network_keeping(
        &self,
        network: &Self::Network,
        grid: Grid,
        x: &Self::Buffer,
        o: &mut Self::Buffer,
    ) -> Self::Hidden;

    /// Adds the gradient by the input to the first half of the channels of `dx` `[rows, 2·inputs]`,
    /// given that by the output, `d_o`.
    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        hidden: &Self::Hidden,
        d_o: &Self::Buffer,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );

    /// Data-dependent initialisation of both actnorms inside the network.
    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &Self::Buffer, params: &mut Self::Buffer);

    // ---- zero convolutions (the split's prior) -------------------------------------------------

    /// Brings the weights of a zero convolution into the device's form.
    fn prepare_zero_conv(&self, at: &ZeroConvParams, params: &Self::Buffer) -> Self::ZeroConv;

    /// Applies it to `x` `[rows, inputs]`, into `y` `[rows, outputs]`.
    fn zero_conv(&self, conv: &Self::ZeroConv, grid: Grid, x: &Self::Buffer, y: &mut Self::Buffer);

    /// Adds the gradient by the input to `dx`, given that by the output, `dy`.
    fn zero_conv_backward(
        &self,
        at: &ZeroConvParams,
        params: &Self::Buffer,
        grid: Grid,
        x: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Buffer,
    );

    // ---- coupling ------------------------------------------------------------------------------

    /// Changes the last half of the channels of `x` `[rows, channels]` as `kind` says, and adds the
    /// log-determinant to `logp` `[batch]`.
    fn couple(
        &self,
        kind: CouplingKind,
        grid: Grid,
        channels: usize,
        o: &Self::Buffer,
        x: &mut Self::Buffer,
        logp: &mut Self::Buffer,
    );

    /// Undoes [`couple`](Self::couple).
    fn uncouple(&self, kind: CouplingKind, channels: usize, o: &Self::Buffer, x: &mut Self::Buffer);

    /// Turns the output `x` into the input and `dx` likewise (but for what flows through the
    /// network), and writes the gradient by the network's output into `d_o`.
    fn couple_backward(
        &self,
        kind: CouplingKind,
        channels: usize,
        o: &Self::Buffer,
        x: &mut Self::Buffer,
        dx: &mut Self::Buffer,
        dlogp: f64,
        d_o: &mut Self::Buffer,
    );

    // ---- priors --------------------------------------------------------------------------------

    /// Brings the top prior's parameters into the device's form.
    fn prepare_top_prior(&self, at: &TopPriorParams, params: &Self::Buffer) -> Self::TopPrior;

    /// Mean and log standard deviation of the top level, `prior` `[rows, 2·channels]`, the same at every
    /// pixel of an image. `labels` `[batch]` are the numbers of classes, which are exact in `f32` up to 2²⁴; it is empty if the model
    /// has no classes.
    fn top_prior(&self, top: &Self::TopPrior, grid: Grid, labels: &Self::Buffer, prior: &mut Self::Buffer);

    /// The gradient of the top prior's parameters, given that by `prior`.
    fn top_prior_backward(
        &self,
        at: &TopPriorParams,
        grid: Grid,
        labels: &Self::Buffer,
        d_prior: &Self::Buffer,
        gradient: &mut Self::Buffer,
    );

    /// Standardises `z` `[rows, channels]` in place: `eps = (z − mean)·exp(−logs)` with `(mean, logs)`
    /// the halves of `prior` `[rows, 2·channels]`; adds `log N(z; mean, exp(logs)²)` to `logp` `[batch]`.
    fn standardize(
        &self,
        grid: Grid,
        channels: usize,
        prior: &Self::Buffer,
        z: &mut Self::Buffer,
        logp: &mut Self::Buffer,
    );

    /// Undoes [`standardize`](Self::standardize).
    fn unstandardize(&self, channels: usize, prior: &Self::Buffer, eps: &mut Self::Buffer);

    /// The gradient of the log-likelihood by `z` and by `prior`, given `eps`.
    fn standardize_backward(
        &self,
        channels: usize,
        prior: &Self::Buffer,
        eps: &Self::Buffer,
        dlogp: f64,
        dz: &mut Self::Buffer,
        d_prior: &mut Self::Buffer,
    );

    // ---- training ------------------------------------------------------------------------------

    /// One optimiser step. If the gradient, or a log-likelihood in one of `logp`, is not finite, weights,
    /// moments and average stay as they are. No number that is not finite is ever written to them
    /// ([`all_finite`](UpdateReport::all_finite)). The gradient is zero afterwards either way.
    fn update(
        &self,
        update: &Update,
        logp: &[&Self::Buffer],
        training: Training<'_, Self::Buffer>,
    ) -> Result<UpdateReport, DeviceError>;
}
