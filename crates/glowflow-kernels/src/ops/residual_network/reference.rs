//! The network layer by layer: matrix products, depthwise convolutions, and maps or sums for all element-wise
//! parts. The zero convolution is the device's.

use super::attention::{self, AttentionActivations};
use super::{EPSILON, ResidualBlockParams, ResidualNetwork, ResidualNetworkParams};
use crate::cuda::Cuda;
use crate::expr::{constant, input, old};
use crate::ops::scaled::{Patches, ScaledConv};
use crate::ops::views::{Rows, per_channel, read, write};
use crate::ops::{Attention, NetworkOutputs, Reference, ZeroConv};
use crate::primitives::{Primitives, Strided};
use crate::shape::{Grid, Span};

/// Saved activations of a network.
pub struct Activations<B> {
    /// `h` after the first convolution, after each block, and after the attention.
    h: Vec<B>,
    blocks: Vec<BlockActivations<B>>,
    attention: Option<AttentionActivations<B>>,
}

/// `c`, `u` and `(p, g)`.
struct BlockActivations<B> {
    c: B,
    u: B,
    gate: B,
}

/// Layout with one value per row.
const PER_ROW: Strided = Strided { start: 0, strides: [0, 1, 0] };

impl ResidualNetworkParams {
    fn patches(&self, grid: Grid) -> Patches {
        Patches { grid, inputs: self.inputs, channels: 2 * self.inputs }
    }

    fn first(&self, rows: usize) -> ScaledConv {
        let (weight, bias) = (self.conv_in, self.bias_in);
        let columns = 9 * (self.inputs + 1);
        ScaledConv { rows, columns, taps: 9, outputs: self.width, weight, bias, logs: None }
    }

    /// The two pointwise convolutions of a block.
    fn pointwise(&self, block: &ResidualBlockParams, rows: usize) -> [ScaledConv; 2] {
        let (width, expanded) = (self.width, Self::expanded(self.width));
        let conv = |columns, outputs, weight, bias| ScaledConv {
            rows,
            columns,
            taps: 1,
            outputs,
            weight,
            bias,
            logs: None,
        };
        [
            conv(width, expanded, block.expand, block.expand_bias),
            conv(expanded, 2 * width, block.project, block.project_bias),
        ]
    }

    fn wide(&self, grid: Grid) -> Rows {
        Rows { rows: grid.rows(), channels: self.width }
    }
}

/// Computes `r` of each row.
fn inverse_rms<D: Primitives>(device: &D, rows: Rows, x: &D::Buffer) -> D::Buffer {
    let mut r = device.scratch(rows.rows);
    let share = constant(1.0 / rows.channels as f64);
    let f = share * input(0) * input(0);
    device.reduce(&f, rows.shape(), &[read(x, rows.each())], write(&mut r, PER_ROW), false);
    let f = constant(1.0) / (old() + constant(EPSILON)).sqrt();
    device.map(&f, [1, rows.rows, 1], &[], write(&mut r, PER_ROW));
    r
}

/// `x·r ⊙ norm`
pub(super) fn normalize<D: Primitives>(
    device: &D,
    rows: Rows,
    (params, norm): (&D::Buffer, Span),
    x: &D::Buffer,
) -> D::Buffer {
    let r = inverse_rms(device, rows, x);
    let mut y = device.scratch(rows.len());
    let inputs = [read(x, rows.each()), read(&r, PER_ROW), read(params, per_channel(norm.start))];
    device.map(&(input(0) * input(1) * input(2)), rows.shape(), &inputs, write(&mut y, rows.each()));
    y
}

/// Returns the gradient of the input `x` of [`normalize`]; adds the gradient of `norm`.
pub(super) fn normalize_backward<D: Primitives>(
    device: &D,
    rows: Rows,
    (params, norm): (&D::Buffer, Span),
    x: &D::Buffer,
    dy: &D::Buffer,
    gradient: &mut D::Buffer,
) -> D::Buffer {
    let r = inverse_rms(device, rows, x);
    let inputs = [read(x, rows.each()), read(dy, rows.each()), read(&r, PER_ROW)];
    let to_norm = write(gradient, per_channel(norm.start));
    device.reduce(&(input(0) * input(1) * input(2)), rows.shape(), &inputs, to_norm, true);
    let [x, dy, r] = inputs;
    let norm = read(params, per_channel(norm.start));
    let mut mean = device.scratch(rows.rows);
    let f = constant(1.0 / rows.channels as f64) * input(0) * input(1) * input(2);
    device.reduce(&f, rows.shape(), &[x, dy, norm], write(&mut mean, PER_ROW), false);
    let mut dx = device.scratch(rows.len());
    let f = input(2) * (input(1) * input(3) - input(0) * input(2) * input(2) * input(4));
    let inputs = [x, dy, r, norm, read(&mean, PER_ROW)];
    device.map(&f, rows.shape(), &inputs, write(&mut dx, rows.each()));
    dx
}

