//! The map as one product. The small matrices are computed in `f64`, regardless of the type of activations,
//! so that map and inverse are each rounded once.

use nalgebra::DMatrix;

use super::{ChannelMapParams, PermutationParams};
use crate::cpu::conv::WeightGradient;
use crate::cpu::panels::Panels;
use crate::cpu::product::{Packed, product_into_rows, transposed_products};
use crate::cpu::workspace::Workspace;
use crate::cpu::{Buffer, Cpu, Scalar};
use crate::ops::Direction;
use crate::shape::{Grid, Span};

/// An affine map `y = A x + b` of `channels` channels, and its log-determinant.
pub struct ChannelMap<T: Scalar> {
    channels: usize,
    matrix: Packed<T>,
    /// Of one pixel.
    log_det: f64,
    /// Additional data for gradients.
    for_gradient: Option<GradientMatrices<T>>,
}

struct GradientMatrices<T: Scalar> {
    permutation: Permutation,
    /// `Aᵀ`
    transposed: Packed<T>,
}

/// The permutation's matrix and, for the LU form, its factors.
struct Permutation {
    matrix: DMatrix<f64>,
    /// `L` and `U` with their diagonals, in the LU form.
    factors: Option<(DMatrix<f64>, DMatrix<f64>)>,
    log_det: f64,
}

fn read<T: Scalar>(params: &[T], span: Span) -> impl Fn(usize) -> f64 + '_ {
    move |i| params[span.start + i].wide()
}

/// The rows of `matrix` selected by `index`: `P·matrix`.
fn permuted(index: &[usize], matrix: &DMatrix<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(matrix.nrows(), matrix.ncols(), |i, j| matrix[(index[i], j)])
}

/// The inverse of [`permuted`].
fn unpermuted(index: &[usize], matrix: &DMatrix<f64>) -> DMatrix<f64> {
    let mut result = DMatrix::zeros(matrix.nrows(), matrix.ncols());
    for (i, &from) in index.iter().enumerate() {
        for j in 0..matrix.ncols() {
            result[(from, j)] = matrix[(i, j)];
        }
    }
    result
}

impl Permutation {
    fn new<T: Scalar>(channels: usize, at: &PermutationParams, params: &[T]) -> Self {
        match at {
            PermutationParams::Fixed { index } => Self {
                matrix: permuted(index, &DMatrix::identity(channels, channels)),
                factors: None,
                log_det: 0.0,
            },
            PermutationParams::Lu { index, sign, lower, upper, log_s } => {
                let (l, u, s) = (read(params, *lower), read(params, *upper), read(params, *log_s));
                let lower = DMatrix::from_fn(channels, channels, |i, j| match i.cmp(&j) {
                    std::cmp::Ordering::Greater => l(i * channels + j),
                    std::cmp::Ordering::Equal => 1.0,
                    std::cmp::Ordering::Less => 0.0,
                });
                let upper = DMatrix::from_fn(channels, channels, |i, j| match i.cmp(&j) {
                    std::cmp::Ordering::Less => u(i * channels + j),
                    std::cmp::Ordering::Equal => sign[i] * s(i).exp(),
                    std::cmp::Ordering::Greater => 0.0,
                });
                Self {
                    matrix: permuted(index, &(&lower * &upper)),
                    log_det: (0..channels).map(s).sum(),
                    factors: Some((lower, upper)),
                }
            }
        }
    }

    /// `W⁻¹ = U⁻¹ L⁻¹ Pᵀ`.
    fn inverse(&self, index: &[usize]) -> DMatrix<f64> {
        let n = self.matrix.nrows();
        let mut inverse = unpermuted(index, &DMatrix::identity(n, n));
        if let Some((lower, upper)) = &self.factors {
            // Neither has a 0 on its diagonal: one is unit, the other's entries are exponentials.
            lower.solve_lower_triangular_mut(&mut inverse);
            upper.solve_upper_triangular_mut(&mut inverse);
        }
        inverse
    }
}

impl PermutationParams {
    fn index(&self) -> &[usize] {
        match self {
            Self::Fixed { index } | Self::Lu { index, .. } => index,
        }
    }
}

impl<T: Scalar> ChannelMap<T> {
    fn prepare(work: &Workspace<T>, at: &ChannelMapParams, params: &[T], direction: Direction) -> Self {
        let channels = at.channels;
        let permutation = Permutation::new(channels, &at.permutation, params);
        let (bias, logs) = (read(params, at.actnorm.bias), read(params, at.actnorm.logs));
        let log_det = permutation.log_det + (0..channels).map(|c| 3.0 * logs(c)).sum::<f64>();
        let affine = |a: DMatrix<f64>, b: &dyn Fn(usize) -> f64| {
            pack(work, &a.transpose()).with_bias((0..channels).map(|c| T::of(b(c))))
        };
        let a =
            |w: &DMatrix<f64>| DMatrix::from_fn(channels, channels, |i, j| w[(i, j)] * (3.0 * logs(j)).exp());
        if direction == Direction::Forward {
            let a = a(&permutation.matrix);
            let b: Vec<f64> =
                (0..channels).map(|i| (0..channels).map(|j| a[(i, j)] * bias(j)).sum()).collect();
            return Self { channels, matrix: affine(a, &|c| b[c]), log_det, for_gradient: None };
        }
        let inverse = permutation.inverse(at.permutation.index());
        let inverse = DMatrix::from_fn(channels, channels, |i, j| inverse[(i, j)] * (-3.0 * logs(i)).exp());
        Self {
            channels,
            matrix: affine(inverse, &|c| -bias(c)),
            log_det: 0.0,
            for_gradient: (direction == Direction::Backward).then(|| {
                let transposed = pack(work, &a(&permutation.matrix));
                GradientMatrices { permutation, transposed }
            }),
        }
    }

