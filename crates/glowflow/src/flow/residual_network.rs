//! RealNVP's coupling network, a residual network with batch and weight normalisation and skip connections
//! (Dinh, Sohl-Dickstein and Bengio 2016, section 3.7, and the authors' program), from c channels to 2c:
//!
//! ```text
//! a = norm_in(x) (twice that for a checkerboard);  a ← ReLU([a, −a] and the mask)
//! h = conv_in(a);                     sum = skip_0(h)
//! h ← h + conv2(ReLU(norm2(conv1(ReLU(norm1(h)))));  sum ← sum + skip_r(h)      for r = 1…blocks
//! [t, raw] = conv_out(ReLU(norm_out(sum)))
//! ```
//!
//! Activations are `[grid, width]`. The backward pass recomputes every `ReLU(norm(·))`, which costs one
//! element-wise pass, so only the inputs of the norms are saved.

use glowflow_kernels::expr::{Expr, checkerboard, constant, input, old};
use glowflow_kernels::{Device, Grid, Primitives, Span, Strided};

use super::Context;
use super::network_norm::{Gradient, Norm};
use super::norm::Statistics;
use super::views::{Dims, of_span, per_channel, read, write};
use super::weight_norm::{NormalizedConv, Weight};
use crate::params::{Init, ParamBuilder};

/// The channels that are the network's input.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// All, masked by a checkerboard with this parity.
    Checkerboard {
        /// See [`checkerboard`].
        parity: usize,
    },
    /// A range of channels of activations with `of` channels.
    Channels {
        /// The first channel.
        first: usize,
        /// Number of channels of the activations.
        of: usize,
    },
}

impl Source {
    /// Strides of the input in the activations.
    fn at(self, dims: Dims) -> Strided {
        match self {
            Self::Checkerboard { .. } => dims.each(),
            Self::Channels { first, of } => dims.part(of, first),
        }
    }

    /// The mask of the input, in images of this width.
    fn mask(self, width: usize) -> Option<Expr> {
        match self {
            Self::Checkerboard { parity } => Some(checkerboard(width, parity)),
            Self::Channels { .. } => None,
        }
    }

    /// Factor of the normalised input.
    fn gain(self) -> f64 {
        if matches!(self, Self::Checkerboard { .. }) { 2.0 } else { 1.0 }
    }
}

/// Spans of a network's tensors.
#[derive(Clone, Debug)]
pub struct ResidualNetwork {
    channels: usize,
    hidden: usize,
    source: Source,
    norm_in: Norm,
    conv_in: NormalizedConv,
    blocks: Vec<Block>,
    skips: Vec<NormalizedConv>,
    norm_out: Norm,
    conv_out: NormalizedConv,
    bias: Span,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    norm1: Norm,
    norm2: Norm,
    conv1: NormalizedConv,
    conv2: NormalizedConv,
}

/// Normalised weights of all convolutions.
pub struct Weights<D: Device> {
    conv_in: Weight<D>,
    blocks: Vec<[Weight<D>; 2]>,
    skips: Vec<Weight<D>>,
    conv_out: Weight<D>,
}

/// Saved activations of a network, in addition to its input.
pub struct Activations<D: Device> {
    statistics_in: Statistics<D>,
    /// Residual activations, starting with the output of `conv_in`.
    h: Vec<D::Buffer>,
    blocks: Vec<BlockActivations<D>>,
    sum: D::Buffer,
    statistics_out: Statistics<D>,
}

struct BlockActivations<D: Device> {
    statistics1: Statistics<D>,
    /// The output of `conv1`.
    inner: D::Buffer,
    statistics2: Statistics<D>,
}

