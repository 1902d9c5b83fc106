//! The forward pass. A depthwise convolution is a separate pass over memory. Between two of them, norm, both
//! products and gate are computed for one tile of rows at a time, which stays in the second-level cache:
//!
//! ```text
//! patches [rows, 9·(inputs+1)] · W → h [rows, width]
//! c → n [rows, width] · W1 → ReLU → u [rows, 3·width] · W2 → p, g → h      for each block
//! h → n → Q, K, V → heads → h                                               if there is an attention
//! h → n [rows, width] · W3 → [rows, 9·outputs], nine shifted copies added up → o [rows, outputs]
//! ```
//!
//! At a width of 128, a block takes 154,000 multiply-adds per pixel, of which 6,272 are those of the
//! depthwise convolution. Unless activations are saved it moves 2.5 kB per pixel between cache and memory:
//! `h` is read twice and written once, `c` is written and read.

use rayon::prelude::*;

use crate::cpu::conv::Scaled;
use crate::cpu::panels::{Cut, Panels};
use crate::cpu::patches::{AddShifted, Gather, Offsets};
use crate::cpu::primitives::depthwise::{self, Goal};
use crate::cpu::product::{Finish, Out, Packed, product};
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Element};
use crate::ops::residual_network::cpu::attention::{self, AttentionActivations};
use crate::ops::residual_network::cpu::rows::{Gate, Normalize};
use crate::ops::{NetworkOutputs, ResidualBlockParams, ResidualNetworkParams};
use crate::real::Real;
use crate::shape::{Grid, Span};

/// A network's weights, packed for the forward pass.
pub struct Network<E: Element> {
    work: Workspace<E>,
    /// Workspace in the device's scalars, for the attention.
    full: Workspace<E::Sum>,
    conv_in: Packed<E>,
    /// The two pointwise convolutions of each block.
    blocks: Vec<[Packed<E>; 2]>,
    /// `[width, 9·outputs]`, columns in the order `k·outputs + c`.
    conv_out: Packed<E>,
    /// Contribution of the edge channel to an output, per offset: `[9, outputs]`.
    edge: Vec<E::Sum>,
    /// `[outputs]`
    bias_out: Vec<E::Sum>,
    head: Option<Packed<E>>,
}

/// Saved activations of a network.
pub struct Activations<E: Element> {
    pub(super) work: Workspace<E>,
    pub(super) full: Workspace<E::Sum>,
    /// `h` after the first convolution, after each block, and after the attention.
    pub(super) h: Vec<Buffer<E::Sum>>,
    pub(super) blocks: Vec<BlockActivations<E>>,
    pub(super) attention: Option<AttentionActivations<E::Sum>>,
}

/// `c`, `u` and `(p, g)`.
pub struct BlockActivations<E: Element> {
    pub(super) c: Buffer<E::Sum>,
    pub(super) u: Panels<E>,
    pub(super) gate: Buffer<E::Sum>,
}

/// A convolution with bias and without scale; `zeros` has one element per output.
pub(super) fn unscaled<'a, T>(params: &'a [T], weight: Span, bias: Span, zeros: &'a [T]) -> Scaled<'a, T> {
    Scaled { weight: &params[weight.range()], bias: &params[bias.range()], logs: zeros }
}

impl<E: Element> Network<E> {
    pub(super) fn prepare(
        work: &Workspace<E>,
        full: &Workspace<E::Sum>,
        at: &ResidualNetworkParams,
        params: &[E::Sum],
    ) -> Self {
        let (width, outputs) = (at.width, at.conv_out.outputs);
        let zeros = vec![E::Sum::of(0.0); ResidualNetworkParams::expanded(width)];
        let pack = |weight, bias: Span| unscaled(params, weight, bias, &zeros[..bias.len]).pack(work);
        let conv_out = at.conv_out.at().of(params);
        let (columns, scale) = (9 * (width + 1), conv_out.scale());
        // Column `k·outputs + c`: every ninth weight of output `c`, and its scale.
        let column = |column: usize| {
            let (k, c) = (column / outputs, column % outputs);
            (&conv_out.weight[c * columns + k..(c + 1) * columns], scale[c])
        };
        Self {
            work: work.clone(),
            full: full.clone(),
            conv_in: pack(at.conv_in, at.bias_in),
            blocks: at
                .blocks
                .iter()
                .map(|block| {
                    [(block.expand, block.expand_bias), (block.project, block.project_bias)]
                        .map(|(weight, bias)| pack(weight, bias))
                })
                .collect(),
            conv_out: Packed::of_columns(work, width, 9 * outputs, 9, column),
            edge: (0..9 * outputs).map(column).map(|(weight, scale)| weight[9 * width] * scale).collect(),
            bias_out: conv_out.folded_bias(),
            head: at.head.map(|head| head.at().of(params).pack(work)),
        }
    }

