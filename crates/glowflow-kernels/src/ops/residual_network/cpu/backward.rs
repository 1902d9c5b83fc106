//! The backward pass. Each thread computes weight gradients of a few tiles at a time, while these are still
//! in a cache.

use rayon::prelude::*;

use super::attention;
use super::network::{Activations, BlockActivations, unscaled};
use super::rows::{GateBackward, Normalize, NormalizeBackward};
use crate::cpu::conv::WeightGradient;
use crate::cpu::last_convolutions::LastConvolutions;
use crate::cpu::panels::{Cut, Panels, SLAB};
use crate::cpu::patches::{self, AddShifted, GatherBack, Offsets};
use crate::cpu::primitives::depthwise::{self, Goal};
use crate::cpu::product::{Finish, Out, Packed, product, product_into_rows, transposed_products};
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Element, Scalar};
use crate::ops::{NetworkOutputs, ResidualBlockParams, ResidualNetworkParams};
use crate::real::Real;
use crate::shape::{Grid, Span};

/// Number of rows whose norm gradients are summed in one part. It is fixed, so the result does not depend on
/// the number of threads.
const PART_ROWS: usize = 256;

/// Adds the input gradient to the first half of the channels of `dx`, and the parameter gradients to
/// `gradient`.
#[allow(clippy::too_many_arguments)]
pub fn backward<E: Element>(
    at: &ResidualNetworkParams,
    params: &[E::Sum],
    grid: Grid,
    x: &[E::Sum],
    activations: &Activations<E>,
    d_outputs: &NetworkOutputs<Buffer<E::Sum>>,
    dx: &mut [E::Sum],
    gradient: &mut [E::Sum],
) {
    let Activations { work, full, h, blocks, attention } = activations;
    let mut dh = last(work, at, params, grid, &h[h.len() - 1], d_outputs, gradient);
    if let (Some(of_network), Some(saved)) = (&at.attention, attention) {
        attention::backward(full, of_network, params, grid, &h[blocks.len()], saved, &mut dh, gradient);
    }
    for ((block, activations), h) in at.blocks.iter().zip(blocks).zip(h).rev() {
        of_block(work, at, block, params, grid, h, activations, &mut dh, gradient);
    }
    first(work, at, params, grid, x, &dh, dx, gradient);
}

/// Number of rows in one pass.
fn rows_at_once(cut: Cut) -> usize {
    (4 * rayon::current_num_threads() * cut.tile).next_multiple_of(SLAB)
}

/// Packs a matrix `[rows, columns]` of the parameters in its stored orientation.
fn pack<E: Element>(work: &Workspace<E>, params: &[E::Sum], weight: Span, columns: usize) -> Packed<E> {
    let weight = &params[weight.range()];
    Packed::of_rows(work, weight.len() / columns, columns, |i, j, to| {
        to.copy_from_slice(&weight[i * columns + j..][..to.len()]);
    })
}

pub(super) fn add<T: Scalar>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}

/// Converts the output gradient of a norm to the gradient of its input `x`, and adds the norm's parameter
/// gradient.
pub(super) fn normalize_backward<E: Element>(
    work: &Workspace<E>,
    norm: &[E::Sum],
    x: &[E::Sum],
    dy: &mut [E::Sum],
    gradient: &mut [E::Sum],
) {
    let part = PART_ROWS * norm.len();
    let sums: Vec<_> = dy
        .par_chunks_mut(part)
        .zip(x.par_chunks(part))
        .map(|(dy, x)| work.run(NormalizeBackward { x, norm, dy }))
        .collect();
    sums.iter().for_each(|sums| add(gradient, sums));
}

/// The gradient of the last activations, given the output gradients.
fn last<E: Element>(
    work: &Workspace<E>,
    at: &ResidualNetworkParams,
    params: &[E::Sum],
    grid: Grid,
    h: &[E::Sum],
    d_outputs: &NetworkOutputs<Buffer<E::Sum>>,
    gradient: &mut [E::Sum],
) -> Buffer<E::Sum> {
    let (rows, width, outputs) = (grid.rows(), at.width, at.conv_out.outputs);
    let (norm, d_head) = (&params[at.norm_out.range()], d_outputs.head.as_deref().unwrap_or(&[]));
    let head = at.head.map(|head| head.at());
    let convolutions = LastConvolutions::of(at.conv_out.at(), head, width, params);
    let weight = convolutions.pack_transposed(work);
    let mut d_weight = WeightGradient::zero(work, convolutions.columns(), width);
    let mut dh = work.take_sums(rows * width);
    let cut = Cut::of(work, rows, width);
    let at_once = rows_at_once(cut);
    for first in (0..rows).step_by(at_once) {
        let some = at_once.min(rows - first);
        let in_panels = |columns| Panels::scratch_as(work, some, Cut { columns, ..cut });
        let (mut n, mut d_out) = (in_panels(width), in_panels(convolutions.columns()));
        let d_cut = d_out.cut;
        n.tiles_mut()
            .zip(d_out.tiles_mut())
            .zip(h[first * width..].par_chunks(cut.tile * width))
            .zip(dh[first * width..].par_chunks_mut(cut.tile * width))
            .enumerate()
            .for_each(|(t, (((n, d_out), h), dh))| {
                let first_row = first + t * cut.tile;
                work.run(Normalize { x: h, norm, cut, tile: n });
                let (dy, after, tile) = (&d_outputs.o[..], d_head, &mut *d_out);
                work.run(GatherBack { grid, channels: outputs, dy, after, first_row, cut: d_cut, tile });
                product(d_out, &weight, Out::Rows(dh));
            });
        transposed_products(work, vec![d_weight.of(d_out.view(), n.view())]);
    }
    convolutions.unfold(work, grid, &d_weight, &d_outputs.o, d_head, gradient);
    normalize_backward(work, norm, h, &mut dh, &mut gradient[at.norm_out.range()]);
    dh
}

