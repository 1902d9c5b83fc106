//! Permutation matrices, and the LU form of a matrix.

use nalgebra::{DMatrix, DVector};

use crate::Error;
use crate::parts::Lu;

/// The index of a permutation matrix, `(P v)[i] = v[index[i]]`; `None` if it is not one.
pub(crate) fn permutation_index(matrix: &[f64], n: usize) -> Option<Vec<usize>> {
    let mut taken = vec![false; n];
    let row = |row: &[f64]| {
        let at = row.iter().position(|&x| x == 1.0)?;
        let alone = row.iter().enumerate().all(|(j, &x)| j == at || x == 0.0);
        (alone && !std::mem::replace(&mut taken[at], true)).then_some(at)
    };
    matrix.chunks_exact(n).map(row).collect()
}

/// The LU form of the matrix `name`, `[n, n]` in C order.
pub(crate) fn lu(name: &str, matrix: &[f64], n: usize) -> Result<Lu, Error> {
    let lu = DMatrix::from_row_slice(n, n, matrix).lu();
    // Row i of L·U is row taken[i] of the matrix; P undoes that.
    let mut taken = DVector::from_fn(n, |i, _| i);
    lu.p().permute_rows(&mut taken);
    let mut index = vec![0; n];
    taken.iter().enumerate().for_each(|(i, &row)| index[row] = i);
    let (l, u) = (lu.l(), lu.u());
    if (0..n).any(|i| u[(i, i)] == 0.0 || !u[(i, i)].is_finite()) {
        return Err(Error::model(format!("the matrix {name} is singular")));
    }
    let rows = |matrix: &DMatrix<f64>| (0..n * n).map(|at| matrix[(at / n, at % n)]).collect();
    Ok(Lu {
        index,
        sign: (0..n).map(|i| u[(i, i)].signum()).collect(),
        lower: rows(&l),
        upper: rows(&u),
        log_s: (0..n).map(|i| u[(i, i)].abs().ln()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lu_form_is_the_matrix() {
        let n = 4;
        let matrix: Vec<f64> = (0..n * n).map(|i| ((i * 7 % 11) as f64 - 4.0) / 3.0).collect();
        let lu = lu("w", &matrix, n).unwrap();
        let entry = |i: usize, j: usize| {
            let row = lu.index[i];
            let l = |k: usize| if k < row { lu.lower[row * n + k] } else { f64::from(k == row) };
            let u = |k: usize| match k {
                _ if k < j => lu.upper[k * n + j],
                _ if k == j => lu.sign[j] * lu.log_s[j].exp(),
                _ => 0.0,
            };
            (0..n).map(|k| l(k) * u(k)).sum::<f64>()
        };
        for (at, want) in matrix.iter().enumerate() {
            assert!((entry(at / n, at % n) - want).abs() < 1e-14);
        }
    }

    #[test]
    fn a_singular_matrix_is_an_error() {
        assert!(lu("w", &[1.0, 2.0, 2.0, 4.0], 2).is_err());
        assert!(lu("w", &[0.0; 4], 2).is_err());
    }

    #[test]
    fn permutation_matrices_are_recognised() {
        assert_eq!(permutation_index(&[0.0, 1.0, 1.0, 0.0], 2), Some(vec![1, 0]));
        for matrix in
            [[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0], [0.5, 0.5, 0.0, 1.0], [f64::NAN, 1.0, 1.0, 0.0]]
        {
            assert_eq!(permutation_index(&matrix, 2), None);
        }
    }
}
