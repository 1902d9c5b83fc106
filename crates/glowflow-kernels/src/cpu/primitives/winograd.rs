//! 3×3 convolutions by Winograd's minimal filtering F(2×2, 3×3) (Lavin and Gray 2015): 16 products for 2×2
//! outputs of a channel instead of 36.
//!
//! With a 4×4 patch `d` of the input and the filter `w` of a pair of channels
//!
//! ```text
//! y = Aᵀ·(U ⊙ V)·A     U = G·w·Gᵀ     V = Bᵀ·d·B     dw = Gᵀ·(Σ V ⊙ (A·dy·Aᵀ))·G
//!
//!      1  0 −1  0          1   0   0          1  1  1  0
//! Bᵀ = 0  1  1  0     G =  ½   ½   ½     Aᵀ = 0  1 −1 −1
//!      0 −1  1  0          ½  −½   ½
//!      0  1  0 −1          0   0   1
//! ```
//!
//! The sums over channels are one matrix product for each of the 16 elements:
//! `[patches, inputs]·[inputs, outputs]`, and `[outputs, patches]·[patches, inputs]` for the weight gradient.
//! The input gradient is a convolution with reversed filters. The choice of this method depends only on the
//! shape of a convolution, not on the batch, and blocks of patches depend on neither: an image yields the
//! same bits in any batch, and with any number of threads.

use rayon::prelude::*;

use crate::cpu::Scalar;
use crate::cpu::isa::Task;
use crate::cpu::panels::{Cut, DEPTH, View};
use crate::cpu::product::{Gradient, Out, Packed, product, transposed_product};
use crate::cpu::{Buffer, Workspace};
use crate::primitives::Conv;
use crate::shape::Grid;

/// Channels transformed together: one vector of the widest registers.
const LANES: usize = 16;

/// Elements per patch.
const ELEMENTS: usize = 16;

/// Approximate number of patches in a block of a convolution.
const BLOCK: usize = 32;

/// Minimum number of slabs of [`DEPTH`] patches in a part of a weight gradient.
const PART_SLABS: usize = 2;

/// Maximum number of elements in all parts of a weight gradient.
const PARTS_SIZE: usize = 1 << 24;

/// Returns whether a convolution uses this method.
pub fn suits<T: Scalar>(work: &Workspace<T>, conv: Conv) -> bool {
    let Conv { grid, inputs, outputs, kernel } = conv;
    let width = Cut::of(work, 1, 1).width;
    kernel == 3
        && grid.height.is_multiple_of(2)
        && grid.width.is_multiple_of(2)
        && inputs.is_multiple_of(LANES)
        && outputs.is_multiple_of(LANES)
        && width.is_multiple_of(LANES)
}

// The functions below are used in [`Task`]s: they use loops instead of closures, which would not be inlined.

/// `LANES` channels.
type Lanes<T> = [T; LANES];

#[inline(always)]
fn add<T: Scalar>(mut a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
    for i in 0..LANES {
        a[i] += b[i];
    }
    a
}

#[inline(always)]
fn sub<T: Scalar>(mut a: Lanes<T>, b: Lanes<T>) -> Lanes<T> {
    for i in 0..LANES {
        a[i] -= b[i];
    }
    a
}

#[inline(always)]
fn half<T: Scalar>(mut a: Lanes<T>) -> Lanes<T> {
    for x in &mut a {
        *x *= T::of(0.5);
    }
    a
}

#[inline(always)]
fn load<T: Scalar>(from: &[T]) -> Lanes<T> {
    let mut lanes = [T::zero(); LANES];
    lanes.copy_from_slice(&from[..LANES]);
    lanes
}

/// `G·w` for a column `w`.
#[inline(always)]
fn filter<T: Scalar>([a, b, c]: [Lanes<T>; 3]) -> [Lanes<T>; 4] {
    let outer = add(a, c);
    [a, half(add(outer, b)), half(sub(outer, b)), c]
}

/// `Gᵀ·u` for a column `u`.
#[inline(always)]
fn filter_adjoint<T: Scalar>([a, b, c, d]: [Lanes<T>; 4]) -> [Lanes<T>; 3] {
    let sum = half(add(b, c));
    [add(a, sum), half(sub(b, c)), add(sum, d)]
}

/// `Bᵀ·d` for a column `d`.
#[inline(always)]
fn patch<T: Scalar>([a, b, c, d]: [Lanes<T>; 4]) -> [Lanes<T>; 4] {
    [sub(a, c), add(b, c), sub(c, b), sub(b, d)]
}

