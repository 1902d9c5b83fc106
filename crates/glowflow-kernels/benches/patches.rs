//! Patches of the first convolution of Glow's coupling networks, 3×3, at each of three levels: 16 images of
//! 32×32 have 16×16, 8×8 and 4×4 pixels there, and half of the channels are its input.

use divan::Bencher;
use divan::counter::BytesCount;
use glowflow_kernels::{Cpu, Device, Grid, Primitives, RngStream};

/// Height and width of a kernel.
const KERNEL: usize = 3;

/// Height and width of an image at each level.
const SIDES: [usize; 3] = [16, 8, 4];

fn main() {
    Cpu::<f32>::new().within(divan::main);
}

/// The pixels at a level, and the number of input channels.
fn level(side: usize) -> (Grid, usize) {
    (Grid { batch: 16, height: side, width: side }, 6 * 16 / side)
}

/// Gathers the patches.
#[divan::bench(args = SIDES)]
fn im2col(bencher: Bencher, side: usize) {
    let (cpu, (grid, channels)) = (Cpu::<f32>::new(), level(side));
    let len = grid.rows() * channels;
    let mut x = cpu.scratch(len);
    cpu.normal(RngStream { seed: 1, id: 0 }, grid.batch, 1.0, &mut x);
    let mut columns = cpu.zeros(KERNEL * KERNEL * len);
    bencher
        .counter(BytesCount::of_many::<f32>(KERNEL * KERNEL * len))
        .bench_local(|| cpu.im2col(grid, channels, KERNEL, &x, &mut columns));
}

/// Sums the patches' gradients, the adjoint.
#[divan::bench(args = SIDES)]
fn col2im(bencher: Bencher, side: usize) {
    let (cpu, (grid, channels)) = (Cpu::<f32>::new(), level(side));
    let len = grid.rows() * channels;
    let mut columns = cpu.scratch(KERNEL * KERNEL * len);
    cpu.normal(RngStream { seed: 1, id: 0 }, grid.batch, 1.0, &mut columns);
    let mut x = cpu.zeros(len);
    bencher
        .counter(BytesCount::of_many::<f32>(KERNEL * KERNEL * len))
        .bench_local(|| cpu.col2im(grid, channels, KERNEL, &columns, &mut x, false));
}
