//! Layer by layer: patches, a product, and a map for scale and ReLU.

use super::{CouplingNetwork, NetworkParams};
use crate::device::Device;
use crate::expr::{input, old};
use crate::ops::scaled::{Patches, ScaledConv};
use crate::ops::views::{Rows, read, write};
use crate::ops::{Reference, actnorm};
use crate::primitives::Primitives;
use crate::shape::Grid;

impl NetworkParams {
    /// The patches of the first half of the channels.
    pub(super) fn patches(&self, grid: Grid) -> Patches {
        Patches { grid, inputs: self.inputs, channels: 2 * self.inputs }
    }

    /// Both hidden layers over a number of rows.
    pub(super) fn layers(&self, rows: usize) -> [ScaledConv; 2] {
        let conv = |columns, taps, weight, norm: crate::ops::ActNormParams| {
            let (outputs, bias, logs) = (self.hidden, norm.bias, Some(norm.logs));
            ScaledConv { rows, columns, taps, outputs, weight, bias, logs }
        };
        [
            conv(9 * (self.inputs + 1), 9, self.conv1, self.actnorm1),
            conv(self.hidden, 1, self.conv2, self.actnorm2),
        ]
    }

    pub(super) fn hidden_rows(&self, grid: Grid) -> Rows {
        Rows { rows: grid.rows(), channels: self.hidden }
    }
}

/// A copy of the parameters, with their spans.
pub struct Network<B> {
    at: NetworkParams,
    params: B,
}

/// Both hidden layers, after their ReLUs, and the output.
pub struct Hidden<B> {
    layers: [B; 2],
    o: B,
}

pub(super) fn relu<D: Primitives>(device: &D, rows: Rows, h: &mut D::Buffer) {
    device.map(&old().relu(), rows.shape(), &[], write(h, rows.each()));
}

/// The gradient of a ReLU's input, given its output.
pub(super) fn relu_backward<D: Primitives>(device: &D, rows: Rows, h: &D::Buffer, dh: &mut D::Buffer) {
    let f = old() * input(0).step();
    device.map(&f, rows.shape(), &[read(h, rows.each())], write(dh, rows.each()));
}

fn run<D: Primitives>(
    device: &D,
    Network { at, params }: &Network<D::Buffer>,
    grid: Grid,
    x: &D::Buffer,
    o: &mut D::Buffer,
) -> [D::Buffer; 2] {
    let rows = at.hidden_rows(grid);
    let hidden = |conv: ScaledConv, patches: &D::Buffer| {
        let mut h = device.scratch(rows.len());
        conv.forward(device, params, patches, &mut h);
        relu(device, rows, &mut h);
        h
    };
    let [conv1, conv2] = at.layers(grid.rows());
    let h1 = hidden(conv1, &at.patches(grid).of(device, x));
    let h2 = hidden(conv2, &h1);
    at.conv3.scaled(grid.rows()).forward(device, params, &at.conv3.patches(grid).of(device, &h2), o);
    [h1, h2]
}

impl<D: Primitives> CouplingNetwork for Reference<D> {
    type Network = Network<D::Buffer>;
    type Hidden = Hidden<D::Buffer>;

    fn prepare_network(&self, at: &NetworkParams, params: &D::Buffer) -> Self::Network {
        Network { at: *at, params: self.copied(params, self.len(params)) }
    }

    fn network(&self, network: &Self::Network, grid: Grid, x: &D::Buffer, o: &mut D::Buffer) {
        run(self, network, grid, x, o);
    }

    fn network_saving(
        &self,
        network: &Self::Network,
        grid: Grid,
        x: &D::Buffer,
        o: &mut D::Buffer,
    ) -> Self::Hidden {
        let layers = run(self, network, grid, x, o);
        Hidden { layers, o: self.copied(o, self.len(o)) }
    }

    fn network_backward(
        &self,
        at: &NetworkParams,
        params: &D::Buffer,
        grid: Grid,
        x: &D::Buffer,
        hidden: &Self::Hidden,
        d_o: &D::Buffer,
        dx: &mut D::Buffer,
        gradient: &mut D::Buffer,
    ) {
        let Hidden { layers: [h1, h2], o } = hidden;
        let rows = at.hidden_rows(grid);
        let [conv1, conv2] = at.layers(grid.rows());
        let (conv3, patches3) = (at.conv3.scaled(grid.rows()), at.conv3.patches(grid));

        let d_patches = conv3.backward(self, params, &patches3.of(self, h2), o, d_o, gradient);
        let mut d_h2 = self.zeros(rows.len());
        patches3.backward(self, &d_patches, &mut d_h2);
        // A non-zero output of a ReLU equals its input, so gradients need no pre-activations.
        relu_backward(self, rows, h2, &mut d_h2);
        let mut d_h1 = conv2.backward(self, params, h1, h2, &d_h2, gradient);
        relu_backward(self, rows, h1, &mut d_h1);
        let patches = at.patches(grid);
        let d_patches = conv1.backward(self, params, &patches.of(self, x), h1, &d_h1, gradient);
        patches.backward(self, &d_patches, dx);
    }

    fn initialize_network(&self, at: &NetworkParams, grid: Grid, x: &D::Buffer, params: &mut D::Buffer) {
        let rows = at.hidden_rows(grid);
        let mut patches = at.patches(grid).of(self, x);
        for (conv, norm) in at.layers(grid.rows()).into_iter().zip([at.actnorm1, at.actnorm2]) {
            let mut h = self.scratch(rows.len());
            conv.product(self, params, &patches, &mut h);
            actnorm::reference::initialize(self, &norm, &h, params);
            conv.scale(self, params, &mut h);
            relu(self, rows, &mut h);
            patches = h;
        }
    }
}