/// Converts the output gradient of a block to its input gradient.
#[allow(clippy::too_many_arguments)]
fn of_block<E: Element>(
    work: &Workspace<E>,
    at: &ResidualNetworkParams,
    block: &ResidualBlockParams,
    params: &[E::Sum],
    grid: Grid,
    h: &[E::Sum],
    BlockActivations { c, u, gate }: &BlockActivations<E>,
    dh: &mut [E::Sum],
    gradient: &mut [E::Sum],
) {
    let (rows, width) = (grid.rows(), at.width);
    let expanded = ResidualNetworkParams::expanded(width);
    let norm = &params[block.norm.range()];
    let (expand, project) =
        (pack(work, params, block.expand, width), pack(work, params, block.project, expanded));
    let mut d_expand = WeightGradient::zero(work, expanded, width);
    let mut d_project = WeightGradient::zero(work, 2 * width, expanded);
    let mut dc = work.take_sums(rows * width);
    let cut = Cut { columns: width, ..u.cut };
    let at_once = rows_at_once(cut);
    for first in (0..rows).step_by(at_once) {
        let some = at_once.min(rows - first);
        let u = u.view().part(first, some);
        let in_panels = |columns| Panels::scratch_as(work, some, Cut { columns, ..cut });
        let (mut n, mut d_gate, mut du) = (in_panels(width), in_panels(2 * width), in_panels(expanded));
        let gate_cut = d_gate.cut;
        n.tiles_mut()
            .zip(d_gate.tiles_mut())
            .zip(du.tiles_mut())
            .zip(u.tiles())
            .zip(c[first * width..].par_chunks(cut.tile * width))
            .zip(gate[2 * first * width..].par_chunks(2 * cut.tile * width))
            .zip(dh[first * width..].par_chunks(cut.tile * width))
            .zip(dc[first * width..].par_chunks_mut(cut.tile * width))
            .for_each(|(((((((n, d_gate), du), u), c), gate), dh), dn)| {
                work.run(Normalize { x: c, norm, cut, tile: n });
                work.run(GateBackward { gate, dh, width, cut: gate_cut, tile: d_gate });
                product(d_gate, &project, Out::Panels(du, Finish::Mask(u)));
                product(du, &expand, Out::Rows(dn));
            });
        transposed_products(work, vec![d_project.of(d_gate.view(), u), d_expand.of(du.view(), n.view())]);
    }
    for (weight, bias, by) in
        [(block.expand, block.expand_bias, &d_expand), (block.project, block.project_bias, &d_project)]
    {
        add(&mut gradient[weight.range()], &by.matrix);
        add(&mut gradient[bias.range()], &by.sums);
    }
    normalize_backward(work, norm, c, &mut dc, &mut gradient[block.norm.range()]);
    let (conv, taps) = (at.depthwise(grid), &params[block.taps.range()]);
    depthwise::by_taps(work, conv, h, &dc, &mut gradient[block.taps.range()]);
    depthwise::convolve(conv, &dc, taps, dh, Goal::BackwardInput);
}

/// Adds the input gradient of the first convolution.
#[allow(clippy::too_many_arguments)]
fn first<E: Element>(
    work: &Workspace<E>,
    at: &ResidualNetworkParams,
    params: &[E::Sum],
    grid: Grid,
    x: &[E::Sum],
    dh: &[E::Sum],
    dx: &mut [E::Sum],
    gradient: &mut [E::Sum],
) {
    let (rows, inputs, width) = (grid.rows(), at.inputs, at.width);
    let zeros = vec![E::Sum::of(0.0); width];
    let weight = unscaled(params, at.conv_in, at.bias_in, &zeros).pack_contributions(work, inputs);
    let patches = patches::all_with_edge(work, grid, inputs, 2 * inputs, x);
    let dh = Panels::of_rows(work, width, dh);
    let mut d_weight = WeightGradient::zero(work, width, 9 * (inputs + 1));
    transposed_products(work, vec![d_weight.of(dh.view(), patches.view())]);
    add(&mut gradient[at.conv_in.range()], &d_weight.matrix);
    add(&mut gradient[at.bias_in.range()], &d_weight.sums);
    let mut contributions = work.take_sums(rows * 9 * inputs);
    product_into_rows(dh.view(), &weight, &mut contributions);
    let (offsets, channels, stride) = (Offsets::Transposed, inputs, 2 * inputs);
    AddShifted { grid, offsets, channels, stride, contributions: &contributions, edge: None }.to(work, dx);
}