/// Computes a block; returns its saved activations.
fn block<D: Primitives>(
    device: &D,
    at: &ResidualNetworkParams,
    block: &ResidualBlockParams,
    params: &D::Buffer,
    grid: Grid,
    h: &D::Buffer,
) -> (D::Buffer, BlockActivations<D::Buffer>) {
    let rows = at.wide(grid);
    let [expand, project] = at.pointwise(block, rows.rows);
    let mut c = device.scratch(rows.len());
    device.depthwise(at.depthwise(grid), h, (params, block.taps.start), &mut c);
    let n = normalize(device, rows, (params, block.norm), &c);
    let hidden = Rows { channels: expand.outputs, ..rows };
    let mut u = device.scratch(hidden.len());
    expand.forward(device, params, &n, &mut u);
    device.map(&old().relu(), hidden.shape(), &[], write(&mut u, hidden.each()));
    let mut gate = device.scratch(2 * rows.len());
    project.forward(device, params, &u, &mut gate);
    let mut after = device.scratch(rows.len());
    let [p, g] = [0, at.width].map(|first| read(&gate, rows.part(2 * at.width, first)));
    let f = input(0) + input(1) * input(2).sigmoid();
    device.map(&f, rows.shape(), &[read(h, rows.each()), p, g], write(&mut after, rows.each()));
    (after, BlockActivations { c, u, gate })
}

/// Converts the output gradient of a block to its input gradient, and adds the parameter gradients.
#[allow(clippy::too_many_arguments)]
fn block_backward<D: Primitives>(
    device: &D,
    at: &ResidualNetworkParams,
    block: &ResidualBlockParams,
    params: &D::Buffer,
    grid: Grid,
    h: &D::Buffer,
    BlockActivations { c, u, gate }: &BlockActivations<D::Buffer>,
    dh: &mut D::Buffer,
    gradient: &mut D::Buffer,
) {
    let rows = at.wide(grid);
    let [expand, project] = at.pointwise(block, rows.rows);
    let mut d_gate = device.scratch(2 * rows.len());
    let [p_at, g_at] = [0, at.width].map(|first| rows.part(2 * at.width, first));
    let inputs = [read(&*dh, rows.each()), read(gate, p_at), read(gate, g_at)];
    let by_p = input(0) * input(2).sigmoid();
    device.map(&by_p, rows.shape(), &inputs, write(&mut d_gate, p_at));
    let by_g = by_p * input(1) * (-input(2)).sigmoid();
    device.map(&by_g, rows.shape(), &inputs, write(&mut d_gate, g_at));
    let mut du = project.backward(device, params, u, gate, &d_gate, gradient);
    let hidden = Rows { channels: expand.outputs, ..rows };
    let f = old() * input(0).step();
    device.map(&f, hidden.shape(), &[read(u, hidden.each())], write(&mut du, hidden.each()));
    let n = normalize(device, rows, (params, block.norm), c);
    let dn = expand.backward(device, params, &n, u, &du, gradient);
    let dc = normalize_backward(device, rows, (params, block.norm), c, &dn, gradient);
    let conv = at.depthwise(grid);
    device.depthwise_backward_taps(conv, h, &dc, (&mut *gradient, block.taps.start));
    device.depthwise_backward_input(conv, (params, block.taps.start), &dc, dh);
}