/// `Aᵀ·m` for a column `m`.
#[inline(always)]
fn output<T: Scalar>([a, b, c, d]: [Lanes<T>; 4]) -> [Lanes<T>; 2] {
    [add(add(a, b), c), sub(sub(b, c), d)]
}

/// `A·y` for a column `y`.
#[inline(always)]
fn output_adjoint<T: Scalar>([a, b]: [Lanes<T>; 2]) -> [Lanes<T>; 4] {
    [a, add(a, b), sub(a, b), sub([T::zero(); LANES], b)]
}

/// Applies a transformation from `$from` to `$to` elements to the columns and then to the rows of a square,
/// whose element ($i, $j) is given by `$element`.
macro_rules! both_ways {
    ($of_column:ident: $from:literal to $to:literal, |$i:ident, $j:ident| $element:expr) => {{
        let mut columns = [[[T::zero(); LANES]; $to]; $from];
        for $j in 0..$from {
            let mut column = [[T::zero(); LANES]; $from];
            for $i in 0..$from {
                column[$i] = $element;
            }
            columns[$j] = $of_column(column);
        }
        let mut square = [[[T::zero(); LANES]; $to]; $to];
        for i in 0..$to {
            let mut row = [[T::zero(); LANES]; $from];
            for j in 0..$from {
                row[j] = columns[j][i];
            }
            square[i] = $of_column(row);
        }
        square
    }};
}

/// `U` `[16, outputs, inputs]` of a weight `[outputs, 9, inputs]`, with reversed filters if `reversed`.
fn filters<T: Scalar>(work: &Workspace<T>, conv: Conv, weight: &[T], reversed: bool) -> Buffer<T> {
    let size = conv.outputs * conv.inputs;
    let mut filters = work.take(ELEMENTS * size);
    // Writing output by output would interleave the elements, so they are split by rows of outputs.
    let mut rows: Vec<Vec<&mut [T]>> = (0..conv.outputs).map(|_| Vec::with_capacity(ELEMENTS)).collect();
    for element in filters.chunks_exact_mut(size) {
        rows.iter_mut().zip(element.chunks_exact_mut(conv.inputs)).for_each(|(row, part)| row.push(part));
    }
    rows.par_iter_mut().with_min_len(8).zip(weight.par_chunks_exact(9 * conv.inputs)).for_each(
        |(to, weight)| {
            work.run(Filters { reversed, weight, to });
        },
    );
    drop(rows);
    filters
}

/// Transforms the filters of one output.
struct Filters<'a, 'b, T> {
    reversed: bool,
    weight: &'a [T],
    to: &'a mut [&'b mut [T]],
}

impl<T: Scalar> Task for Filters<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let inputs = self.weight.len() / 9;
        for c in (0..inputs).step_by(LANES) {
            let u = both_ways!(filter: 3 to 4, |i, j| {
                let tap = if self.reversed { 8 - (3 * i + j) } else { 3 * i + j };
                load(&self.weight[tap * inputs + c..])
            });
            for (k, to) in self.to.iter_mut().enumerate() {
                to[c..c + LANES].copy_from_slice(&u[k / 4][k % 4]);
            }
        }
    }
}

/// The forward pass.
pub fn forward<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    x: &[T],
    weight: &[T],
    y: &mut [T],
    accumulate: bool,
) {
    let Conv { grid, inputs, outputs, .. } = conv;
    let filters = filters(work, conv, weight, false);
    let packed: Vec<_> = filters
        .par_chunks_exact(outputs * inputs)
        .map(|u| Packed::of_columns(work, inputs, outputs, 1, |j| (&u[j * inputs..][..inputs], T::one())))
        .collect();
    convolve(work, grid, Channels { from: inputs, to: outputs }, x, &packed, y, accumulate);
}

/// The input gradient.
pub fn backward_input<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    weight: &[T],
    dy: &[T],
    dx: &mut [T],
    accumulate: bool,
) {
    let Conv { grid, inputs, outputs, .. } = conv;
    let filters = filters(work, conv, weight, true);
    let packed: Vec<_> = filters
        .par_chunks_exact(outputs * inputs)
        .map(|u| {
            Packed::of_rows(work, outputs, inputs, |i, j, to| {
                to.copy_from_slice(&u[i * inputs + j..][..to.len()]);
            })
        })
        .collect();
    convolve(work, grid, Channels { from: outputs, to: inputs }, dy, &packed, dx, accumulate);
}

/// Numbers of channels read and written.
#[derive(Clone, Copy)]
struct Channels {
    from: usize,
    to: usize,
}

