//! The general operations on a GPU: one kernel interprets all expressions, one sums them, and cuBLASLt
//! computes products.
//!
//! Expressions are kernel parameters, and so part of a captured graph.

use bytemuck::{Pod, Zeroable};

use super::convolution;
use super::depthwise;
use super::divisor::Divisor;
use super::driver::{Argument, Launch};
use super::product::{Batch, Element, Epilogue, Kind, Operands, Product};
use super::queue::{Queue, launch};
use super::{Buffer, Cuda, optimizer, pixels};
use crate::depthwise::Depthwise;
use crate::device::{Device, DeviceError};
use crate::elements::{Elements, OUT, PIXEL};
use crate::expr::{Expr, Op, constant, input, old};
use crate::optimizer::{Segment, Training, Update, UpdateReport};
use crate::orthogonal::{self, Factors};
use crate::pixels::{Noise, Quantized};
use crate::primitives::{
    Conv, Gemm, GemmBatch, Matrix, MatrixMut, Primitives, Strided, View, ViewMut, holds, one_by_one,
};
use crate::random::RngStream;
use crate::shape::Grid;

type Result<T> = std::result::Result<T, DeviceError>;

/// Threads of a block that sums.
const THREADS: usize = 256;
/// Minimum number of terms per thread of a sum that is divided.
const TERMS: usize = 64;
/// Maximum number of parts of a sum.
const PARTS: usize = 512;

/// As in `primitives.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Instruction {
    op: i32,
    a: i32,
    b: i32,
    value: f32,
}

impl From<Op> for Instruction {
    fn from(op: Op) -> Self {
        let plain = |op| Self { op, ..Self::zeroed() };
        match op {
            Op::Input(index) => Self { a: index as i32, ..plain(0) },
            Op::Old => plain(1),
            Op::Constant(value) => Self { value: value as f32, ..plain(2) },
            Op::Checkerboard { width, parity } => {
                // A wider image has no second row.
                let width = width.clamp(1, i32::MAX as usize);
                Self { a: width as i32, b: (parity % 2) as i32, ..plain(3) }
            }
            Op::Neg => plain(4),
            Op::Abs => plain(5),
            Op::Exp => plain(6),
            Op::Log => plain(7),
            Op::Tanh => plain(8),
            Op::Sigmoid => plain(9),
            Op::Softplus => plain(10),
            Op::Sqrt => plain(11),
            Op::Relu => plain(12),
            Op::Step => plain(13),
            Op::Add => plain(14),
            Op::Sub => plain(15),
            Op::Mul => plain(16),
            Op::Div => plain(17),
        }
    }
}

/// As in `primitives.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Operand {
    from: u64,
    strides: [i32; 3],
    unused: i32,
}

/// As in `primitives.cu`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Expression {
    inputs: [Operand; Expr::MAX_INPUTS],
    out: u64,
    /// One array in two halves, for which `Pod` is implemented.
    program: [[Instruction; Expr::MAX_LEN / 2]; 2],
    axes: [Divisor; 3],
    out_strides: [i32; 3],
    pixel_strides: [i32; 3],
    len: i32,
}

impl Expression {
    fn new(f: &Expr, elements: &Elements, inputs: &[View<'_, Buffer>], out: &Buffer) -> Self {
        let strides = |view: usize| elements.axes.map(|axis| axis.strides[view] as i32);
        let mut expression = Self {
            out: out.at(elements.starts[OUT]),
            axes: elements.axes.map(|axis| Divisor::new(axis.len)),
            out_strides: strides(OUT),
            pixel_strides: strides(PIXEL),
            len: f.ops().len() as i32,
            ..Self::zeroed()
        };
        for (index, (operand, view)) in expression.inputs.iter_mut().zip(inputs).enumerate() {
            *operand = Operand { from: view.buffer.at(view.at.start), strides: strides(index), unused: 0 };
        }
        for (instruction, &op) in expression.program.as_flattened_mut().iter_mut().zip(f.ops()) {
            *instruction = op.into();
        }
        expression
    }
}

fn places(inputs: &[View<'_, Buffer>]) -> Vec<(Strided, usize)> {
    inputs.iter().map(|view| (view.at, view.buffer.len())).collect()
}

/// A matrix's address and the distance between its rows.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub address: u64,
    pub stride: usize,
}

impl From<Matrix<'_, Buffer>> for Rows {
    fn from(matrix: Matrix<'_, Buffer>) -> Self {
        Self { address: matrix.buffer.at(matrix.start), stride: matrix.stride }
    }
}