impl ResidualNetwork {
    /// Declares the tensors of a network of `hidden` channels with `blocks` residual blocks for `channels`
    /// inputs.
    pub fn new(
        p: &mut ParamBuilder<'_>,
        channels: usize,
        hidden: usize,
        blocks: usize,
        source: Source,
    ) -> Self {
        let inputs = 2 * channels + usize::from(matches!(source, Source::Checkerboard { .. }));
        let conv = |p: &mut ParamBuilder<'_>, name: &str, inputs, outputs, kernel, magnitude| {
            p.scope(name, |p| NormalizedConv::new(p, inputs, outputs, kernel, magnitude))
        };
        let norm_in = Norm::new(p, "norm_in", channels);
        let conv_in = conv(p, "conv_in", inputs, hidden, 3, false);
        let block = |p: &mut ParamBuilder<'_>, r| {
            p.scope(format!("blocks.{r}"), |p| Block {
                norm1: Norm::new(p, "norm1", hidden),
                norm2: Norm::new(p, "norm2", hidden),
                conv1: conv(p, "conv1", hidden, hidden, 3, false),
                conv2: conv(p, "conv2", hidden, hidden, 3, true),
            })
        };
        let blocks: Vec<_> = (0..blocks).map(|r| block(p, r)).collect();
        let skips =
            (0..=blocks.len()).map(|r| conv(p, &format!("skips.{r}"), hidden, hidden, 1, true)).collect();
        let norm_out = Norm::new(p, "norm_out", hidden);
        let conv_out = conv(p, "conv_out", hidden, 2 * channels, 1, true);
        let bias = p.scope("conv_out", |p| p.parameter("bias", &[2 * channels], Init::Zeros));
        Self { channels, hidden, source, norm_in, conv_in, blocks, skips, norm_out, conv_out, bias }
    }

    /// Numbers per pixel in [`Activations`].
    pub fn activations(&self) -> usize {
        (2 * self.blocks.len() + 2) * self.hidden
    }

    /// Multiply-adds of its convolutions per pixel.
    pub fn multiply_adds(&self) -> u128 {
        let blocks = self.blocks.iter().flat_map(|block| [&block.conv1, &block.conv2]);
        let convs = [&self.conv_in, &self.conv_out].into_iter().chain(blocks).chain(&self.skips);
        convs.map(|conv| conv.multiply_adds()).sum()
    }

    /// Normalises all weights.
    pub fn prepare<D: Primitives>(&self, cx: &Context<'_, D>) -> Weights<D> {
        Weights {
            conv_in: self.conv_in.prepare(cx),
            blocks: self
                .blocks
                .iter()
                .map(|block| [block.conv1, block.conv2].map(|conv| conv.prepare(cx)))
                .collect(),
            skips: self.skips.iter().map(|skip| skip.prepare(cx)).collect(),
            conv_out: self.conv_out.prepare(cx),
        }
    }

    fn dims(&self, grid: Grid) -> Dims {
        Dims::of(grid, self.channels)
    }

    /// The masked input, given as input 0.
    fn masked(&self, grid: Grid) -> Expr {
        match self.source.mask(grid.width) {
            Some(mask) => mask * input(0),
            None => input(0),
        }
    }

    /// `ReLU([a, −a] and the mask)`, the input of `conv_in`.
    fn rectified<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        grid: Grid,
        x: &D::Buffer,
        statistics: &Statistics<D>,
    ) -> D::Buffer {
        let (device, dims) = (cx.device, self.dims(grid));
        let mask = self.source.mask(grid.width);
        let columns = 2 * self.channels + usize::from(mask.is_some());
        let mut a = device.scratch(dims.rows() * columns);
        let inputs = self.norm_in.inputs(cx, read(x, self.source.at(dims)), statistics);
        for (first, sign) in [(0, 1.0), (self.channels, -1.0)] {
            let gain = constant(sign * self.source.gain());
            let f = (gain * self.normalized_input(grid)).relu();
            device.map(&f, dims.shape(), &inputs, write(&mut a, dims.part(columns, first)));
        }
        if let Some(mask) = mask {
            let one = Dims { channels: 1, ..dims };
            device.map(&mask, one.shape(), &[], write(&mut a, one.part(columns, 2 * self.channels)));
        }
        a
    }

    /// The norm of the masked input, of [`Norm::inputs`].
    fn normalized_input(&self, grid: Grid) -> Expr {
        (self.masked(grid) - input(1)) * input(2) + input(3)
    }

    /// Runs the network on its source channels of `x`; returns `[grid, 2·channels]`: t, then raw. `batch`
    /// receives the statistics of the batch in training mode.
    pub fn run<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        weights: &Weights<D>,
        grid: Grid,
        x: &D::Buffer,
        batch: Option<&mut D::Buffer>,
    ) -> D::Buffer {
        self.run_saving(cx, weights, grid, x, batch).0
    }

    /// Like [`run`](Self::run), and returns the activations.
    pub fn run_saving<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        weights: &Weights<D>,
        grid: Grid,
        x: &D::Buffer,
        mut batch: Option<&mut D::Buffer>,
    ) -> (D::Buffer, Activations<D>) {
        let (device, dims, wide) = (cx.device, self.dims(grid), Dims::of(grid, self.hidden));
        let source = read(x, self.source.at(dims));
        let statistics_in =
            self.norm_in.running.statistics(cx, dims, &self.masked(grid), &[source], batch.as_deref_mut());
        let a = self.rectified(cx, grid, x, &statistics_in);
        let mut first = device.scratch(wide.len());
        self.conv_in.run(device, &weights.conv_in, grid, &a, &mut first, false);
        drop(a);
        let mut sum = device.scratch(wide.len());
        self.skips[0].run(device, &weights.skips[0], grid, &first, &mut sum, false);
        let (mut h, mut blocks) = (vec![first], vec![]);
        let inner_blocks = self.blocks.iter().zip(&weights.blocks);
        for ((block, [conv1, conv2]), (skip, skip_weight)) in
            inner_blocks.zip(self.skips.iter().zip(&weights.skips).skip(1))
        {
            let before = &h[h.len() - 1];
            let mut statistics =
                |norm: &Norm, x: &D::Buffer| norm.running.statistics_of(cx, wide, x, batch.as_deref_mut());
            let statistics1 = statistics(&block.norm1, before);
            let mut inner = device.scratch(wide.len());
            let y = block.norm1.relu(cx, wide, before, &statistics1);
            block.conv1.run(device, conv1, grid, &y, &mut inner, false);
            let statistics2 = statistics(&block.norm2, &inner);
            let y = block.norm2.relu(cx, wide, &inner, &statistics2);
            let mut after = device.copied(before, wide.len());
            block.conv2.run(device, conv2, grid, &y, &mut after, true);
            skip.run(device, skip_weight, grid, &after, &mut sum, true);
            h.push(after);
            blocks.push(BlockActivations { statistics1, inner, statistics2 });
        }
        let statistics_out = self.norm_out.running.statistics_of(cx, wide, &sum, batch);
        let y = self.norm_out.relu(cx, wide, &sum, &statistics_out);
        let out = Dims { channels: 2 * self.channels, ..dims };
        let mut o = device.scratch(out.len());
        device.map(&input(0), out.shape(), &[of_span(cx.params, self.bias)], write(&mut o, out.each()));
        self.conv_out.run(device, &weights.conv_out, grid, &y, &mut o, true);
        (o, Activations { statistics_in, h, blocks, sum, statistics_out })
    }

    /// Adds the parameters' gradients, and adds the input gradient to the source channels of `dx`, given the
    /// output gradient `d_o`.
    #[allow(clippy::too_many_arguments)]
    pub fn backward<D: Primitives>(
        &self,
        cx: &Context<'_, D>,
        weights: &Weights<D>,
        grid: Grid,
        x: &D::Buffer,
        saved: Activations<D>,
        d_o: &D::Buffer,
        dx: &mut D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let (device, dims, wide) = (cx.device, self.dims(grid), Dims::of(grid, self.hidden));
        let Activations { statistics_in, mut h, blocks, sum, statistics_out } = saved;

        let out = Dims { channels: 2 * self.channels, ..dims };
        let mut by_bias = device.scratch(out.channels);
        let each = read(d_o, out.each());
        device.reduce(&input(0), out.shape(), &[each], write(&mut by_bias, per_channel(0)), false);
        let bias = write(gradient, per_channel(self.bias.start));
        device.map(&(old() + input(0)), [1, 1, out.channels], &[read(&by_bias, per_channel(0))], bias);

        let y = self.norm_out.relu(cx, wide, &sum, &statistics_out);
        self.conv_out.backward_weight(cx, &weights.conv_out, grid, &y, d_o, gradient);
        let mut dy = y;
        self.conv_out.backward_input(device, &weights.conv_out, grid, d_o, &mut dy, false);
        let mut dsum = device.scratch(wide.len());
        self.norm_out.backward_relu(cx, wide, &sum, &statistics_out, &dy, (&mut dsum, false), gradient);
        drop((dy, sum));

        // The gradient of the residual activations; that of skip r's input is added when the backward pass
        // reaches it.
        let mut dh = device.zeros(wide.len());
        let skips = self.skips.iter().zip(&weights.skips).rev();
        let inner = self.blocks.iter().zip(&weights.blocks).zip(blocks).rev().map(Some).chain([None]);
        for ((skip, skip_weight), inner) in skips.zip(inner) {
            let Some(after) = h.pop() else { break };
            skip.backward_weight(cx, skip_weight, grid, &after, &dsum, gradient);
            skip.backward_input(device, skip_weight, grid, &dsum, &mut dh, true);
            let Some(((block, [conv1, conv2]), saved)) = inner else {
                h.push(after);
                break;
            };
            drop(after);
            let BlockActivations { statistics1, inner, statistics2 } = saved;
            let before = &h[h.len() - 1];
            let y = block.norm2.relu(cx, wide, &inner, &statistics2);
            block.conv2.backward_weight(cx, conv2, grid, &y, &dh, gradient);
            let mut dy = y;
            block.conv2.backward_input(device, conv2, grid, &dh, &mut dy, false);
            let mut d_inner = device.scratch(wide.len());
            block.norm2.backward_relu(cx, wide, &inner, &statistics2, &dy, (&mut d_inner, false), gradient);
            let y = block.norm1.relu(cx, wide, before, &statistics1);
            block.conv1.backward_weight(cx, conv1, grid, &y, &d_inner, gradient);
            block.conv1.backward_input(device, conv1, grid, &d_inner, &mut dy, false);
            block.norm1.backward_relu(cx, wide, before, &statistics1, &dy, (&mut dh, true), gradient);
        }

        let a = self.rectified(cx, grid, x, &statistics_in);
        self.conv_in.backward_weight(cx, &weights.conv_in, grid, &a, &dh, gradient);
        let mask = self.source.mask(grid.width);
        let columns = 2 * self.channels + usize::from(mask.is_some());
        let mut da = a;
        self.conv_in.backward_input(device, &weights.conv_in, grid, &dh, &mut da, false);
        let at = self.source.at(dims);
        let halves = [0, self.channels].map(|first| read(&da, dims.part(columns, first)));
        let inputs: Vec<_> =
            self.norm_in.inputs(cx, read(x, at), &statistics_in).into_iter().chain(halves).collect();
        let a = || self.normalized_input(grid);
        let by_output = constant(self.source.gain()) * (input(4) * a().step() - input(5) * (-a()).step());
        let mut dy = device.scratch(dims.len());
        device.map(&by_output, dims.shape(), &inputs, write(&mut dy, dims.each()));
        let f = Gradient { by_output: input(4), x: self.masked(grid), mask };
        let dy = read(&dy, dims.each());
        self.norm_in.backward(cx, dims, read(x, at), &statistics_in, &[dy], &f, (dx, at), gradient);
    }
}