    /// Applies the map in place.
    fn run(&self, work: &Workspace<T>, grid: Grid, x: &mut [T], logp: Option<&mut [T]>) {
        apply(work, &self.matrix, self.channels, x);
        if let Some(logp) = logp {
            let log_det = T::of(self.log_det * grid.pixels() as f64);
            logp.iter_mut().for_each(|logp| *logp += log_det);
        }
    }

    /// Replaces the output by the input and the output gradient by the input gradient, and adds the
    /// parameters' gradients to `gradient`.
    #[allow(clippy::too_many_arguments)]
    fn backward(
        &self,
        work: &Workspace<T>,
        at: &ChannelMapParams,
        params: &[T],
        grid: Grid,
        x: &mut [T],
        dx: &mut [T],
        dlogp: f64,
        gradient: &mut [T],
    ) {
        let Some(GradientMatrices { permutation, transposed }) = &self.for_gradient else {
            panic!("a channel map that was not prepared for the backward pass has no gradient")
        };
        let channels = at.channels;
        let (bias, logs) = (read(params, at.actnorm.bias), read(params, at.actnorm.logs));
        let scale: Vec<f64> = (0..channels).map(|c| (3.0 * logs(c)).exp()).collect();
        let w = &permutation.matrix;
        let dy = apply(work, transposed, channels, dx);
        apply(work, &self.matrix, channels, x);
        let input = Panels::of_rows(work, channels, x);
        let mut gradient_of_map = WeightGradient::zero(work, channels, channels);
        transposed_products(work, vec![gradient_of_map.of(dy.view(), input.view())]);
        let WeightGradient { matrix: by_matrix, sums: by_offset } = gradient_of_map;

        // The gradient of W, from those of A = W diag(s) and b = A bias.
        let d_w = DMatrix::from_fn(channels, channels, |i, j| {
            scale[j] * (by_matrix[i * channels + j].wide() + by_offset[i].wide() * bias(j))
        });
        // Every sample's log-determinant has the same derivative.
        let d_log_det = dlogp * grid.rows() as f64;
        let mut add = |at: usize, value: f64| gradient[at] += T::of(value);
        for j in 0..channels {
            let through_bias: f64 = (0..channels).map(|i| w[(i, j)] * by_offset[i].wide()).sum();
            let through_scale: f64 = (0..channels).map(|i| w[(i, j)] * d_w[(i, j)]).sum();
            add(at.actnorm.bias.start + j, scale[j] * through_bias);
            add(at.actnorm.logs.start + j, 3.0 * (through_scale + d_log_det));
        }
        let (PermutationParams::Lu { index, lower, upper, log_s, .. }, Some((l, u))) =
            (&at.permutation, &permutation.factors)
        else {
            return;
        };
        let d_lu = unpermuted(index, &d_w);
        let (d_l, d_u) = (&d_lu * u.transpose(), l.tr_mul(&d_lu));
        for i in 0..channels {
            for j in 0..i {
                add(lower.start + i * channels + j, d_l[(i, j)]);
            }
            for j in i + 1..channels {
                add(upper.start + i * channels + j, d_u[(i, j)]);
            }
            add(log_s.start + i, d_u[(i, i)] * u[(i, i)] + d_log_det);
        }
    }
}

impl<T: Scalar> super::ChannelMap for Cpu<T> {
    type Map = ChannelMap<T>;

    fn prepare_channel_map(
        &self,
        at: &ChannelMapParams,
        params: &Buffer<T>,
        direction: Direction,
    ) -> ChannelMap<T> {
        ChannelMap::prepare(&self.work, at, params, direction)
    }

    fn channel_map(&self, map: &ChannelMap<T>, grid: Grid, x: &mut Buffer<T>, logp: Option<&mut Buffer<T>>) {
        map.run(&self.work, grid, x, logp.map(|logp| &mut logp[..]));
    }

    fn channel_map_backward(
        &self,
        map: &ChannelMap<T>,
        at: &ChannelMapParams,
        params: &Buffer<T>,
        grid: Grid,
        x: &mut Buffer<T>,
        dx: &mut Buffer<T>,
        dlogp: f64,
        gradient: &mut Buffer<T>,
    ) {
        map.backward(&self.work, at, params, grid, x, dx, dlogp, gradient);
    }
}

fn pack<T: Scalar>(work: &Workspace<T>, matrix: &DMatrix<f64>) -> Packed<T> {
    Packed::of_rows(work, matrix.nrows(), matrix.ncols(), |i, first, to| {
        to.iter_mut().enumerate().for_each(|(j, to)| *to = T::of(matrix[(i, first + j)]));
    })
}

/// `x ← matrix·x + bias` for every row of `x`, in place; returns the old `x`.
fn apply<T: Scalar>(work: &Workspace<T>, matrix: &Packed<T>, channels: usize, x: &mut [T]) -> Panels<T> {
    let before = Panels::of_rows(work, channels, x);
    product_into_rows(before.view(), matrix, x);
    before
}