/// A product of which at most B is stored transposed if A is not.
pub(super) fn product(queue: &Queue, gemm: Gemm, a: Rows, b: Rows, c: Rows) -> Result<()> {
    products(queue, gemm, queue.gpu.tf32, 1, [(a, 0), (b, 0), (c, 0)])
}

/// `count` products of one shape: A, B and C of the first, and the numbers from each to the next.
fn products(queue: &Queue, gemm: Gemm, tf32: bool, count: usize, of: [(Rows, usize); 3]) -> Result<()> {
    let Gemm { m, n, k, a_transposed, b_transposed, accumulate } = gemm;
    let [a, b, c] = of;
    let (kind, [rows, inputs, outputs], [(x, x_next), (y, y_next), (w, w_next)]) =
        match (a_transposed, b_transposed) {
            (false, true) => (Kind::Forward, [m, k, n], [a, c, b]),
            (false, false) => (Kind::ByInput, [m, n, k], [c, a, b]),
            (true, _) => (Kind::ByWeight, [k, n, m], [b, a, c]),
        };
    let product = Product {
        kind,
        rows,
        inputs,
        outputs,
        // The library wants a row's length of a matrix with a single one.
        x_stride: x.stride.max(inputs),
        y_stride: y.stride.max(outputs),
        w_stride: w.stride.max(inputs),
        operands: Element::F32,
        result: Element::F32,
        tf32,
        epilogue: Epilogue::Nothing,
        accumulate,
        aligned: of.iter().all(|(first, next)| first.address.is_multiple_of(16) && next.is_multiple_of(4)),
        batch: (count > 1).then_some(Batch { count, x: x_next, y: y_next, w: w_next }),
    };
    let [left, right, result] = of.map(|(first, _)| first.address);
    queue.product(product, Operands { left, right, result, bias: 0 })
}

