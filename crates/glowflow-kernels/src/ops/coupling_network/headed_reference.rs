//! Layer by layer, like [`reference`](super::reference); the zero convolution is the device's.

use super::headed::{HeadedNetwork, HeadedNetworkParams};
use super::reference::{relu, relu_backward};
use crate::cuda::Cuda;
use crate::ops::{NetworkOutputs, Reference, ZeroConv, network_outputs};
use crate::primitives::Primitives;
use crate::shape::Grid;

/// Both hidden layers, after their ReLUs.
pub struct Hidden<B>([B; 2]);

fn run<D: ZeroConv>(
    device: &D,
    HeadedNetworkParams { network: at, head }: &HeadedNetworkParams,
    params: &D::Buffer,
    grid: Grid,
    x: &D::Buffer,
    outputs: &mut NetworkOutputs<D::Buffer>,
) -> Hidden<D::Buffer> {
    let rows = at.hidden_rows(grid);
    let [conv1, conv2] = at.layers(grid.rows());
    let mut h1 = device.scratch(rows.len());
    conv1.forward(device, params, &at.patches(grid).of(device, x), &mut h1);
    relu(device, rows, &mut h1);
    let mut h2 = device.scratch(rows.len());
    conv2.forward(device, params, &h1, &mut h2);
    relu(device, rows, &mut h2);
    device.zero_conv(&device.prepare_zero_conv(&at.conv3, params), grid, &h2, &mut outputs.o);
    head.scaled(grid.rows()).forward(device, params, &h2, network_outputs::head_mut(outputs));
    Hidden([h1, h2])
}

#[allow(clippy::too_many_arguments)]
fn backward<D: ZeroConv>(
    device: &D,
    HeadedNetworkParams { network: at, head }: &HeadedNetworkParams,
    params: &D::Buffer,
    grid: Grid,
    x: &D::Buffer,
    Hidden([h1, h2]): &Hidden<D::Buffer>,
    d_outputs: &NetworkOutputs<D::Buffer>,
    dx: &mut D::Buffer,
    gradient: &mut D::Buffer,
) {
    let rows = at.hidden_rows(grid);
    let head = head.scaled(grid.rows());
    let mut y = device.scratch(grid.rows() * head.outputs);
    head.forward(device, params, h2, &mut y);
    let mut d_h2 = head.backward(device, params, h2, &y, network_outputs::head(d_outputs), gradient);
    device.zero_conv_backward(&at.conv3, params, grid, h2, &d_outputs.o, &mut d_h2, gradient);
    relu_backward(device, rows, h2, &mut d_h2);
    let [conv1, conv2] = at.layers(grid.rows());
    let mut d_h1 = conv2.backward(device, params, h1, h2, &d_h2, gradient);
    relu_backward(device, rows, h1, &mut d_h1);
    let patches = at.patches(grid);
    let d_patches = conv1.backward(device, params, &patches.of(device, x), h1, &d_h1, gradient);
    patches.backward(device, &d_patches, dx);
}

/// Implements the operation by its reference body.
macro_rules! by_reference {
    ([$($generics:tt)*] $device:ty) => {
        impl<$($generics)*> HeadedNetwork for $device {
            type HeadedWeights = ();
            type HeadedHidden = Hidden<Self::Buffer>;

            fn prepare_headed_network(&self, _: &HeadedNetworkParams, _: &Self::Buffer) {}

            fn headed_network(
                &self,
                at: &HeadedNetworkParams,
                (): &(),
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                outputs: &mut NetworkOutputs<Self::Buffer>,
            ) {
                run(self, at, params, grid, x, outputs);
            }

            fn headed_network_saving(
                &self,
                at: &HeadedNetworkParams,
                (): &(),
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                outputs: &mut NetworkOutputs<Self::Buffer>,
            ) -> Self::HeadedHidden {
                run(self, at, params, grid, x, outputs)
            }

            fn headed_network_backward(
                &self,
                at: &HeadedNetworkParams,
                params: &Self::Buffer,
                grid: Grid,
                x: &Self::Buffer,
                hidden: &Self::HeadedHidden,
                d_outputs: &NetworkOutputs<Self::Buffer>,
                dx: &mut Self::Buffer,
                gradient: &mut Self::Buffer,
            ) {
                backward(self, at, params, grid, x, hidden, d_outputs, dx, gradient);
            }
        }
    };
}

by_reference!([D: Primitives] Reference<D>);
by_reference!([] Cuda);
