//! Small matrices by maps and products, their inverses by row-wise substitution; then one product for all
//! pixels.
//!
//! Everything is computed in the device's scalars; the fused forms, which use `f64` for the small matrices,
//! differ by its rounding.

use super::{ChannelMap, ChannelMapParams, PermutationParams};
use crate::device::Device;
use crate::expr::{Expr, constant, input, old};
use crate::ops::views::{Rows, per_channel, read, write};
use crate::ops::{Direction, Reference};
use crate::primitives::{Gemm, Matrix, MatrixMut, Primitives, Strided, View};
use crate::real::Real;
use crate::shape::{Grid, Span};

/// `x ← matrix·x + offset` at every pixel.
pub struct Map<B> {
    channels: usize,
    /// `[channels, channels]`
    matrix: B,
    offset: B,
    /// `[1]`, of one pixel; only for the forward direction.
    log_det: Option<B>,
    /// For the gradient: the permutation W, and A.
    forward: Option<(Permutation<B>, B)>,
}

/// The permutation's matrix P·L·U.
struct Permutation<B> {
    matrix: B,
    /// P of the LU form, or of the fixed permutation.
    p: B,
    /// `L` and `U` with their diagonals; only in the LU form.
    factors: Option<[B; 2]>,
}

/// Square matrices of this size, on a device.
struct Square<'a, D> {
    device: &'a D,
    n: usize,
}

impl<D> Clone for Square<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Square<'_, D> {}

/// `exp(3·logs)` of the input with this index.
fn scale(index: usize) -> Expr {
    (constant(3.0) * input(index)).exp()
}

/// One number per row.
fn per_row(span: Span) -> Strided {
    Strided { start: span.start, strides: [0, 1, 0] }
}

impl<D: Primitives> Square<'_, D> {
    fn rows(self) -> Rows {
        Rows { rows: self.n, channels: self.n }
    }

    fn view(self, matrix: &D::Buffer) -> View<'_, D::Buffer> {
        read(matrix, self.rows().each())
    }

    /// A constant matrix.
    fn constant(self, f: impl Fn(usize, usize) -> f64) -> D::Buffer {
        let n = self.n;
        let values: Vec<_> = (0..n * n).map(|i| D::Real::of(f(i / n, i % n))).collect();
        self.device.upload(&values)
    }

    /// A matrix, element by element.
    fn map(self, f: &Expr, inputs: &[View<'_, D::Buffer>]) -> D::Buffer {
        let mut out = self.device.scratch(self.n * self.n);
        self.device.map(f, self.rows().shape(), inputs, write(&mut out, self.rows().each()));
        out
    }

    /// `op(a)·op(b)`; the flags mark transposed operands.
    fn product(
        self,
        (a, a_transposed): (&D::Buffer, bool),
        (b, b_transposed): (&D::Buffer, bool),
    ) -> D::Buffer {
        let n = self.n;
        let mut c = self.device.scratch(n * n);
        self.device.gemm(
            Gemm { m: n, n, k: n, a_transposed, b_transposed, accumulate: false },
            Matrix { buffer: a, start: 0, stride: n },
            Matrix { buffer: b, start: 0, stride: n },
            MatrixMut { buffer: &mut c, start: 0, stride: n },
        );
        c
    }

    /// `T⁻¹·b` for a triangular matrix, starting at the row that has only its diagonal.
    fn solve(self, triangular: &D::Buffer, lower: bool, b: &D::Buffer) -> D::Buffer {
        let (device, n) = (self.device, self.n);
        let one_row = [1, 1, n];
        let row = |i: usize| per_channel(i * n);
        let mut x = device.scratch(n * n);
        let mut sum = device.scratch(n);
        for step in 0..n {
            let i = if lower { step } else { n - 1 - step };
            // Rows that are already solved.
            let (first, k) = if lower { (0, i) } else { (i + 1, step) };
            device.gemm(
                Gemm { m: 1, n, k, a_transposed: false, b_transposed: false, accumulate: false },
                Matrix { buffer: triangular, start: i * n + first, stride: n },
                Matrix { buffer: &x, start: first * n, stride: n },
                MatrixMut { buffer: &mut sum, start: 0, stride: n },
            );
            let diagonal = Strided { start: i * n + i, strides: [0; 3] };
            let inputs = [read(b, row(i)), read(&sum, per_channel(0)), read(triangular, diagonal)];
            let f = (input(0) - input(1)) / input(2);
            device.map(&f, one_row, &inputs, write(&mut x, row(i)));
        }
        x
    }

    fn permutation(self, at: &PermutationParams, params: &D::Buffer) -> Permutation<D::Buffer> {
        let (PermutationParams::Fixed { index } | PermutationParams::Lu { index, .. }) = at;
        let p = self.constant(|i, j| f64::from(u8::from(index[i] == j)));
        let PermutationParams::Lu { sign, lower, upper, log_s, .. } = at else {
            return Permutation { matrix: self.map(&input(0), &[self.view(&p)]), p, factors: None };
        };
        let [below, diagonal, above] = self.triangles();
        let stored = |span: Span| read(params, Strided { start: span.start, ..self.rows().each() });
        let l = self.map(
            &(input(0) * input(1) + input(2)),
            &[self.view(&below), stored(*lower), self.view(&diagonal)],
        );
        let signs = self.constant(|i, j| if i == j { sign[i] } else { 0.0 });
        let u = self.map(
            &(input(0) * input(1) + input(2) * input(3).exp()),
            &[self.view(&above), stored(*upper), self.view(&signs), read(params, per_row(*log_s))],
        );
        let matrix = self.product((&p, false), (&self.product((&l, false), (&u, false)), false));
        Permutation { matrix, p, factors: Some([l, u]) }
    }

    /// Ones strictly below the diagonal, on it, and strictly above it.
    fn triangles(self) -> [D::Buffer; 3] {
        use std::cmp::Ordering::{Equal, Greater, Less};
        [Greater, Equal, Less].map(|part| self.constant(|i, j| f64::from(u8::from(i.cmp(&j) == part))))
    }

    /// `W⁻¹ = U⁻¹ L⁻¹ Pᵀ`.
    fn inverse(self, permutation: &Permutation<D::Buffer>) -> D::Buffer {
        let view = read(&permutation.p, Strided { start: 0, strides: [0, 1, self.n] });
        let transposed = self.map(&input(0), &[view]);
        match &permutation.factors {
            None => transposed,
            Some([l, u]) => self.solve(u, false, &self.solve(l, true, &transposed)),
        }
    }
}

