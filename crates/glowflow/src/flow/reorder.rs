//! Reorders the channels after a squeeze so that a split follows a checkerboard of the pixels, as in the
//! RealNVP authors' program:
//!
//! ```text
//! y[o·C + i] = x[4i + (0, 3, 1, 2)[o]]     o = 0…3, i = 0…C − 1, of 4C channels     log|det| = 0
//! ```
//!
//! The pixels (0,0) and (1,1) of each 2×2 block come first, (0,1) and (1,0) last.

use glowflow_kernels::expr::input;
use glowflow_kernels::{Direction, Primitives, Strided};

use super::views::{Dims, read, write};
use super::{BackwardPass, Context, Layer, Prepared, Save, Saved, Shape, Shapes, State, Tensor};

/// Pixels of a 2×2 block in their new order.
const ORDER: [usize; 4] = [0, 3, 1, 2];

/// Reorders 4C channels.
#[derive(Clone, Copy, Debug)]
pub struct Reorder;

/// Views of pixel `o` of the blocks: interleaved, and as block `o` of the channels.
fn views(dims: Dims, o: usize) -> [Strided; 2] {
    let of = 4 * dims.channels;
    let blocks = dims.part(of, o * dims.channels);
    let [image, pixel, _] = blocks.strides;
    [Strided { start: ORDER[o], strides: [image, pixel, 4] }, blocks]
}

/// The channels, reordered or restored.
fn reordered<D: Primitives>(device: &D, like: &Tensor<D>, x: &D::Buffer, back: bool) -> D::Buffer {
    let dims = Dims::of(like.grid, like.channels / 4);
    let mut y = device.scratch(4 * dims.len());
    for o in 0..4 {
        let [interleaved, blocks] = views(dims, o);
        let (from, to) = if back { (blocks, interleaved) } else { (interleaved, blocks) };
        device.map(&input(0), dims.shape(), &[read(x, from)], write(&mut y, to));
    }
    y
}

impl<D: Primitives> Layer<D> for Reorder {
    fn shapes(&self, input: Shape) -> Shapes {
        Shapes::same(input)
    }

    fn prepare(&self, _: &Context<'_, D>, _: Direction) -> Box<dyn Prepared<D>> {
        Box::new(*self)
    }
}

impl<D: Primitives> Prepared<D> for Reorder {
    fn forward(&self, cx: &Context<'_, D>, state: &mut State<D>, _: Save) -> Saved {
        state.x.data = reordered(cx.device, &state.x, &state.x.data, false);
        Saved::NOTHING
    }

    fn inverse(&self, cx: &Context<'_, D>, state: &mut State<D>) {
        state.x.data = reordered(cx.device, &state.x, &state.x.data, true);
    }

    fn backward(&self, pass: &mut BackwardPass<'_, D>, _: Saved) {
        pass.dx = reordered(pass.cx.device, &pass.state.x, &pass.dx, true);
        self.inverse(&pass.cx, &mut pass.state);
    }
}