/// A convolution of `x` with packed filters.
fn convolve<T: Scalar>(
    work: &Workspace<T>,
    grid: Grid,
    channels: Channels,
    x: &[T],
    filters: &[Packed<T>],
    y: &mut [T],
    accumulate: bool,
) {
    // Blocks consist of pairs of rows, possibly from several images.
    let across = grid.width / 2;
    let pairs = (BLOCK / across).max(1);
    let block = pairs * 2 * grid.width * channels.to;
    y.par_chunks_mut(block).enumerate().for_each(|(b, y)| {
        let patches = y.len() / (4 * channels.to);
        let cut = Cut { tile: patches, ..Cut::of(work, patches, channels.from) };
        let size = patches * cut.stride();
        let mut v = work.take(ELEMENTS * size);
        work.run(Patches { grid, channels: channels.from, x, first: b * pairs * across, cut, to: &mut v });
        let mut m = work.take(ELEMENTS * patches * channels.to);
        let products = m.chunks_exact_mut(patches * channels.to);
        for ((v, u), m) in v.chunks_exact(size).zip(filters).zip(products) {
            product(v, u, Out::Rows(m));
        }
        work.run(Outputs { width: grid.width, channels: channels.to, m: &m, y, accumulate });
    });
}

/// Writes `V` of a tile of patches, starting at patch `first`, to 16 matrices in panels.
struct Patches<'a, 'b, T> {
    grid: Grid,
    channels: usize,
    x: &'a [T],
    first: usize,
    cut: Cut,
    to: &'b mut [T],
}

impl<T: Scalar> Task for Patches<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { grid: Grid { height, width, .. }, channels, x, first, cut, to } = self;
        let (across, size) = (width / 2, cut.tile * cut.stride());
        for i in 0..cut.tile {
            let (pair, column) = ((first + i) / across, 2 * ((first + i) % across));
            let row = 2 * pair % height;
            let corner = (2 * pair * width + column) * channels;
            // Starting positions of the patch's pixels, the first of which is above and to the left of the
            // output; `None` outside.
            let mut pixels = [[None; 4]; 4];
            for (dy, pixels) in pixels.iter_mut().enumerate() {
                for (dx, pixel) in pixels.iter_mut().enumerate() {
                    if 1 <= row + dy && row + dy <= height && 1 <= column + dx && column + dx <= width {
                        *pixel = Some(corner + (dy * width + dx) * channels - (width + 1) * channels);
                    }
                }
            }
            for c in (0..channels).step_by(LANES) {
                let at = (c / cut.width * cut.tile + i) * cut.width + c % cut.width;
                let v = both_ways!(patch: 4 to 4, |dy, dx| match pixels[dy][dx] {
                    Some(pixel) => load(&x[pixel + c..]),
                    None => [T::zero(); LANES],
                });
                for k in 0..ELEMENTS {
                    to[k * size + at..][..LANES].copy_from_slice(&v[k / 4][k % 4]);
                }
            }
        }
    }
}

/// Writes or accumulates the outputs of a block of products `m` `[16, patches, channels]`.
struct Outputs<'a, 'b, T> {
    width: usize,
    channels: usize,
    m: &'a [T],
    y: &'b mut [T],
    accumulate: bool,
}

impl<T: Scalar> Task for Outputs<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { width, channels, m, y, accumulate } = self;
        let (across, size) = (width / 2, m.len() / ELEMENTS);
        for i in 0..size / channels {
            let corner = (i / across * 2 * width + 2 * (i % across)) * channels;
            for c in (0..channels).step_by(LANES) {
                let outputs =
                    both_ways!(output: 4 to 2, |j, k| load(&m[(4 * j + k) * size + i * channels + c..]));
                for dy in 0..2 {
                    for dx in 0..2 {
                        let y = &mut y[corner + (dy * width + dx) * channels + c..][..LANES];
                        let output = outputs[dy][dx];
                        y.copy_from_slice(&if accumulate { add(load(y), output) } else { output });
                    }
                }
            }
        }
    }
}