    /// Runs the network on the first half of the channels of `x`.
    pub(super) fn run(
        &self,
        at: &ResidualNetworkParams,
        params: &[E::Sum],
        grid: Grid,
        x: &[E::Sum],
        outputs: &mut NetworkOutputs<Buffer<E::Sum>>,
    ) {
        let mut h = self.first(at, grid, x);
        let mut c = self.work.take_sums(h.len());
        for (block, weights) in at.blocks.iter().zip(&self.blocks) {
            Self::depthwise(at, params, block, grid, &h, &mut c);
            self.block(at, &params[block.norm.range()], weights, &c, &mut h);
        }
        if let Some(of_network) = &at.attention {
            attention::forward(&self.full, of_network, params, grid, &mut h);
        }
        self.last(at, &params[at.norm_out.range()], grid, &h, outputs);
    }

    /// Like [`run`](Self::run), and returns the saved activations.
    pub(super) fn run_saving(
        &self,
        at: &ResidualNetworkParams,
        params: &[E::Sum],
        grid: Grid,
        x: &[E::Sum],
        outputs: &mut NetworkOutputs<Buffer<E::Sum>>,
    ) -> Activations<E> {
        let first = self.first(at, grid, x);
        let (work, full) = (self.work.clone(), self.full.clone());
        let mut saved = Activations { work, full, h: vec![first], blocks: vec![], attention: None };
        for (b, (block, weights)) in at.blocks.iter().zip(&self.blocks).enumerate() {
            let before = &saved.h[b];
            let mut c = self.work.take_sums(before.len());
            Self::depthwise(at, params, block, grid, before, &mut c);
            let mut h = self.work.take_sums(before.len());
            h.copy_from_slice(before);
            let (u, gate) = self.block_saving(at, &params[block.norm.range()], weights, &c, &mut h);
            saved.h.push(h);
            saved.blocks.push(BlockActivations { c, u, gate });
        }
        if let Some(of_network) = &at.attention {
            let before = &saved.h[at.blocks.len()];
            let mut h = self.work.take_sums(before.len());
            h.copy_from_slice(before);
            saved.attention = Some(attention::forward(&self.full, of_network, params, grid, &mut h));
            saved.h.push(h);
        }
        self.last(at, &params[at.norm_out.range()], grid, &saved.h[saved.h.len() - 1], outputs);
        saved
    }

    /// Computes the first convolution.
    fn first(&self, at: &ResidualNetworkParams, grid: Grid, x: &[E::Sum]) -> Buffer<E::Sum> {
        let work = &self.work;
        let mut h = work.take_sums(grid.rows() * at.width);
        let cut = Cut::of(work, grid.rows(), 9 * (at.inputs + 1));
        h.par_chunks_mut(cut.tile * at.width).enumerate().for_each(|(t, h)| {
            let mut patches = work.take(h.len() / at.width * cut.stride());
            let (inputs, stride, first_row) = (at.inputs, 2 * at.inputs, t * cut.tile);
            work.run(Gather { grid, inputs, stride, x, first_row, cut, tile: &mut patches });
            product(&patches, &self.conv_in, Out::Rows(h));
        });
        h
    }

    fn depthwise(
        at: &ResidualNetworkParams,
        params: &[E::Sum],
        block: &ResidualBlockParams,
        grid: Grid,
        h: &[E::Sum],
        c: &mut [E::Sum],
    ) {
        let taps = &params[block.taps.range()];
        depthwise::convolve(at.depthwise(grid), h, taps, c, Goal::Forward);
    }

