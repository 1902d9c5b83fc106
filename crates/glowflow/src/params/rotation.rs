//! Random permutations and rotations of channels.

use glowflow_kernels::RngStream;
use nalgebra::{DMatrix, DVector};

/// A random permutation, obtained by sorting random numbers.
pub(crate) fn shuffled(stream: RngStream, n: usize) -> Vec<usize> {
    let mut index: Vec<usize> = (0..n).collect();
    index.sort_by_cached_key(|&i| (stream.block(i as u64)[0], i));
    index
}

/// The LU form of a matrix: `P·L·(U + diag(sign ⊙ exp(log_s)))`.
#[derive(Default)]
pub(crate) struct Lu {
    /// P: `(P v)[i] = v[index[i]]`.
    pub index: Vec<usize>,
    /// Signs of U's diagonal.
    pub sign: Vec<f64>,
    /// L below its diagonal, `[n, n]`.
    pub lower: Vec<f32>,
    /// U above its diagonal, `[n, n]`.
    pub upper: Vec<f32>,
    /// Logarithms of the magnitudes of U's diagonal, `[n]`.
    pub log_s: Vec<f32>,
}

/// The LU form of a random rotation, the Q of a Gaussian matrix.
pub(crate) fn random_rotation(stream: RngStream, n: usize) -> Lu {
    let gaussian = DMatrix::from_fn(n, n, |i, j| stream.normal((i * n + j) as u64)[0]);
    let lu = gaussian.qr().q().lu();
    // Row i of L·U is row taken[i] of the rotation; P undoes that.
    let mut taken = DVector::from_fn(n, |i, _| i);
    lu.p().permute_rows(&mut taken);
    let mut index = vec![0; n];
    taken.iter().enumerate().for_each(|(i, &row)| index[row] = i);
    let (l, u) = (lu.l(), lu.u());
    let part = |matrix: &DMatrix<f64>, read: fn(usize, usize) -> bool| {
        (0..n * n)
            .map(|at| (at / n, at % n))
            .map(|(i, j)| if read(i, j) { matrix[(i, j)] as f32 } else { 0.0 })
            .collect()
    };
    Lu {
        index,
        sign: (0..n).map(|i| u[(i, i)].signum()).collect(),
        lower: part(&l, |i, j| i > j),
        upper: part(&u, |i, j| i < j),
        log_s: (0..n).map(|i| u[(i, i)].abs().ln() as f32).collect(),
    }
}
