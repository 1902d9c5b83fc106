//! Matrix products and their operands.

use super::{Primitives, Strided};

/// Input matrix of an operation, in a buffer: row `r` begins at element `start + r·stride`.
#[derive(Debug)]
pub struct Matrix<'a, B> {
    /// The buffer.
    pub buffer: &'a B,
    /// Position of the first element.
    pub start: usize,
    /// Distance between rows.
    pub stride: usize,
}

impl<B> Clone for Matrix<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Matrix<'_, B> {}

/// Output matrix of an operation, in a buffer.
#[derive(Debug)]
pub struct MatrixMut<'a, B> {
    /// The buffer.
    pub buffer: &'a mut B,
    /// Position of the first element.
    pub start: usize,
    /// Distance between rows.
    pub stride: usize,
}

/// Matrix product `C = op(A)·op(B)`, or `C += op(A)·op(B)`, with C `[m, n]`, op(A) `[m, k]` and op(B)
/// `[k, n]`, all row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Length of the summed dimension.
    pub k: usize,
    /// True if A is stored transposed, `[k, m]`.
    pub a_transposed: bool,
    /// True if B is stored transposed, `[n, k]`.
    pub b_transposed: bool,
    /// True if the product is added to C.
    pub accumulate: bool,
}

impl Gemm {
    /// Checks starts and strides of A, B and C against the lengths of their buffers.
    ///
    /// # Panics
    /// If a buffer is too short, or rows of C overlap.
    #[track_caller]
    pub(crate) fn check(self, at: [(usize, usize); 3], lens: [usize; 3]) {
        let Self { m, n, k, a_transposed, b_transposed, .. } = self;
        let a = if a_transposed { [k, m] } else { [m, k] };
        let b = if b_transposed { [n, k] } else { [k, n] };
        let shapes = [("A", a), ("B", b), ("C", [m, n])];
        for (((name, [rows, columns]), (start, stride)), len) in shapes.into_iter().zip(at).zip(lens) {
            Strided { start, strides: [0, stride, 1] }.check(name, [1, rows, columns], len);
        }
        let stride = at[2].1;
        assert!(m <= 1 || stride >= n, "rows of {n} numbers overlap in C, whose stride is {stride}");
    }
}

/// Batch of matrix products of equal shape. Consecutive matrices begin at fixed distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmBatch {
    /// The shape of each product.
    pub gemm: Gemm,
    /// Number of products.
    pub count: usize,
    /// Distances between the starts of consecutive matrices A, B and C.
    pub distances: [usize; 3],
}

impl GemmBatch {
    /// Checks starts and strides of the first A, B and C against the lengths of their buffers.
    ///
    /// # Panics
    /// If a buffer is too short for the last product, or elements of C overlap.
    #[track_caller]
    pub(crate) fn check(self, at: [(usize, usize); 3], lens: [usize; 3]) {
        let Self { gemm: Gemm { m, n, .. }, count, distances } = self;
        let Some(last) = count.checked_sub(1) else { return };
        let [a, b, c] = at;
        let moved = |(start, stride): (usize, usize), distance: usize| {
            (start.saturating_add(last.saturating_mul(distance)), stride)
        };
        self.gemm.check([moved(a, distances[0]), moved(b, distances[1]), moved(c, distances[2])], lens);
        let (stride, distance) = (c.1, distances[2]);
        let apart = distance >= m.saturating_sub(1) * stride + n;
        // The rows of one matrix are between those of the others.
        let interleaved = distance >= n && stride >= last * distance + n;
        assert!(
            last == 0 || m * n == 0 || apart || interleaved,
            "matrices C of {m} rows overlap, which begin {distance} numbers apart"
        );
    }
}

/// Default implementation of [`Primitives::gemm_batch`].
pub(crate) fn one_by_one<D: Primitives>(
    device: &D,
    batch: GemmBatch,
    a: Matrix<'_, D::Buffer>,
    b: Matrix<'_, D::Buffer>,
    c: MatrixMut<'_, D::Buffer>,
) {
    let lens = [device.len(a.buffer), device.len(b.buffer), device.len(c.buffer)];
    batch.check([(a.start, a.stride), (b.start, b.stride), (c.start, c.stride)], lens);
    let [of_a, of_b, of_c] = batch.distances;
    let MatrixMut { buffer, start, stride } = c;
    for i in 0..batch.count {
        device.gemm(
            batch.gemm,
            Matrix { start: a.start + i * of_a, ..a },
            Matrix { start: b.start + i * of_b, ..b },
            MatrixMut { buffer: &mut *buffer, start: start + i * of_c, stride },
        );
    }
}