    /// Computes both products of a block for a tile of `c`: to `u`, and to `gate`.
    fn tile(
        &self,
        norm: &[E::Sum],
        [expand, project]: &[Packed<E>; 2],
        (c, cut): (&[E::Sum], Cut),
        u: &mut [E],
        gate: &mut [E::Sum],
    ) {
        let mut n = self.work.take(c.len() / norm.len() * cut.stride());
        self.work.run(Normalize { x: c, norm, cut, tile: &mut n });
        product(&n, expand, Out::Panels(u, Finish::Relu));
        product(u, project, Out::Rows(gate));
    }

    /// Computes the remainder of a block after its depthwise convolution.
    fn block(
        &self,
        at: &ResidualNetworkParams,
        norm: &[E::Sum],
        weights: &[Packed<E>; 2],
        c: &[E::Sum],
        h: &mut [E::Sum],
    ) {
        let (work, width) = (&self.work, at.width);
        let cut = Cut::of(work, c.len() / width, width);
        let expanded = Cut { columns: ResidualNetworkParams::expanded(width), ..cut };
        h.par_chunks_mut(cut.tile * width).zip(c.par_chunks(cut.tile * width)).for_each(|(h, c)| {
            let rows = c.len() / width;
            let (mut u, mut gate) = (work.take(rows * expanded.stride()), work.take_sums(2 * c.len()));
            self.tile(norm, weights, (c, cut), &mut u, &mut gate);
            work.run(Gate { h, gate: &gate, width });
        });
    }

    /// Like [`block`](Self::block), and returns `u` and `(p, g)`.
    fn block_saving(
        &self,
        at: &ResidualNetworkParams,
        norm: &[E::Sum],
        weights: &[Packed<E>; 2],
        c: &[E::Sum],
        h: &mut [E::Sum],
    ) -> (Panels<E>, Buffer<E::Sum>) {
        let (work, width) = (&self.work, at.width);
        let cut = Cut::of(work, c.len() / width, width);
        let mut u = Panels::scratch(work, c.len() / width, ResidualNetworkParams::expanded(width));
        let mut gate = work.take_sums(2 * c.len());
        h.par_chunks_mut(cut.tile * width)
            .zip(c.par_chunks(cut.tile * width))
            .zip(u.tiles_mut())
            .zip(gate.par_chunks_mut(2 * cut.tile * width))
            .for_each(|(((h, c), u), gate)| {
                self.tile(norm, weights, (c, cut), u, gate);
                work.run(Gate { h, gate, width });
            });
        (u, gate)
    }

    /// Computes the output and, if there is a head, its output.
    fn last(
        &self,
        at: &ResidualNetworkParams,
        norm: &[E::Sum],
        grid: Grid,
        h: &[E::Sum],
        to: &mut NetworkOutputs<Buffer<E::Sum>>,
    ) {
        let (work, width, outputs) = (&self.work, at.width, at.conv_out.outputs);
        let cut = Cut::of(work, grid.rows(), width);
        let mut contributions = work.take_sums(grid.rows() * 9 * outputs);
        let tile = |contributions: &mut [E::Sum], h: &[E::Sum], head: Option<(&Packed<E>, &mut [E::Sum])>| {
            let mut n = work.take(h.len() / width * cut.stride());
            work.run(Normalize { x: h, norm, cut, tile: &mut n });
            product(&n, &self.conv_out, Out::Rows(contributions));
            if let Some((weights, to)) = head {
                product(&n, weights, Out::Rows(to));
            }
        };
        let tiles = contributions.par_chunks_mut(cut.tile * 9 * outputs).zip(h.par_chunks(cut.tile * width));
        match (&at.head, &self.head, &mut to.head) {
            (Some(head), Some(weights), Some(to)) => tiles
                .zip(to.par_chunks_mut(cut.tile * head.outputs))
                .for_each(|((contributions, h), to)| tile(contributions, h, Some((weights, to)))),
            _ => tiles.for_each(|(contributions, h)| tile(contributions, h, None)),
        }
        let o = &mut to.o;
        o.par_chunks_mut(outputs).with_min_len(1024).for_each(|o| o.copy_from_slice(&self.bias_out));
        let sum = AddShifted {
            grid,
            offsets: Offsets::Convolution,
            channels: outputs,
            stride: outputs,
            contributions: &contributions,
            edge: Some(&self.edge),
        };
        sum.to(work, o);
    }
}