/// The weight gradient.
pub fn backward_weight<T: Scalar>(
    work: &Workspace<T>,
    conv: Conv,
    x: &[T],
    dy: &[T],
    dweight: &mut [T],
    accumulate: bool,
) {
    let Conv { grid, inputs, outputs, .. } = conv;
    let (patches, size) = (grid.rows() / 4, outputs * inputs);
    let parts = (patches / (PART_SLABS * DEPTH)).clamp(1, (PARTS_SIZE / (ELEMENTS * size)).max(1));
    let part = patches.div_ceil(parts).next_multiple_of(DEPTH).max(DEPTH);
    let sums: Vec<Buffer<T>> = (0..patches)
        .into_par_iter()
        .step_by(part)
        .map(|first| {
            let mut sums = work.take(ELEMENTS * size);
            sums.fill(T::zero());
            let mut column_sums = vec![T::zero(); outputs];
            // The kernel sums this number of rows at a time.
            let cut = |columns| Cut { tile: DEPTH, ..Cut::of(work, patches, columns) };
            let (x_cut, dy_cut) = (cut(inputs), cut(outputs));
            let (x_len, dy_len) = (DEPTH * x_cut.stride(), DEPTH * dy_cut.stride());
            let (mut v, mut w) = (work.take(ELEMENTS * x_len), work.take(ELEMENTS * dy_len));
            let end = patches.min(first + part);
            for slab in (first..end).step_by(DEPTH) {
                let rows = DEPTH.min(end - slab);
                let (x_cut, dy_cut) = (Cut { tile: rows, ..x_cut }, Cut { tile: rows, ..dy_cut });
                let (x_len, dy_len) = (rows * x_cut.stride(), rows * dy_cut.stride());
                let v = &mut v[..ELEMENTS * x_len];
                let w = &mut w[..ELEMENTS * dy_len];
                work.run(Patches { grid, channels: inputs, x, first: slab, cut: x_cut, to: v });
                work.run(Gradients {
                    width: grid.width,
                    channels: outputs,
                    dy,
                    first: slab,
                    cut: dy_cut,
                    to: w,
                });
                let elements = v.chunks_exact(x_len).zip(w.chunks_exact(dy_len));
                for ((v, w), c) in elements.zip(sums.chunks_exact_mut(size)) {
                    let a = View { cut: Cut { tile: DEPTH, ..dy_cut }, data: w };
                    let b = View { cut: Cut { tile: DEPTH, ..x_cut }, data: v };
                    transposed_product(work, Gradient { a, b, c, sums: &mut column_sums });
                }
            }
            sums
        })
        .collect();
    let by_output = dweight.par_chunks_exact_mut(9 * inputs).with_min_len(8).enumerate();
    by_output
        .for_each(|(output, to)| work.run(Weights { output, inputs, size, sums: &sums, to, accumulate }));
}

/// Writes `A·dy·Aᵀ` of the patches from patch `first` on to 16 matrices in panels, like [`Patches`].
struct Gradients<'a, 'b, T> {
    width: usize,
    channels: usize,
    dy: &'a [T],
    first: usize,
    cut: Cut,
    to: &'b mut [T],
}

impl<T: Scalar> Task for Gradients<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { width, channels, dy, first, cut, to } = self;
        let (across, size) = (width / 2, cut.tile * cut.stride());
        for i in 0..cut.tile {
            let patch = first + i;
            let corner = (patch / across * 2 * width + 2 * (patch % across)) * channels;
            for c in (0..channels).step_by(LANES) {
                let at = (c / cut.width * cut.tile + i) * cut.width + c % cut.width;
                let w = both_ways!(output_adjoint: 2 to 4, |i, j| {
                    load(&dy[corner + (i * width + j) * channels + c..])
                });
                for k in 0..ELEMENTS {
                    to[k * size + at..][..LANES].copy_from_slice(&w[k / 4][k % 4]);
                }
            }
        }
    }
}

/// Writes or accumulates the gradient of the filters of one output, given parts of the sums
/// `[16, outputs, inputs]`.
struct Weights<'a, 'b, T> {
    output: usize,
    inputs: usize,
    /// Number of sums per element.
    size: usize,
    sums: &'a [Buffer<T>],
    to: &'b mut [T],
    accumulate: bool,
}

impl<T: Scalar> Task for Weights<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { output, inputs, size, sums, to, accumulate } = self;
        for c in (0..inputs).step_by(LANES) {
            let filters = both_ways!(filter_adjoint: 4 to 3, |i, j| {
                let at = (4 * i + j) * size + output * inputs + c;
                let mut sum = [T::zero(); LANES];
                for part in sums {
                    sum = add(sum, load(&part[at..]));
                }
                sum
            });
            for tap in 0..9 {
                let to = &mut to[tap * inputs + c..][..LANES];
                let filter = filters[tap / 3][tap % 3];
                to.copy_from_slice(&if accumulate { add(load(to), filter) } else { filter });
            }
        }
    }
}