fn run<D: ZeroConv + Attention>(
    device: &D,
    at: &ResidualNetworkParams,
    params: &D::Buffer,
    grid: Grid,
    x: &D::Buffer,
    outputs: &mut NetworkOutputs<D::Buffer>,
    save: bool,
) -> Activations<D::Buffer> {
    let rows = at.wide(grid);
    let mut h = device.scratch(rows.len());
    at.first(rows.rows).forward(device, params, &at.patches(grid).of(device, x), &mut h);
    let mut activations = Activations { h: vec![], blocks: vec![], attention: None };
    for of_block in &at.blocks {
        let (after, of_block) = block(device, at, of_block, params, grid, &h);
        let before = std::mem::replace(&mut h, after);
        if save {
            activations.h.push(before);
            activations.blocks.push(of_block);
        }
    }
    if let Some(of_network) = &at.attention {
        let before = save.then(|| device.copied(&h, rows.len()));
        let saved = attention::forward(device, of_network, params, grid, at.width, &mut h);
        activations.h.extend(before);
        activations.attention = save.then_some(saved);
    }
    let n = normalize(device, rows, (params, at.norm_out), &h);
    let weights = device.prepare_zero_conv(&at.conv_out, params);
    device.zero_conv(&weights, grid, &n, &mut outputs.o);
    if let (Some(head), Some(to)) = (&at.head, &mut outputs.head) {
        head.scaled(rows.rows).forward(device, params, &n, to);
    }
    activations.h.push(h);
    activations
}

#[allow(clippy::too_many_arguments)]
fn backward<D: ZeroConv + Attention>(
    device: &D,
    at: &ResidualNetworkParams,
    params: &D::Buffer,
    grid: Grid,
    x: &D::Buffer,
    activations: &Activations<D::Buffer>,
    d_outputs: &NetworkOutputs<D::Buffer>,
    dx: &mut D::Buffer,
    gradient: &mut D::Buffer,
) {
    let Activations { h, blocks, attention } = activations;
    let rows = at.wide(grid);
    let last = &h[h.len() - 1];
    let n = normalize(device, rows, (params, at.norm_out), last);
    let mut dn = match (&at.head, &d_outputs.head) {
        (Some(head), Some(d_head)) => {
            let head = head.scaled(rows.rows);
            let mut y = device.scratch(rows.rows * head.outputs);
            head.forward(device, params, &n, &mut y);
            head.backward(device, params, &n, &y, d_head, gradient)
        }
        _ => device.zeros(rows.len()),
    };
    device.zero_conv_backward(&at.conv_out, params, grid, &n, &d_outputs.o, &mut dn, gradient);
    let mut dh = normalize_backward(device, rows, (params, at.norm_out), last, &dn, gradient);
    if let (Some(of_network), Some(saved)) = (&at.attention, attention) {
        let before = &h[blocks.len()];
        attention::backward(device, of_network, params, grid, at.width, before, saved, &mut dh, gradient);
    }
    for ((block, activations), h) in at.blocks.iter().zip(blocks).zip(h).rev() {
        block_backward(device, at, block, params, grid, h, activations, &mut dh, gradient);
    }
    let patches = at.patches(grid).of(device, x);
    let d_patches = at.first(rows.rows).backward(device, params, &patches, &h[0], &dh, gradient);
    at.patches(grid).backward(device, &d_patches, dx);
}

/// Implements the operation by the reference implementation.
macro_rules! by_reference {
    ([$($generics:tt)*] $device:ty) => {
        impl<$($generics)*> ResidualNetwork for $device {
            type ResidualWeights = ();
            type ResidualActivations = Activations<Self::Buffer>;

            fn prepare_residual_network(&self, _: &ResidualNetworkParams, _: &Self::Buffer) {}

            fn residual_network(
                &self,
                at: &ResidualNetworkParams,
                (): &(),
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                outputs: &mut NetworkOutputs<Self::Buffer>,
            ) {
                run(self, at, params, grid, x, outputs, false);
            }

            fn residual_network_saving(
                &self,
                at: &ResidualNetworkParams,
                (): &(),
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                outputs: &mut NetworkOutputs<Self::Buffer>,
            ) -> Self::ResidualActivations {
                run(self, at, params, grid, x, outputs, true)
            }

            fn residual_network_backward(
                &self,
                at: &ResidualNetworkParams,
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                activations: &Self::ResidualActivations,
                d_outputs: &NetworkOutputs<Self::Buffer>,
                dx: &mut Self::Buffer,
                gradient: &mut Self::Buffer,
            ) {
                backward(self, at, params, grid, x, activations, d_outputs, dx, gradient);
            }
        }
    };
}

by_reference!([D: Primitives] Reference<D>);
by_reference!([] Cuda);