impl Primitives for Cuda {
    fn map(&self, f: &Expr, shape: [usize; 3], inputs: &[View<'_, Buffer>], out: ViewMut<'_, Buffer>) {
        let elements = Elements::of_map(f, shape, &places(inputs), (out.at, out.buffer.len()));
        let expression = Expression::new(f, &elements, inputs, out.buffer);
        self.attempt(|queue| {
            let count = queue.counted(elements.count())?;
            launch!(queue, queue.kernels().map, Launch::of(count); count, Argument::borrowed(&expression))
        });
    }

    fn reduce(
        &self,
        f: &Expr,
        shape: [usize; 3],
        inputs: &[View<'_, Buffer>],
        out: ViewMut<'_, Buffer>,
        accumulate: bool,
    ) {
        let elements = Elements::of_reduction(f, shape, &places(inputs), (out.at, out.buffer.len()));
        let expression = Expression::new(f, &elements, inputs, out.buffer);
        let lens = |summed: bool| -> usize {
            elements.axes.iter().filter(|axis| axis.summed() == summed).map(|axis| axis.len).product()
        };
        let (outs, terms) = (lens(false), lens(true));
        self.attempt(|queue| {
            queue.counted(outs)?;
            queue.counted(terms)?;
            // Neighbouring threads read neighbouring columns, or neighbouring terms if the columns are
            // summed.
            let lanes = if elements.axes[2].summed() {
                THREADS / terms.next_power_of_two().clamp(1, THREADS)
            } else {
                outs.next_power_of_two().min(32)
            };
            let part = (THREADS / lanes * TERMS).max(terms.div_ceil(PARTS));
            let parts = terms.div_ceil(part).max(1);
            let partial = queue.pool.take(if parts > 1 { 8 * parts * outs } else { 8 })?;
            let shape = Launch { block: THREADS as u32, ..Launch::grid(outs.div_ceil(lanes), parts, 1) };
            launch!(
                queue, queue.kernels().reduce, shape;
                outs, terms, part, lanes, i32::from(accumulate), partial.address,
                Argument::borrowed(&expression)
            )?;
            if parts == 1 {
                return Ok(());
            }
            launch!(
                queue, queue.kernels().reduce_parts, Launch::of(queue.counted(32 * outs)?);
                outs, parts, i32::from(accumulate), partial.address, Argument::borrowed(&expression)
            )
        });
    }

    fn gemm(&self, gemm: Gemm, a: Matrix<'_, Buffer>, b: Matrix<'_, Buffer>, c: MatrixMut<'_, Buffer>) {
        gemm.check(
            [(a.start, a.stride), (b.start, b.stride), (c.start, c.stride)],
            [a.buffer.len(), b.buffer.len(), c.buffer.len()],
        );
        let Gemm { m, n, k, .. } = gemm;
        if m == 0 || n == 0 {
            return;
        }
        if k == 0 {
            if !gemm.accumulate {
                let at = Strided { start: c.start, strides: [0, c.stride, 1] };
                self.map(&constant(0.0), [1, m, n], &[], ViewMut { buffer: c.buffer, at });
            }
            return;
        }
        let to = Rows { address: c.buffer.at(c.start), stride: c.stride };
        if gemm.a_transposed && gemm.b_transposed {
            // Layers do not use such products: A is transposed first.
            let mut rows = self.scratch(m * k);
            let from = View { buffer: a.buffer, at: Strided { start: a.start, strides: [0, 1, a.stride] } };
            let at = Strided { start: 0, strides: [0, k, 1] };
            self.map(&input(0), [1, m, k], &[from], ViewMut { buffer: &mut rows, at });
            let a = Rows { address: rows.address(), stride: k };
            self.attempt(|queue| product(queue, Gemm { a_transposed: false, ..gemm }, a, b.into(), to));
            return;
        }
        self.attempt(|queue| product(queue, gemm, a.into(), b.into(), to));
    }

    fn gemm_batch(
        &self,
        batch: GemmBatch,
        a: Matrix<'_, Buffer>,
        b: Matrix<'_, Buffer>,
        c: MatrixMut<'_, Buffer>,
    ) {
        let GemmBatch { gemm, count, distances: [of_a, of_b, of_c] } = batch;
        if gemm.k == 0 || (gemm.a_transposed && gemm.b_transposed) {
            return one_by_one(self, batch, a, b, c);
        }
        batch.check(
            [(a.start, a.stride), (b.start, b.stride), (c.start, c.stride)],
            [a.buffer.len(), b.buffer.len(), c.buffer.len()],
        );
        if count == 0 || gemm.m == 0 || gemm.n == 0 {
            return;
        }
        let to = Rows { address: c.buffer.at(c.start), stride: c.stride };
        self.attempt(|queue| {
            let of: [(Rows, usize); 3] = [(a.into(), of_a), (b.into(), of_b), (to, of_c)];
            products(queue, gemm, queue.gpu.tf32, count, of)
        });
    }

    fn im2col(&self, grid: Grid, channels: usize, kernel: usize, x: &Buffer, columns: &mut Buffer) {
        let len = grid.rows() * channels;
        holds("x", x.len(), len);
        holds("columns", columns.len(), kernel * kernel * len);
        if len > 0 {
            self.attempt(|queue| {
                convolution::im2col(queue, grid, channels, kernel, x.address(), columns.address())
            });
        }
    }

    fn col2im(
        &self,
        grid: Grid,
        channels: usize,
        kernel: usize,
        columns: &Buffer,
        x: &mut Buffer,
        accumulate: bool,
    ) {
        let len = grid.rows() * channels;
        holds("x", x.len(), len);
        holds("columns", columns.len(), kernel * kernel * len);
        if len > 0 {
            let (columns, x) = (columns.address(), x.address());
            self.attempt(|queue| convolution::col2im(queue, grid, channels, kernel, columns, x, accumulate));
        }
    }

    fn uniform(&self, stream: RngStream, images: usize, out: &mut Buffer) {
        self.attempt(|queue| {
            let length = out.len() / images.max(1);
            launch!(
                queue, queue.kernels().uniform_numbers, Launch::of(images * length.div_ceil(4));
                images, length, stream.seed, stream.id, 0u64, out.address()
            )
        });
    }

    fn uniform_from(&self, stream: RngStream, first: u64, out: &mut Buffer) {
        self.attempt(|queue| {
            let length = out.len();
            launch!(
                queue, queue.kernels().uniform_numbers, Launch::of(length.div_ceil(4));
                1usize, length, stream.seed, stream.id, first, out.address()
            )
        });
    }

    fn normal(&self, stream: RngStream, images: usize, scale: f64, out: &mut Buffer) {
        pixels::normal(self, stream, images, scale, out);
    }

    fn dequantize(&self, pixels: &[u8], bits: u32, noise: Noise<'_, f32>, v: &mut Buffer) {
        pixels::dequantize(self, pixels, bits, noise, v);
    }

    fn quantize(&self, v: &Buffer, bits: u32) -> Result<Quantized> {
        pixels::quantize(self, v, bits)
    }

    fn update_segments(
        &self,
        update: &Update,
        logp: &[&Buffer],
        training: Training<'_, Buffer>,
        segments: &[Segment],
    ) -> Result<UpdateReport> {
        optimizer::update(self, update, logp, training, segments)
    }

    fn orthogonalize(&self, count: usize, shape: [usize; 2], x: Buffer) -> Buffer {
        holds("x", x.len(), count * shape[0] * shape[1]);
        orthogonal::orthogonalize(self, count, shape, x, |gemm, a, b, c| {
            self.attempt(|queue| {
                let factor = |of: Factors<'_, Buffer>| {
                    (Rows { address: of.buffer.address(), stride: of.columns }, of.len)
                };
                let result = (Rows { address: c.address(), stride: gemm.n }, gemm.m * gemm.n);
                let tf32 = queue.gpu.tf32 || queue.gpu.element == Element::Bf16;
                products(queue, gemm, tf32, count, [factor(a), factor(b), result])
            });
        })
    }

    fn conv(&self, conv: Conv, x: &Buffer, weight: &Buffer, y: &mut Buffer, accumulate: bool) {
        conv.check([("x", x.len()), ("weight", weight.len()), ("y", y.len())]);
        if conv.grid.rows() > 0 {
            let [x, weight, y] = [x.address(), weight.address(), y.address()];
            self.attempt(|queue| convolution::forward(queue, conv, x, weight, y, accumulate));
        }
    }

    fn conv_backward_input(
        &self,
        conv: Conv,
        weight: &Buffer,
        dy: &Buffer,
        dx: &mut Buffer,
        accumulate: bool,
    ) {
        conv.check([("dx", dx.len()), ("weight", weight.len()), ("dy", dy.len())]);
        if conv.grid.rows() > 0 {
            let [weight, dy, dx] = [weight.address(), dy.address(), dx.address()];
            self.attempt(|queue| convolution::backward_input(queue, conv, weight, dy, dx, accumulate));
        }
    }

    fn conv_backward_weight(
        &self,
        conv: Conv,
        x: &Buffer,
        dy: &Buffer,
        dweight: &mut Buffer,
        accumulate: bool,
    ) {
        conv.check([("x", x.len()), ("dweight", dweight.len()), ("dy", dy.len())]);
        if conv.grid.rows() > 0 {
            let [x, dy, dweight] = [x.address(), dy.address(), dweight.address()];
            self.attempt(|queue| convolution::backward_weight(queue, conv, x, dy, dweight, accumulate));
        } else if !accumulate {
            let at = Strided { start: 0, strides: [0, 0, 1] };
            let len = conv.outputs * conv.columns();
            self.map(&constant(0.0), [1, 1, len], &[], ViewMut { buffer: dweight, at });
        }
    }

    fn depthwise(&self, conv: Depthwise, x: &Buffer, (taps, start): (&Buffer, usize), y: &mut Buffer) {
        if !depthwise::supports(conv) {
            return crate::depthwise::forward(self, conv, x, (taps, start), y);
        }
        conv.check(&[("x", x.len()), ("y", y.len())], (taps.len(), start));
        if !conv.is_empty() {
            let [x, taps, y] = [x.address(), taps.at(start), y.address()];
            self.attempt(|queue| depthwise::convolve(queue, conv, x, taps, y, false));
        }
    }

    fn depthwise_backward_input(
        &self,
        conv: Depthwise,
        (taps, start): (&Buffer, usize),
        dy: &Buffer,
        dx: &mut Buffer,
    ) {
        if !depthwise::supports(conv) {
            return crate::depthwise::backward_input(self, conv, (taps, start), dy, dx);
        }
        conv.check(&[("dy", dy.len()), ("dx", dx.len())], (taps.len(), start));
        if !conv.is_empty() {
            let [dy, taps, dx] = [dy.address(), taps.at(start), dx.address()];
            self.attempt(|queue| depthwise::convolve(queue, conv, dy, taps, dx, true));
        }
    }

    fn depthwise_backward_taps(
        &self,
        conv: Depthwise,
        x: &Buffer,
        dy: &Buffer,
        (dtaps, start): (&mut Buffer, usize),
    ) {
        if !depthwise::supports(conv) {
            return crate::depthwise::backward_taps(self, conv, x, dy, (dtaps, start));
        }
        conv.check(&[("x", x.len()), ("dy", dy.len())], (dtaps.len(), start));
        if conv.is_empty() {
            return;
        }
        let sums = self.scratch(conv.taps_len());
        let [x, dy, to] = [x.address(), dy.address(), sums.address()];
        self.attempt(|queue| depthwise::by_taps(queue, conv, x, dy, to));
        let at = |start| Strided { start, strides: [0, 0, 1] };
        let sums = View { buffer: &sums, at: at(0) };
        let to = ViewMut { buffer: dtaps, at: at(start) };
        self.map(&(old() + input(0)), [1, 1, conv.taps_len()], &[sums], to);
    }
}
