//! Data-dependent initialisation from several parts of a batch, whose hidden activations are not in memory
//! together: the first layer runs again for the second.

use super::NetworkParams;
use super::reference::relu;
use crate::ops::actnorm;
use crate::primitives::Primitives;
use crate::shape::Grid;

pub(super) fn initialize<D: Primitives>(
    device: &D,
    at: &NetworkParams,
    parts: &[(Grid, &D::Buffer)],
    params: &mut D::Buffer,
) {
    for (layer, norm) in [at.actnorm1, at.actnorm2].iter().enumerate() {
        let moments = |(grid, x): &(Grid, &D::Buffer)| {
            let h = before_actnorm(device, at, params, *grid, x, layer);
            actnorm::reference::moments(device, at.hidden, &h)
        };
        let moments: Vec<_> = parts.iter().map(moments).collect();
        actnorm::reference::initialize_from(device, norm, &moments, params);
    }
}

/// The input of the actnorm of hidden layer 0 or 1, `[rows, hidden]`.
fn before_actnorm<D: Primitives>(
    device: &D,
    at: &NetworkParams,
    params: &D::Buffer,
    grid: Grid,
    x: &D::Buffer,
    layer: usize,
) -> D::Buffer {
    let rows = at.hidden_rows(grid);
    let [conv1, conv2] = at.layers(grid.rows());
    let mut h = device.scratch(rows.len());
    conv1.product(device, params, &at.patches(grid).of(device, x), &mut h);
    if layer == 0 {
        return h;
    }
    conv1.scale(device, params, &mut h);
    relu(device, rows, &mut h);
    let mut product = device.scratch(rows.len());
    conv2.product(device, params, &h, &mut product);
    product
}