/// `matrix·x` for every row of `x`, or with the matrix transposed.
fn apply<D: Primitives>(
    device: &D,
    rows: Rows,
    matrix: &D::Buffer,
    transposed: bool,
    x: &D::Buffer,
) -> D::Buffer {
    let n = rows.channels;
    let mut y = device.scratch(rows.len());
    device.gemm(
        Gemm { m: rows.rows, n, k: n, a_transposed: false, b_transposed: !transposed, accumulate: false },
        Matrix { buffer: x, start: 0, stride: n },
        Matrix { buffer: matrix, start: 0, stride: n },
        MatrixMut { buffer: &mut y, start: 0, stride: n },
    );
    y
}

/// `x ← matrix·x + offset`.
fn run<D: Primitives>(device: &D, map: &Map<D::Buffer>, rows: Rows, x: &mut D::Buffer) {
    let y = apply(device, rows, &map.matrix, false, x);
    let inputs = [read(&y, rows.each()), read(&map.offset, per_channel(0))];
    device.map(&(input(0) + input(1)), rows.shape(), &inputs, write(x, rows.each()));
}

impl<D: Primitives> ChannelMap for Reference<D> {
    type Map = Map<D::Buffer>;

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &D::Buffer,
        direction: Direction,
    ) -> Self::Map {
        let n = at.channels;
        let square = Square { device: self, n };
        let permutation = square.permutation(&at.permutation, params);
        let (bias, logs) = (at.actnorm.bias, at.actnorm.logs);
        let [bias_view, logs_view] = [bias, logs].map(|span| read(params, per_channel(span.start)));
        let a = square.map(&(input(0) * scale(1)), &[square.view(&permutation.matrix), logs_view]);
        let mut offset = self.scratch(n);
        if direction == Direction::Forward {
            let by_row = Strided { start: 0, strides: [0, 1, 0] };
            let inputs = [square.view(&a), bias_view];
            let f = input(0) * input(1);
            self.reduce(&f, square.rows().shape(), &inputs, write(&mut offset, by_row), false);
            let mut log_det = self.scratch(1);
            let to = Strided { start: 0, strides: [0; 3] };
            let f = constant(3.0) * input(0);
            self.reduce(&f, [1, 1, n], &[logs_view], write(&mut log_det, to), false);
            if let PermutationParams::Lu { log_s, .. } = at.permutation {
                let log_s = read(params, per_channel(log_s.start));
                self.reduce(&input(0), [1, 1, n], &[log_s], write(&mut log_det, to), true);
            }
            return Map { channels: n, matrix: a, offset, log_det: Some(log_det), forward: None };
        }
        let inverse = square.inverse(&permutation);
        let logs_by_row = read(params, per_row(logs));
        let f = input(0) * (constant(-3.0) * input(1)).exp();
        let matrix = square.map(&f, &[square.view(&inverse), logs_by_row]);
        self.map(&-input(0), [1, 1, n], &[bias_view], write(&mut offset, per_channel(0)));
        let forward = (direction == Direction::Backward).then_some((permutation, a));
        Map { channels: n, matrix, offset, log_det: None, forward }
    }

    fn channel_map(&self, map: &Self::Map, grid: Grid, x: &mut D::Buffer, logp: Option<&mut D::Buffer>) {
        run(self, map, Rows { rows: grid.rows(), channels: map.channels }, x);
        if let (Some(log_det), Some(logp)) = (&map.log_det, logp) {
            let f = old() + constant(grid.pixels() as f64) * input(0);
            let one = Strided { start: 0, strides: [0; 3] };
            self.map(&f, [1, 1, grid.batch], &[read(log_det, one)], write(logp, per_channel(0)));
        }
    }

    fn channel_map_backward(
        &self,
        map: &Self::Map,
        at: &ChannelMapParams,
        params: &D::Buffer,
        grid: Grid,
        x: &mut D::Buffer,
        dx: &mut D::Buffer,
        dlogp: f64,
        gradient: &mut D::Buffer,
    ) {
        let Some((permutation, a)) = &map.forward else {
            panic!("a channel map that was not prepared for the backward pass has no gradient")
        };
        let (n, rows) = (map.channels, Rows { rows: grid.rows(), channels: map.channels });
        let square = Square { device: self, n };
        run(self, map, rows, x);
        // The gradients of A and b.
        let mut by_matrix = self.scratch(n * n);
        self.gemm(
            Gemm { m: n, n, k: grid.rows(), a_transposed: true, b_transposed: false, accumulate: false },
            Matrix { buffer: dx, start: 0, stride: n },
            Matrix { buffer: x, start: 0, stride: n },
            MatrixMut { buffer: &mut by_matrix, start: 0, stride: n },
        );
        let mut by_offset = self.scratch(n);
        let dy = read(&*dx, rows.each());
        self.reduce(&input(0), rows.shape(), &[dy], write(&mut by_offset, per_channel(0)), false);
        let through = apply(self, rows, a, true, dx);
        self.map(&input(0), rows.shape(), &[read(&through, rows.each())], write(dx, rows.each()));

        let (bias, logs) = (at.actnorm.bias, at.actnorm.logs);
        let [bias_view, logs_view] = [bias, logs].map(|span| read(params, per_channel(span.start)));
        let offset_by_row = read(&by_offset, Strided { start: 0, strides: [0, 1, 0] });
        let inputs = [square.view(&by_matrix), offset_by_row, bias_view, logs_view];
        let d_w = square.map(&(scale(3) * (input(0) + input(1) * input(2))), &inputs);
        let shape = square.rows().shape();
        let to = write(&mut *gradient, per_channel(bias.start));
        self.reduce(&(input(0) * input(1)), shape, &[square.view(a), offset_by_row], to, true);
        let to = write(&mut *gradient, per_channel(logs.start));
        let inputs = [square.view(&permutation.matrix), square.view(&d_w)];
        self.reduce(&(constant(3.0) * input(0) * input(1)), shape, &inputs, to, true);
        let d_log_det = dlogp * grid.rows() as f64;
        let to = write(&mut *gradient, per_channel(logs.start));
        self.map(&(old() + constant(3.0 * d_log_det)), [1, 1, n], &[], to);

        let (PermutationParams::Lu { lower, upper, log_s, .. }, Some([l, u])) =
            (&at.permutation, &permutation.factors)
        else {
            return;
        };
        let d_lu = square.product((&permutation.p, true), (&d_w, false));
        let (d_l, d_u) =
            (square.product((&d_lu, false), (u, true)), square.product((l, true), (&d_lu, false)));
        let [below, diagonal, above] = square.triangles();
        for (span, mask, of) in [(lower, below, &d_l), (upper, above, &d_u)] {
            let to = write(&mut *gradient, Strided { start: span.start, ..square.rows().each() });
            let inputs = [square.view(&mask), square.view(of)];
            self.map(&(old() + input(0) * input(1)), shape, &inputs, to);
        }
        let to = write(gradient, Strided { start: log_s.start, strides: [0, 1, 0] });
        let inputs = [square.view(&diagonal), square.view(&d_u), square.view(u)];
        let f = input(0) * (input(1) * input(2) + constant(d_log_det));
        self.reduce(&f, shape, &inputs, to, true);
    }
}
