//! Matrix products of the second convolution of Glow's coupling networks: 512 × 512 weights, and the pixels
//! of 16 images of 32×32 at each of three levels. An item is a multiplication or an addition.

use divan::Bencher;
use divan::counter::ItemsCount;
use glowflow_kernels::cpu::Buffer;
use glowflow_kernels::{Cpu, Device, Gemm, Matrix, MatrixMut, Primitives, RngStream};

/// Width of the hidden layers.
const HIDDEN: usize = 512;

/// Pixels of the batch: 16×16, 8×8 and 4×4 of each image.
const ROWS: [usize; 3] = [4096, 1024, 256];

fn main() {
    Cpu::<f32>::new().within(divan::main);
}

/// `Y = X·W`, of the forward pass.
#[divan::bench(args = ROWS)]
fn product(bencher: Bencher, rows: usize) {
    run(bencher, [rows, HIDDEN, HIDDEN], [false, false]);
}

/// `dX = dY·Wᵀ`, the input gradient.
#[divan::bench(args = ROWS)]
fn input_gradient(bencher: Bencher, rows: usize) {
    run(bencher, [rows, HIDDEN, HIDDEN], [false, true]);
}

/// `dW = Xᵀ·dY`, the weight gradient.
#[divan::bench(args = ROWS)]
fn weight_gradient(bencher: Bencher, rows: usize) {
    run(bencher, [HIDDEN, HIDDEN, rows], [true, false]);
}

fn run(bencher: Bencher, [m, n, k]: [usize; 3], [a_transposed, b_transposed]: [bool; 2]) {
    let cpu = Cpu::<f32>::new();
    let (a, b) = (normal(&cpu, 0, m * k), normal(&cpu, 1, k * n));
    let mut c = cpu.zeros(m * n);
    let gemm = Gemm { m, n, k, a_transposed, b_transposed, accumulate: false };
    let [a_stride, b_stride] = [if a_transposed { m } else { k }, if b_transposed { k } else { n }];
    bencher.counter(ItemsCount::new(2 * m * n * k)).bench_local(|| {
        cpu.gemm(
            gemm,
            Matrix { buffer: &a, start: 0, stride: a_stride },
            Matrix { buffer: &b, start: 0, stride: b_stride },
            MatrixMut { buffer: &mut c, start: 0, stride: n },
        );
    });
}

/// Standard normal numbers, different ones for each `id`.
fn normal(cpu: &Cpu<f32>, id: u64, len: usize) -> Buffer<f32> {
    let mut numbers = cpu.scratch(len);
    cpu.normal(RngStream { seed: 1, id }, 1, 1.0, &mut numbers);
    numbers
}
