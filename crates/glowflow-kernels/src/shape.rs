//! Shapes, and where the parameters of a layer lie.
//!
//! Every activation is a row-major matrix of `rows = batch · height · width` pixels by channels
//! (the layout NHWC). Every trained parameter of a model lies in one flat buffer, so that an
//! optimiser step or an all-reduce is a single pass; a layer knows its own parts as [`Span`]s.

use std::ops::Range;

/// The pixels of a batch of feature maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Images.
    pub batch: usize,
    /// Rows of pixels in one image.
    pub height: usize,
    /// Columns of pixels in one image.
    pub width: usize,
}

impl Grid {
    /// Pixels of the whole batch: the rows of an activation.
    pub fn rows(self) -> usize {
        self.batch * self.pixels()
    }

    /// Pixels of one image.
    pub fn pixels(self) -> usize {
        self.height * self.width
    }

    /// The grid after a squeeze: half as high, half as wide.
    pub fn halved(self) -> Self {
        Self { batch: self.batch, height: self.height / 2, width: self.width / 2 }
    }

    /// The grid before a squeeze: twice as high, twice as wide.
    pub fn doubled(self) -> Self {
        Self { batch: self.batch, height: self.height * 2, width: self.width * 2 }
    }
}

/// A part of the flat parameter buffer (and of the gradient, which has the same layout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Index of the first element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
}

impl Span {
    /// The indices as a range, to slice with.
    pub fn range(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// Parameters of an activation normalisation, one bias and one log-scale a channel:
/// `y = (x + bias) ⊙ exp(3·logs)`.
#[derive(Clone, Copy, Debug)]
pub struct ActNormParams {
    /// `[channels]`
    pub bias: Span,
    /// `[channels]`
    pub logs: Span,
}

/// The permutation that follows an actnorm.
#[derive(Clone, Debug)]
pub enum PermutationParams {
    /// `y[i] = x[index[i]]`; nothing to train.
    Fixed {
        /// Which input channel each output channel takes.
        index: Vec<usize>,
    },
    /// `y = P·L·(U + diag(sign ⊙ exp(log_s)))·x`, the invertible 1×1 convolution in LU form.
    Lu {
        /// The permutation matrix P, `(P v)[i] = v[index[i]]`.
        index: Vec<usize>,
        /// Signs of U's diagonal, 1 or −1; fixed.
        sign: Vec<f64>,
        /// `[channels, channels]`, read strictly below the diagonal.
        lower: Span,
        /// `[channels, channels]`, read strictly above the diagonal.
        upper: Span,
        /// `[channels]`
        log_s: Span,
    },
}

/// Actnorm followed by a permutation: one invertible affine map of each pixel's channels.
#[derive(Clone, Debug)]
pub struct ChannelMapParams {
    /// Channels in and out.
    pub channels: usize,
    /// The actnorm, applied first.
    pub actnorm: ActNormParams,
    /// The permutation, applied to its result.
    pub permutation: PermutationParams,
}

/// Parameters of `ZeroConv(x) = (conv3×3(x) + bias) ⊙ exp(3·logs)`.
#[derive(Clone, Copy, Debug)]
pub struct ZeroConvParams {
    /// Input channels, the edge channel not counted.
    pub inputs: usize,
    /// Output channels.
    pub outputs: usize,
    /// `[outputs, inputs + 1, 3, 3]`; the last input channel is the edge channel.
    pub weight: Span,
    /// `[outputs]`
    pub bias: Span,
    /// `[outputs]`
    pub logs: Span,
}

/// Parameters of a coupling network:
/// conv3×3 → actnorm → ReLU → conv1×1 → actnorm → ReLU → ZeroConv.
#[derive(Clone, Copy, Debug)]
pub struct NetworkParams {
    /// Input channels, the edge channel not counted: half of the flow's.
    pub inputs: usize,
    /// Width of both hidden layers.
    pub hidden: usize,
    /// `[hidden, inputs + 1, 3, 3]`
    pub conv1: Span,
    /// After the first convolution.
    pub actnorm1: ActNormParams,
    /// `[hidden, hidden, 1, 1]`
    pub conv2: Span,
    /// After the second convolution.
    pub actnorm2: ActNormParams,
    /// The last convolution; its `inputs` are `hidden`.
    pub conv3: ZeroConvParams,
}

/// Parameters of the learned prior of the last level's latents.
#[derive(Clone, Copy, Debug)]
pub struct TopPriorParams {
    /// Channels of the latents.
    pub channels: usize,
    /// `[channels]`
    pub mean: Span,
    /// `[channels]`
    pub logs: Span,
    /// `[classes, 2·channels]`, where the model has classes.
    pub class_weight: Option<Span>,
}

/// How a coupling changes the second half of the channels, given the network's output `o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CouplingKind {
    /// `y = (x + shift) ⊙ scale`, with `shift = o[..C/2]` and `scale = sigmoid(o[C/2..] + 2)`.
    Affine,
    /// `y = x + o`.
    Additive,
}

impl CouplingKind {
    /// Outputs that the network must have for a flow of `channels` channels.
    pub fn network_outputs(self, channels: usize) -> usize {
        match self {
            Self::Affine => channels,
            Self::Additive => channels / 2,
        }
    }
}
