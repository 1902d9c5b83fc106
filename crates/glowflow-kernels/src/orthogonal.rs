//! The default body of [`Primitives::orthogonalize`]: Newton–Schulz iterations (Jordan et al. 2024, "Muon").
//!
//! ```text
//! X ← X/(‖X‖ + 10⁻⁷)          ‖·‖ the Frobenius norm; elements below 10⁻¹⁵ become 0
//! five times, with rows ≤ columns:   A = X·Xᵀ    X ← a·X + (b·A + c·A²)·X
//!            with rows > columns:    A = Xᵀ·X    X ← a·X + X·(b·A + c·A²)
//! ```
//!
//! Both forms are the same function of the singular values: each becomes `a·s + b·s³ + c·s⁵`. The
//! coefficients increase small values quickly, and leave values between about 0.7 and 1.2 instead of at 1.

use crate::expr::{constant, input, old};
use crate::primitives::{Gemm, Matrix, MatrixMut, Primitives, Strided, View, ViewMut};

/// a, b and c.
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Number of iterations.
const ITERATIONS: usize = 5;
/// Added to the norm, so that a zero matrix is not divided by 0.
const EPSILON: f64 = 1e-7;
/// Smaller elements of the normalised matrix count as 0. Otherwise their products are subnormal, and products of
/// matrices on CPUs take several times as long.
const SMALLEST: f64 = 1e-15;

/// Factors of several products: contiguous matrices.
#[derive(Debug)]
pub struct Factors<'a, B> {
    pub buffer: &'a B,
    /// Elements per row.
    pub columns: usize,
    /// Elements per matrix.
    pub len: usize,
}

impl<'a, B> Factors<'a, B> {
    fn new(buffer: &'a B, [rows, columns]: [usize; 2]) -> Self {
        Self { buffer, columns, len: rows * columns }
    }
}

/// Multiplies `count` pairs of matrices, one after another.
pub fn one_by_one<D: Primitives>(
    device: &D,
    count: usize,
    gemm: Gemm,
    a: Factors<'_, D::Buffer>,
    b: Factors<'_, D::Buffer>,
    c: &mut D::Buffer,
) {
    for i in 0..count {
        let at = |of: &Factors<'_, D::Buffer>| (i * of.len, of.columns);
        let ((a_start, a_stride), (b_start, b_stride)) = (at(&a), at(&b));
        device.gemm(
            gemm,
            Matrix { buffer: a.buffer, start: a_start, stride: a_stride },
            Matrix { buffer: b.buffer, start: b_start, stride: b_stride },
            MatrixMut { buffer: &mut *c, start: i * gemm.m * gemm.n, stride: gemm.n },
        );
    }
}

/// See [`Primitives::orthogonalize`]. `product` multiplies all matrices.
pub fn orthogonalize<D: Primitives>(
    device: &D,
    count: usize,
    shape: [usize; 2],
    mut x: D::Buffer,
    product: impl Fn(Gemm, Factors<'_, D::Buffer>, Factors<'_, D::Buffer>, &mut D::Buffer),
) -> D::Buffer {
    let [rows, columns] = shape;
    let (len, side) = (rows * columns, rows.min(columns));
    if count * len == 0 {
        return x;
    }
    let each = Strided { start: 0, strides: [len, 0, 1] };
    let per_matrix = Strided { start: 0, strides: [1, 0, 0] };
    let mut squares = device.scratch(count);
    let square = View { buffer: &x, at: each };
    let sums = ViewMut { buffer: &mut squares, at: per_matrix };
    device.reduce(&(input(0) * input(0)), [count, 1, len], &[square], sums, false);
    let normalized = (old() / (input(0).sqrt() + constant(EPSILON))).zero_up_to(SMALLEST);
    let sums = View { buffer: &squares, at: per_matrix };
    device.map(&normalized, [count, 1, len], &[sums], ViewMut { buffer: &mut x, at: each });

    let [a, b, c] = COEFFICIENTS;
    let flat = Strided { start: 0, strides: [0, 0, 1] };
    let wide = rows <= columns;
    let (squares, lens) = (count * side * side, count * len);
    let (mut gram, mut polynomial) = (device.scratch(squares), device.scratch(squares));
    let mut next = device.scratch(lens);
    let gemm = |m, n, k| Gemm { m, n, k, a_transposed: false, b_transposed: false, accumulate: false };
    for _ in 0..ITERATIONS {
        let square = Gemm { a_transposed: !wide, b_transposed: wide, ..gemm(side, side, rows.max(columns)) };
        product(square, Factors::new(&x, shape), Factors::new(&x, shape), &mut gram);
        let grams = || Factors::new(&gram, [side, side]);
        product(gemm(side, side, side), grams(), grams(), &mut polynomial);
        let f = constant(c) * old() + constant(b) * input(0);
        let to = ViewMut { buffer: &mut polynomial, at: flat };
        device.map(&f, [1, 1, squares], &[View { buffer: &gram, at: flat }], to);

        let (from, to) = (View { buffer: &x, at: flat }, ViewMut { buffer: &mut next, at: flat });
        device.map(&(constant(a) * input(0)), [1, 1, lens], &[from], to);
        let sum = Gemm { accumulate: true, ..gemm(rows, columns, side) };
        let (x_factors, polynomials) = (Factors::new(&x, shape), Factors::new(&polynomial, [side, side]));
        if wide {
            product(sum, polynomials, x_factors, &mut next);
        } else {
            product(sum, x_factors, polynomials, &mut next);
        }
        std::mem::swap(&mut x, &mut next);
    }
    x
}
