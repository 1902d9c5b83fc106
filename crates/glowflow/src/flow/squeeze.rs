//! Squeeze: `[H, W, C] → [H/2, W/2, 4C]`, output channel `4c + 2dy + dx` (the order of PyTorch's
//! `pixel_unshuffle`). `log|det| = 0`.

use glowflow_kernels::{Direction, Grid, ops};

use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};

/// Trades height and width for channels.
#[derive(Clone, Copy, Debug)]
pub struct Squeeze;

impl<D: ops::Squeeze> Layer<D> for Squeeze {
    fn shapes(&self, input: Shape) -> Shapes {
        let Shape { height, width, channels } = input;
        Shapes::of(Shape { height: height / 2, width: width / 2, channels: 4 * channels })
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(Squeeze)
    }
}

impl<D: ops::Squeeze> Prepared<D> for Squeeze {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        let Tensor { grid, channels, data } = &state.x;
        let mut y = cx.device.scratch(grid.rows() * channels);
        cx.device.squeeze(*grid, *channels, data, &mut y);
        state.x = Tensor { grid: grid.halved(), channels: 4 * channels, data: y };
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        let Tensor { grid, channels, data } = &state.x;
        let data = unsqueezed(cx.device, *grid, *channels, data);
        state.x = Tensor { grid: grid.doubled(), channels: channels / 4, data };
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        let x = &pass.state.x;
        pass.dx = unsqueezed(pass.cx.device, x.grid, x.channels, &pass.dx);
        self.inverse(&pass.cx, &mut pass.state);
    }
}

/// Inverts a squeeze to `grid` and `channels`.
fn unsqueezed<D: ops::Squeeze>(device: &D, grid: Grid, channels: usize, y: &D::Buffer) -> D::Buffer {
    let mut x = device.scratch(grid.rows() * channels);
    device.unsqueeze(grid.doubled(), channels / 4, y, &mut x);
    x
}
