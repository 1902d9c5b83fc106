//! Compares every GPU operation with the CPU's, on the machine's own GPU or on an emulated one.

#[path = "common/again.rs"]
mod again;
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use again::again;
use common::{HIDDEN, Numbers, Parameters, ROWS, gpu};
use glowflow_kernels::Precision;
use glowflow_kernels::cuda::{self, Target};
use glowflow_kernels::ops::{
    ActNorm, ChannelMap, Coupling, CouplingNetwork, FinalPrior, Gaussian, Split, Squeeze, ZeroConv,
};
use glowflow_kernels::{
    AffineScale, CouplingKind, Cpu, Cuda, Device, DeviceError, Direction, Grid, Noise, Primitives, Repeated,
    RngStream, Rule, Segment, Span, Training, Update,
};

/// Batches of images of all shapes: single pixels, no inner pixels, more rows than one block or slab.
const GRIDS: [Grid; 4] = [
    Grid { batch: 1, height: 1, width: 1 },
    Grid { batch: 2, height: 3, width: 5 },
    Grid { batch: 3, height: 1, width: 4 },
    Grid { batch: 5, height: 8, width: 16 },
];

/// Images that are summed in several parts.
const LARGE: Grid = Grid { batch: 2, height: 17, width: 33 };

/// Asserts that every array is within `tolerance`, relative to its own norm.
fn close(have: &[Vec<f32>], want: &[Vec<f32>], tolerance: f64) {
    assert_eq!(have.len(), want.len());
    for (i, (have, want)) in have.iter().zip(want).enumerate() {
        assert_eq!(have.len(), want.len(), "array {i}");
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let wide = |x: &f32| f64::from(*x);
        let difference =
            norm(&mut have.iter().zip(want).map(|(h, w)| if h == w { 0.0 } else { wide(h) - wide(w) }));
        let error = difference / norm(&mut want.iter().map(wide)).max(f64::MIN_POSITIVE);
        assert!(
            error <= tolerance,
            "array {i}: {error:e}, {:?} for {:?}",
            &have[..have.len().min(8)],
            &want[..want.len().min(8)]
        );
    }
}

/// Runs the same work on both devices and compares the results, array by array.
macro_rules! same {
    ($tolerance:expr, |$device:ident| $work:expr) => {
        let Some(gpu) = gpu(Precision::F32) else { return };
        let want: Vec<Vec<f32>> = {
            let $device = &Cpu::<f32>::new();
            $work
        };
        let have: Vec<Vec<f32>> = {
            let $device = &gpu;
            $work
        };
        close(&have, &want, $tolerance);
    };
}

fn download<D: Device<Real = f32>>(device: &D, buffers: &[&D::Buffer]) -> Vec<Vec<f32>> {
    buffers.iter().map(|buffer| device.download(buffer).unwrap()).collect()
}

#[test]
fn pixels_become_the_same_numbers() {
    for (len, bits) in [(1, 8), (7, 5), (4099, 8), (4099, 1)] {
        let pixels: Vec<u8> = (0..len).map(|i| (i * 37 + i / 256) as u8).collect();
        let given: Vec<f32> = (0..len).map(|i| (i % 5) as f32 / 5.0 / 256.0).collect();
        for noise in [
            Noise::Midpoint,
            Noise::Uniform(RngStream { seed: u64::MAX - 3, id: 1 << 40 }, 0),
            Noise::Uniform(RngStream { seed: 2, id: 3 }, (1 << 34) + 5),
            Noise::Given(&given),
        ] {
            same!(0.0, |device| {
                let mut v = device.scratch(len);
                device.dequantize(&pixels, bits, noise, &mut v);
                download(device, &[&v])
            });
        }
    }
}

#[test]
fn numbers_become_the_same_pixels() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let numbers = Numbers::new(3).normal(4099);
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.5, 0.5, 0.49999997, -0.0, 1e30];
    for len in [1, 6, 4099] {
        for bits in [1, 5, 8] {
            // Many numbers are at the edge of a bin, so that the last bit decides.
            let edges = (0..=256).map(|i| i as f32 / 256.0 - 0.5);
            let v: Vec<f32> = odd.into_iter().chain(edges).chain(numbers.clone()).take(len).collect();
            let cpu = Cpu::<f32>::new();
            let want = cpu.quantize(&cpu.upload(&v), bits).unwrap();
            assert_eq!(gpu.quantize(&gpu.upload(&v), bits).unwrap(), want, "{len} numbers, {bits} bits");
            assert!(!want.finite, "the first of them is NaN");
        }
    }
    assert!(gpu.quantize(&gpu.upload(&numbers), 8).unwrap().finite);
    // More than one transfer returns.
    let many: Vec<f32> = numbers.into_iter().cycle().take((4 << 20) + 5).collect();
    let cpu = Cpu::<f32>::new();
    assert!(gpu.quantize(&gpu.upload(&many), 8).unwrap() == cpu.quantize(&cpu.upload(&many), 8).unwrap());
}

#[test]
fn normal_numbers_are_the_same() {
    for (images, length) in [(1, 1), (3, 7), (2, 2048)] {
        same!(1e-6, |device| {
            let mut out = device.scratch(images * length);
            device.normal(RngStream { seed: 5, id: 1 << 50 }, images, 0.7, &mut out);
            download(device, &[&out])
        });
    }
}

#[test]
fn layouts_are_the_same() {
    let grid = Grid { batch: 2, height: 4, width: 6 };
    for channels in [1, 3, 12] {
        let len = grid.rows() * channels;
        let x = Numbers::new(1).normal(len);
        same!(0.0, |device| {
            let x = device.upload(&x);
            let (mut y, mut back) = (device.scratch(len), device.scratch(len));
            device.squeeze(grid, channels, &x, &mut y);
            device.unsqueeze(grid, channels, &y, &mut back);
            let half = len / 2;
            let (mut first, mut last) = (device.scratch(half), device.scratch(half));
            device.split(4 * channels, &y, &mut first, &mut last);
            let mut joined = device.scratch(len);
            device.join(4 * channels, &first, &last, &mut joined);
            download(device, &[&y, &back, &first, &last, &joined])
        });
    }
}

/// A map on `grid`, its backward pass, and its inverse.
fn channel_map(grid: Grid, channels: usize, trained: bool) {
    let mut parameters = Parameters::new(channels as u64);
    let at = parameters.channel_map(channels, trained);
    let mut lcg = Numbers::new(7);
    let (x, dx) = (lcg.normal(grid.rows() * channels), lcg.normal(grid.rows() * channels));
    same!(2e-5, |device| {
        let params = device.upload(&parameters.values);
        let mut gradient = device.zeros(parameters.values.len());
        let (mut x, mut dx) = (device.upload(&x), device.upload(&dx));
        let mut logp = device.upload(&vec![1.5; grid.batch]);
        let map = device.prepare_channel_map(&at, &params, Direction::Forward);
        device.channel_map(&map, grid, &mut x, Some(&mut logp));
        let y = device.download(&x).unwrap();
        let backward = device.prepare_channel_map(&at, &params, Direction::Backward);
        device.channel_map_backward(&backward, &at, &params, grid, &mut x, &mut dx, -0.3, &mut gradient);
        let mut back = device.upload(&y);
        let inverse = device.prepare_channel_map(&at, &params, Direction::Inverse);
        device.channel_map(&inverse, grid, &mut back, None);
        let mut results = download(device, &[&x, &dx, &logp, &back, &gradient]);
        results.push(y);
        results
    });
}

#[test]
fn channel_maps_are_the_same() {
    for grid in GRIDS {
        for channels in [2, 6, 12, 20, 48, 64, 70, 130] {
            for trained in [true, false] {
                channel_map(grid, channels, trained);
            }
        }
    }
    // Enough rows that a block does not handle its slab in one tile.
    channel_map(Grid { batch: 1, height: 103, width: 100 }, 64, true);
}

/// Maps of all sizes, more than one launch computes, are requested before any is used. Some are never used,
/// and the parameters of others change or are dropped in the meantime.
#[test]
fn channel_maps_that_are_made_together_are_the_same() {
    let sizes = [2, 12, 24, 6, 48, 130];
    let grid = GRIDS[1];
    let mut parameters = Parameters::new(5);
    let maps: Vec<_> = (0..48).map(|i| parameters.channel_map(sizes[i % sizes.len()], i % 5 != 0)).collect();
    let conv = parameters.zero_conv(12, 4);
    let directions = [Direction::Forward, Direction::Backward, Direction::Inverse];
    let mut lcg = Numbers::new(9);
    let (x, dx) = (lcg.normal(grid.rows() * 130), lcg.normal(grid.rows() * 130));
    same!(2e-5, |device| {
        let params = device.upload(&parameters.values);
        let others = device.upload(&parameters.values);
        let mut gradient = device.zeros(parameters.values.len());
        let mut logp = device.zeros(grid.batch);
        drop(device.prepare_channel_map(&maps[0], &params, Direction::Backward));
        let mut prepared: Vec<_> = maps
            .iter()
            .enumerate()
            .map(|(i, at)| Some(device.prepare_channel_map(at, &params, directions[i % 3])))
            .collect();
        prepared[4] = None;
        prepared[11] = None;
        drop(params);
        // Reuses freed memory and writes to it before any of the maps is computed.
        let convolution = device.prepare_zero_conv(&conv, &others);
        let params = device.upload(&parameters.values);
        let (mut changing, zeros) =
            (device.upload(&parameters.values), device.zeros(parameters.values.len()));
        let before = device.prepare_channel_map(&maps[1], &changing, Direction::Forward);
        device.copy(&zeros, &mut changing);

        let mut results = vec![];
        for (i, (at, map)) in maps.iter().zip(&prepared).enumerate() {
            let len = grid.rows() * at.channels;
            let (mut x, mut dx) = (device.upload(&x[..len]), device.upload(&dx[..len]));
            let Some(map) = map else { continue };
            if directions[i % 3] == Direction::Backward {
                device.channel_map_backward(map, at, &params, grid, &mut x, &mut dx, -0.3, &mut gradient);
            } else {
                device.channel_map(map, grid, &mut x, Some(&mut logp).filter(|_| i % 3 == 0));
            }
            results.extend(download(device, &[&x, &dx]));
        }
        let mut x = device.upload(&x[..grid.rows() * 12]);
        device.channel_map(&before, grid, &mut x, None);
        results.extend(download(device, &[&x]));
        let mut y = device.scratch(grid.rows() * 4);
        device.zero_conv(&convolution, grid, &x, &mut y);
        results.extend(download(device, &[&logp, &gradient, &y]));
        results
    });
}

/// Runs a network, runs it with saved activations, and differentiates it.
fn network<D: CouplingNetwork<Real = f32>>(
    device: &D,
    grid: Grid,
    inputs: usize,
    hidden: usize,
    outputs: usize,
) -> Vec<Vec<f32>> {
    let mut parameters = Parameters::new(3);
    let at = parameters.network(inputs, hidden, outputs);
    let mut lcg = Numbers::new(11);
    let rows = grid.rows();
    let x = device.upload(&lcg.normal(rows * 2 * inputs));
    let d_o = device.upload(&lcg.normal(rows * outputs));
    let mut dx = device.upload(&lcg.normal(rows * 2 * inputs));
    let params = device.upload(&parameters.values);
    let network = device.prepare_network(&at, &params);
    let (mut o, mut kept) = (device.scratch(rows * outputs), device.scratch(rows * outputs));
    device.network(&network, grid, &x, &mut o);
    let hidden = device.network_saving(&network, grid, &x, &mut kept);
    let mut gradient = device.zeros(parameters.values.len());
    device.network_backward(&at, &params, grid, &x, &hidden, &d_o, &mut dx, &mut gradient);
    assert!(device.download(&o).unwrap() == device.download(&kept).unwrap(), "keeping changes the result");
    let mut results = download(device, &[&o, &dx, &gradient]);
    // Compared parameter by parameter: next to the weight gradients the bias gradients would hardly count.
    let all = results.pop().unwrap();
    let (norm1, norm2, conv3) = (at.actnorm1, at.actnorm2, at.conv3);
    let hidden = [at.conv1, norm1.bias, norm1.logs, at.conv2, norm2.bias, norm2.logs];
    let spans = hidden.into_iter().chain([conv3.weight, conv3.bias, conv3.logs]);
    results.extend(spans.map(|span| all[span.range()].to_vec()));
    results
}

#[test]
fn networks_are_the_same() {
    for grid in GRIDS {
        for (inputs, hidden, outputs) in [(1, 5, 2), (3, 8, 3), (6, 40, 12), (3, 136, 6)] {
            same!(2e-5, |device| network(device, grid, inputs, hidden, outputs));
        }
    }
}

/// Outputs differ by several roundings of 2⁻⁹. Gradients differ by more: about 2⁻⁸ of the hidden units are so
/// close to 0 that rounding decides whether a gradient passes, and wrong decisions add up like noise: √2⁻⁸ =
/// 0.06 for a layer, 0.09 for both.
#[test]
fn networks_in_bf16_are_the_same_to_its_rounding() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    let check = |grid, (inputs, hidden, outputs), tolerance| {
        let want = network(&Cpu::<f32>::new(), grid, inputs, hidden, outputs);
        let have = network(&gpu, grid, inputs, hidden, outputs);
        close(&have[..1], &want[..1], 1e-2);
        close(&have[1..], &want[1..], tolerance);
    };
    for grid in GRIDS {
        check(grid, (1, 5, 2), 6e-2);
        check(grid, (6, 40, 12), 6e-2);
        check(grid, (6, 136, 12), 9e-2);
        check(grid, (2, 400, 4), 9e-2);
    }
    // Four tiles of rows, so that on a GPU with three multiprocessors the kernels for whole networks are
    // used, with one, two and four blocks of columns.
    let grid = Grid { batch: 3, height: 11, width: 13 };
    for sizes in [(6, 136, 12), (12, 72, 4), (2, 264, 24), (24, 40, 12)] {
        check(grid, sizes, 9e-2);
    }
    // Deeper than the kernels for hidden layers support: the first product, the gradient of the second hidden
    // layer, both, all. Longer sums are larger, and so is the effect of their rounding across 0.
    let grid = Grid { batch: 2, height: 8, width: 9 };
    for sizes in [(60, 72, 12), (6, 72, 60), (60, 72, 60), (60, 520, 60)] {
        check(grid, sizes, 0.13);
    }
}

/// As large as in training, with all blocks of the kernels. An emulated GPU would take too long.
#[test]
fn large_networks_in_bf16_are_the_same_to_its_rounding() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    if gpu.name().contains("Emulated") {
        eprintln!("skipped: too large for the emulated GPU");
        return;
    }
    // The last ones end in the middle of a tile of rows; they have one, two and four blocks of columns, one
    // to four tiles of hidden units, inputs one to four tiles deep, and a fused forward pass without a fused
    // backward pass, and the reverse.
    for (batch, height, inputs, hidden, outputs) in [
        (64, 16, 6, 512, 12),
        (67, 16, 6, 512, 12),
        (300, 8, 12, 512, 24),
        (512, 4, 24, 512, 48),
        (101, 13, 6, 512, 6),
        (101, 13, 12, 392, 24),
        (101, 13, 24, 264, 12),
        (101, 13, 3, 136, 24),
        (101, 13, 27, 40, 6),
        (101, 13, 6, 8, 27),
    ] {
        let grid = Grid { batch, height, width: height };
        let want = network(&Cpu::<f32>::new(), grid, inputs, hidden, outputs);
        let have = network(&gpu, grid, inputs, hidden, outputs);
        close(&have[..1], &want[..1], 1e-2);
        close(&have[1..], &want[1..], 9e-2);
        assert!(have == network(&gpu, grid, inputs, hidden, outputs), "two runs differ");
    }
}

#[test]
fn without_kernels_for_hidden_layers_networks_in_bf16_are_still_the_same() {
    again("networks_in_bf16_are_the_same", &[(HIDDEN, "off")]);
}

/// On few multiprocessors few rows are enough work, so whole networks run in one kernel.
#[test]
fn on_a_gpu_with_few_multiprocessors_results_are_still_the_same() {
    const COUNT: &str = "CUDA_EMULATOR_MULTIPROCESSORS";
    again("networks_in_bf16_are_the_same", &[(COUNT, "3")]);
    again("networks_in_bf16_are_the_same", &[(COUNT, "3"), (HIDDEN, "layers")]);
    again("_the_same", &[(COUNT, "1")]);
    again("_the_same", &[(COUNT, "2"), ("CUDA_EMULATOR_LAZY", "1"), (ROWS, "64")]);
    again("_the_same", &[(COUNT, "2"), ("CUDA_EMULATOR_ORDER", "reverse")]);
}

#[test]
fn results_are_the_same_for_any_parts_of_a_batch() {
    again("_the_same", &[(ROWS, "20")]);
}

#[test]
fn results_are_the_same_in_any_order_of_blocks_and_threads() {
    again("_the_same", &[("CUDA_EMULATOR_ORDER", "reverse")]);
}

#[test]
fn if_streams_wait_until_the_last_moment_results_are_the_same() {
    again("_the_same", &[("CUDA_EMULATOR_LAZY", "1")]);
}

#[test]
fn zero_convolutions_are_the_same() {
    for grid in GRIDS {
        for (inputs, outputs) in [(2, 4), (6, 12), (24, 48)] {
            let mut parameters = Parameters::new(4);
            let at = parameters.zero_conv(inputs, outputs);
            let mut lcg = Numbers::new(2);
            let rows = grid.rows();
            let [x, dx, dy] = [inputs, inputs, outputs].map(|channels| lcg.normal(rows * channels));
            same!(2e-5, |device| {
                let params = device.upload(&parameters.values);
                let (x, dy) = (device.upload(&x), device.upload(&dy));
                let (mut y, mut dx) = (device.scratch(rows * outputs), device.upload(&dx));
                let mut gradient = device.zeros(parameters.values.len());
                device.zero_conv(&device.prepare_zero_conv(&at, &params), grid, &x, &mut y);
                device.zero_conv_backward(&at, &params, grid, &x, &dy, &mut dx, &mut gradient);
                download(device, &[&y, &dx, &gradient])
            });
        }
    }
}

#[test]
fn couplings_are_the_same() {
    for grid in GRIDS.into_iter().chain([LARGE]) {
        for kind in [
            CouplingKind::Affine(AffineScale::Sigmoid),
            CouplingKind::Affine(AffineScale::Exp2Tanh),
            CouplingKind::Additive,
        ] {
            for channels in [2, 12] {
                let outputs = kind.network_outputs(channels);
                let mut lcg = Numbers::new(9);
                let rows = grid.rows();
                let [x, dx, o] = [channels, channels, outputs].map(|width| lcg.normal(rows * width));
                same!(1e-5, |device| {
                    let (mut x, mut dx) = (device.upload(&x), device.upload(&dx));
                    let (o, mut d_o) = (device.upload(&o), device.scratch(rows * outputs));
                    let mut logp = device.upload(&vec![-2.0; grid.batch]);
                    device.couple(kind, grid, channels, &o, &mut x, &mut logp);
                    let y = device.download(&x).unwrap();
                    device.couple_backward(kind, channels, &o, &mut x, &mut dx, 0.4, &mut d_o);
                    let mut back = device.upload(&y);
                    device.uncouple(kind, channels, &o, &mut back);
                    let mut results = download(device, &[&x, &dx, &d_o, &logp, &back]);
                    results.push(y);
                    results
                });
            }
        }
    }
}

#[test]
fn priors_are_the_same() {
    for grid in GRIDS.into_iter().chain([LARGE]) {
        for (channels, classes) in [(2, 0), (12, 3), (3, 1000)] {
            let mut parameters = Parameters::new(6);
            let at = parameters.final_prior(channels, classes);
            let mut lcg = Numbers::new(3);
            let rows = grid.rows();
            let z = lcg.normal(rows * channels);
            // The last class first, and some classes twice.
            let label = |b: usize| (classes - 1 - b % 3 * (classes / 3)) as f32;
            let labels: Vec<f32> = (0..if classes > 0 { grid.batch } else { 0 }).map(label).collect();
            same!(1e-5, |device| {
                let params = device.upload(&parameters.values);
                let labels = device.upload(&labels);
                let mut prior = device.scratch(rows * 2 * channels);
                device.final_prior(&device.prepare_final_prior(&at, &params), grid, &labels, &mut prior);
                let mut z = device.upload(&z);
                let mut logp = device.upload(&vec![0.25; grid.batch]);
                device.standardize(grid, channels, &prior, &mut z, &mut logp);
                let eps = device.download(&z).unwrap();
                let (mut dz, mut d_prior) =
                    (device.scratch(rows * channels), device.scratch(rows * 2 * channels));
                device.standardize_backward(channels, &prior, &z, -0.2, &mut dz, &mut d_prior);
                let mut gradient = device.zeros(parameters.values.len());
                device.final_prior_backward(&at, grid, &labels, &d_prior, &mut gradient);
                device.unstandardize(channels, &prior, &mut z);
                let mut results = download(device, &[&prior, &z, &logp, &dz, &d_prior, &gradient]);
                results.push(eps);
                results
            });
        }
    }
}

#[test]
fn initialisation_is_the_same() {
    let grid = Grid { batch: 3, height: 4, width: 6 };
    let mut parameters = Parameters::new(8);
    let (norm, network) = (parameters.actnorm(10), parameters.network(5, 12, 10));
    let x = Numbers::new(4).normal(grid.rows() * 10);
    same!(2e-5, |device| {
        let mut params = device.upload(&parameters.values);
        let x = device.upload(&x);
        device.initialize_actnorm(&norm, &x, &mut params);
        device.initialize_network(&network, grid, &x, &mut params);
        download(device, &[&params])
    });
}

/// Steps in which the second parameter leaves the range of `f32`, while others stay inside.
fn overflowing_update<D: Primitives<Real = f32>>(
    device: &D,
    update: &Update,
    gradient: &[f32],
) -> (bool, bool, Vec<Vec<f32>>) {
    let mut state = [1.0, 2.0, 3.0, 4.0].map(|value| device.upload(&[value; 6]));
    let [weights, first, second, ema] = &mut state;
    let mut gradient = device.upload(gradient);
    let training = Training { weights, gradient: &mut gradient, first, second, ema };
    let report = device.update(update, &[], training).unwrap();
    assert_eq!(device.download(&gradient).unwrap(), [0.0; 6]);
    (report.applied, report.all_finite, download(device, &state.each_ref()))
}

/// Neither rates nor gradients beyond `f32` make a number infinite, and the report mentions them.
#[test]
fn updates_that_overflow_are_reported_and_write_no_infinity() {
    let calm = Update {
        rule: Rule::Adam,
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        epsilon: 1e-8,
        count: 1,
        clip: None,
        ema_decay: 0.5,
    };
    let one_large = [0.5, 1e20, 0.5, 0.5, 0.5, 0.5];
    let cases = [
        // Adam squares gradients, so it skips that step as a whole. Adamax does not.
        (calm, one_large, (false, true)),
        (Update { rule: Rule::Adamax, ..calm }, one_large, (true, true)),
        // Clipped, it is in range.
        (Update { clip: Some(1.0), ..calm }, one_large, (true, true)),
        (Update { learning_rate: 1e39, ..calm }, [0.5; 6], (true, false)),
        (Update { learning_rate: 3e38, rule: Rule::Adamax, ..calm }, [0.5; 6], (true, false)),
    ];
    let gpu = gpu(Precision::F32);
    for (update, gradient, report) in cases {
        let (applied, all_finite, state) = overflowing_update(&Cpu::<f32>::new(), &update, &gradient);
        assert_eq!((applied, all_finite), report, "{update:?}");
        assert!(state.iter().flatten().all(|x| x.is_finite()), "{update:?}: {state:?}");
        if !applied || !all_finite {
            assert_eq!(state, [1.0, 2.0, 3.0, 4.0].map(|value| vec![value; 6]));
        }
        if let Some(gpu) = &gpu {
            let (applied, all_finite, state) = overflowing_update(gpu, &update, &gradient);
            assert_eq!((applied, all_finite), report, "{update:?} on the GPU");
            assert!(state.iter().flatten().all(|x| x.is_finite()), "{update:?} on the GPU: {state:?}");
        }
    }
}

/// Three optimiser steps; the middle one has a non-finite value.
fn updates<D: Primitives<Real = f32>>(
    device: &D,
    rule: Rule,
    clip: Option<f64>,
    len: usize,
    logp: &[f32],
) -> Vec<Vec<f32>> {
    let mut lcg = Numbers::new(12);
    let [mut weights, mut ema] = [(); 2].map(|()| device.upload(&lcg.normal(len)));
    let [mut first, mut second] = [(); 2].map(|()| device.zeros(len));
    let mut reports = vec![];
    for count in 1..=3 {
        let mut gradient = device.upload(&lcg.normal(len));
        let fine = device.upload(&[-3.0, 2.0]);
        let logp = device.upload(if count == 2 { logp } else { &[1.0] });
        let update = Update {
            rule,
            learning_rate: 0.01,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            count,
            clip,
            ema_decay: 0.9,
        };
        let training = Training {
            weights: &mut weights,
            gradient: &mut gradient,
            first: &mut first,
            second: &mut second,
            ema: &mut ema,
        };
        let report = device.update(&update, &[&fine, &logp], training).unwrap();
        reports.extend([report.gradient_norm as f32, f32::from(u8::from(report.applied))]);
        reports.extend(device.download(&gradient).unwrap());
    }
    let mut results = download(device, &[&weights, &first, &second, &ema]);
    results.push(reports);
    results
}

#[test]
fn updates_are_the_same() {
    for rule in [Rule::Adam, Rule::Adamax] {
        for (clip, len) in [(None, 5), (Some(0.5), 4001)] {
            for logp in [[1.0, 2.0], [f32::NAN, 1.0], [0.0, f32::INFINITY]] {
                same!(1e-5, |device| updates(device, rule, clip, len, &logp));
            }
        }
    }
}

/// Segments of every alignment, each with its own decay, and gaps between them.
#[test]
fn updates_of_segments_are_the_same() {
    let segment = |start, len, decay| Segment { span: Span { start, len }, decay };
    let segments = [segment(0, 3, 0.0), segment(3, 9, 2.0), segment(16, 5, 0.5), segment(24, 4000, 10.0)];
    for rule in [Rule::Adam, Rule::Adamax] {
        same!(1e-5, |device| {
            let mut lcg = Numbers::new(13);
            let len = 4040;
            let mut state =
                [(); 5].map(|()| device.upload(&lcg.normal(len).iter().map(|x| x.abs()).collect::<Vec<_>>()));
            let [weights, gradient, first, second, ema] = &mut state;
            let update = Update {
                rule,
                learning_rate: 0.01,
                beta1: 0.9,
                beta2: 0.99,
                epsilon: 1e-8,
                count: 2,
                clip: Some(1.0),
                ema_decay: 0.9,
            };
            let training = Training { weights, gradient, first, second, ema };
            let report = device.update_segments(&update, &[], training, &segments).unwrap();
            assert!(report.applied && report.all_finite);
            let mut results = download(device, &state.each_ref());
            results.push(vec![report.gradient_norm as f32]);
            results
        });
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let [mut weights, mut first, mut second, mut ema] = [(); 4].map(|()| gpu.upload(&[1.0; 6]));
    let mut gradient = gpu.upload(&[0.0, 1.0, f32::NAN, 0.0, 0.0, 0.0]);
    let update = Update {
        rule: Rule::Adamax,
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        epsilon: 1e-8,
        count: 1,
        clip: None,
        ema_decay: 0.5,
    };
    let training = Training {
        weights: &mut weights,
        gradient: &mut gradient,
        first: &mut first,
        second: &mut second,
        ema: &mut ema,
    };
    let report = gpu.update(&update, &[], training).unwrap();
    assert!(!report.applied && report.gradient_norm.is_nan(), "{report:?}");
    for buffer in [&weights, &first, &second, &ema] {
        assert_eq!(gpu.download(buffer).unwrap(), [1.0; 6]);
    }
    assert_eq!(gpu.download(&gradient).unwrap(), [0.0; 6]);
}

#[test]
fn captured_work_is_done_again_on_what_buffers_hold_then() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    let grid = Grid { batch: 2, height: 4, width: 4 };
    let (mut parameters, mut lcg) = (Parameters::new(1), Numbers::new(5));
    let at = parameters.network(3, 8, 6);
    let params = gpu.upload(&parameters.values);
    let work = |device: &Cuda, x: &_| {
        let mut o = device.scratch(grid.rows() * 6);
        device.network(&device.prepare_network(&at, &params), grid, x, &mut o);
        o
    };
    let mut repeated = Repeated::new();
    let mut x = gpu.scratch(grid.rows() * 6);
    for _ in 0..4 {
        let fresh = gpu.upload(&lcg.normal(grid.rows() * 6));
        gpu.copy(&fresh, &mut x);
        let have = repeated.run(&gpu, |device| work(device, &x));
        // Interleaved work must not disturb the capture, nor the reverse.
        let want = work(&gpu, &fresh);
        assert_eq!(gpu.download(have).unwrap(), gpu.download(&want).unwrap());
    }
}

/// Kernels never access memory outside a buffer, for any arguments.
#[test]
fn buffers_that_are_too_short_are_refused() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let mut parameters = Parameters::new(1);
    let (map, network) = (parameters.channel_map(4, true), parameters.network(2, 8, 4));
    let params = gpu.upload(&parameters.values);
    let grid = Grid { batch: 2, height: 2, width: 2 };
    let (whole, short) = (gpu.zeros(grid.rows() * 4), gpu.zeros(grid.rows() * 4 - 1));
    let mut few = gpu.zeros(1);
    let refused = |what: &str, work: &mut dyn FnMut()| {
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err(), "{what}");
    };
    refused("squeeze", &mut || gpu.squeeze(grid, 4, &whole, &mut few));
    refused("split", &mut || gpu.split(4, &whole, &mut gpu.zeros(1), &mut gpu.zeros(16)));
    refused("odd", &mut || {
        let odd = Grid { batch: 1, height: 3, width: 3 };
        gpu.squeeze(odd, 1, &gpu.zeros(9), &mut gpu.zeros(9));
    });
    refused("halves", &mut || gpu.split(4, &short, &mut gpu.zeros(16), &mut gpu.zeros(16)));
    refused("logp", &mut || {
        let made = gpu.prepare_channel_map(&map, &params, Direction::Forward);
        gpu.channel_map(&made, grid, &mut gpu.zeros(grid.rows() * 4), Some(&mut gpu.zeros(1)));
    });
    refused("parameters", &mut || _ = gpu.prepare_network(&network, &whole));
    refused("output", &mut || {
        gpu.network(&gpu.prepare_network(&network, &params), grid, &whole, &mut gpu.zeros(1))
    });
    refused("input", &mut || {
        gpu.network(&gpu.prepare_network(&network, &params), grid, &short, &mut gpu.zeros(32))
    });
    refused("noise", &mut || gpu.dequantize(&[1; 8], 8, Noise::Given(&[0.0; 4]), &mut gpu.zeros(8)));
}

/// Kernels count in 32 bits; larger sizes are an error, not an access to other memory.
#[test]
fn images_that_are_too_large_are_refused() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    let mut parameters = Parameters::new(1);
    let at = parameters.network(1, 512, 2);
    let params = gpu.upload(&parameters.values);
    let grid = Grid { batch: 1, height: 2048, width: 2049 };
    let (x, mut o) = (gpu.zeros(2 * grid.rows()), gpu.zeros(2 * grid.rows()));
    gpu.network(&gpu.prepare_network(&at, &params), grid, &x, &mut o);
    let words = gpu.download(&o).unwrap_err().to_string();
    assert!(words.contains("4196352 pixels with 512 numbers"), "{words}");
}

/// A capture would read host memory again on every replay.
#[test]
fn what_is_uploaded_is_not_captured() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    let values = vec![1.0; 8];
    assert!(gpu.capture(|device| device.upload(&values)).is_none());
    assert!(gpu.download(&gpu.upload(&values)).unwrap() == values, "the device does not go on");
}

/// A capture has branches. One of them must not overwrite data that another one still reads.
#[test]
fn captured_gradients_are_the_same() {
    let grid = Grid { batch: 24, height: 8, width: 8 };
    let (inputs, hidden, outputs) = (3, 40, 6);
    let mut parameters = Parameters::new(2);
    let networks: Vec<_> = (0..4).map(|_| parameters.network(inputs, hidden, outputs)).collect();
    let map_at = parameters.channel_map(2 * inputs, true);
    let rows = grid.rows();
    let x = Numbers::new(8).normal(rows * 2 * inputs);
    for precision in [Precision::F32, Precision::Bf16] {
        let Some(gpu) = gpu(precision) else { return };
        let (params, x) = (gpu.upload(&parameters.values), gpu.upload(&x));
        let work = |device: &Cuda| {
            let mut gradient = device.zeros(parameters.values.len());
            let mut dx = device.copied(&x, rows * 2 * inputs);
            let mut y = device.copied(&x, rows * 2 * inputs);
            let run = |at| {
                let mut o = device.scratch(rows * outputs);
                (device.network_saving(&device.prepare_network(at, &params), grid, &x, &mut o), o)
            };
            let kept: Vec<_> = networks.iter().map(run).collect();
            for (at, (hidden_layers, o)) in networks.iter().zip(kept).rev() {
                device.network_backward(at, &params, grid, &x, &hidden_layers, &o, &mut dx, &mut gradient);
                drop((hidden_layers, o));
                let map = device.prepare_channel_map(&map_at, &params, Direction::Backward);
                let dx = &mut dx;
                device.channel_map_backward(&map, &map_at, &params, grid, &mut y, dx, 0.1, &mut gradient);
                drop(map);
                // Memory of the same sizes, freed just before.
                for size in [rows * hidden, rows * hidden / 2, rows * outputs, 9 * rows * outputs, 60, 42] {
                    drop((device.zeros(size), device.zeros(size)));
                }
            }
            (gradient, dx)
        };
        let want = download_pair(&gpu, &work(&gpu));
        let (result, captured) = gpu.capture(work).expect("nothing was captured");
        for _ in 0..3 {
            gpu.replay(&captured);
            assert!(download_pair(&gpu, &result) == want, "{precision:?}");
        }
    }
}

fn download_pair(gpu: &Cuda, (a, b): &(cuda::Buffer, cuda::Buffer)) -> [Vec<f32>; 2] {
    [a, b].map(|buffer| gpu.download(buffer).unwrap())
}

/// So little memory that side work is waited for at once (`KEPT_PART`).
#[test]
fn with_little_memory_captured_gradients_are_still_the_same() {
    again("captured_gradients_are_the_same", &[("CUDA_EMULATOR_MEMORY", "176160768")]);
}

#[test]
fn an_image_does_not_depend_on_its_batch_but_for_rounding_and_bits_repeat() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    let grid = Grid { batch: 3, height: 4, width: 4 };
    let first = network(&gpu, grid, 3, 8, 6);
    assert!(first == network(&gpu, grid, 3, 8, 6), "two runs differ");
    // On a GPU, products of other shapes may use other algorithms, which round differently.
    let alone = network(&gpu, Grid { batch: 1, ..grid }, 3, 8, 6);
    close(&[first[0][..alone[0].len()].to_vec()], &[alone[0].clone()], 1e-2);
}

#[test]
fn high_gpu_numbers_are_unavailable() {
    if gpu(Precision::F32).is_none() {
        return;
    }
    let error = Cuda::new(99, Precision::F32).err().unwrap();
    assert!(matches!(&error, DeviceError::Absent { .. }), "{error:?}");
    let words = error.to_string();
    assert!(words.contains("cuda:99") && words.contains("cuda:0"), "{words}");
}

/// Memory that suffices for the work but not for a capture in addition: the work runs without a capture,
/// and no memory of a partial capture is reused.
#[test]
fn without_the_memory_for_a_capture_work_is_done_all_the_same() {
    let Some(folder) = cuda_emulator::libraries() else { return };
    // With a capture, seven buffers of the work's size are needed, without it six.
    const MEGABYTES: usize = 40;
    if std::env::var_os("CUDA_EMULATOR_MEMORY").is_none() {
        let bytes = (MEGABYTES << 20).to_string();
        return again("without_the_memory_for_a_capture", &[("CUDA_EMULATOR_MEMORY", &bytes)]);
    }
    for megabytes in [1, 3, 5, 6] {
        let gpu = Cuda::with_libraries(0, Precision::F32, std::slice::from_ref(&folder)).unwrap();
        let len = (megabytes << 20) / 4;
        let inputs: Vec<_> = (0..4).map(|run| gpu.upload(&vec![run as f32; len])).collect();
        let mut x = gpu.zeros(len);
        let work = |device: &Cuda, x: &cuda::Buffer| {
            let mut copy = device.scratch(len);
            device.copy(x, &mut copy);
            copy
        };
        let kept = work(&gpu, &x);
        let captured = gpu.capture(|device| work(device, &x)).is_some();
        assert_eq!(captured, 7 * megabytes <= MEGABYTES, "{megabytes} MiB");
        drop(kept);
        let mut repeated = Repeated::new();
        for (run, input) in inputs.iter().enumerate() {
            gpu.copy(input, &mut x);
            let copy = repeated.run(&gpu, |device| work(device, &x));
            let numbers = gpu.download(copy).unwrap();
            assert!(numbers.iter().all(|&number| number == run as f32), "{megabytes} MiB, run {run}");
        }
    }
}

/// A failed GPU reports the failure, and keeps reporting it.
#[test]
fn failures_are_reported_when_results_are_requested() {
    let Some(folder) = cuda_emulator::libraries() else { return };
    if std::env::var_os("CUDA_EMULATOR_MEMORY").is_none() {
        return again("failures_are_reported", &[("CUDA_EMULATOR_MEMORY", "100000000")]);
    }
    let Ok(gpu) = Cuda::with_libraries(0, Precision::F32, &[folder]) else { return };
    let small = gpu.upload(&[1.0, 2.0]);
    assert_eq!(gpu.download(&small).unwrap(), [1.0, 2.0]);
    let mut large = gpu.scratch(100 << 20);
    gpu.normal(RngStream { seed: 0, id: 0 }, 1, 1.0, &mut large);
    for _ in 0..2 {
        let error = gpu.download(&small).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfMemory { requested: 419_430_400, .. }), "{error:?}");
        let words = error.to_string();
        assert!(words.contains("400 MiB more"), "{words}");
    }
}

/// Every kernel compiles for every GPU since Turing that the compiler supports; requires NVIDIA's compiler,
/// but no GPU.
#[test]
fn kernels_compile_for_all_gpus() {
    let folders: Vec<_> =
        std::env::var_os("GLOWFLOW_TEST_NVRTC").iter().flat_map(std::env::split_paths).collect();
    if folders.is_empty() {
        println!("skipped: GLOWFLOW_TEST_NVRTC does not name the folder of libnvrtc.so");
        return;
    }
    // In a separate process, because the others use the emulator's compiler.
    if std::env::var_os("ALONE").is_none() {
        return again("kernels_compile_for_all_gpus", &[("ALONE", "1")]);
    }
    let (known, version) = Cuda::known(&folders).unwrap();
    assert!(known.contains(&90), "{known:?}");
    for capability in [75, 80, 86, 89, 90, 100, 120].into_iter().filter(|it| known.contains(it)) {
        let code = Cuda::compile(Target::Machine(capability), &folders)
            .unwrap_or_else(|e| panic!("{capability}: {e}"));
        assert!(code.starts_with(b"\x7fELF"), "{capability}: no machine code");
        let has = |name: &[u8]| code.windows(name.len()).any(|window| window == name);
        assert!(has(b"unfold_network"), "{capability}: no kernels");
        let hopper = capability == 90;
        assert_eq!(has(b"hidden_backward"), hopper, "{capability}: kernels of the Hopper generation");
        assert_eq!(
            has(b"fused_back_2"),
            hopper && version.0 >= 13,
            "{capability}: kernels for whole networks"
        );
    }
    let code = Cuda::compile(Target::Portable(90), &folders).unwrap();
    assert!(String::from_utf8_lossy(&code).contains(".entry update"), "no portable code");
}

#[test]
fn targets_are_chosen_by_the_compilers_support() {
    let known = [75, 80, 90, 100];
    assert_eq!(Target::choose(90, &known), Some(Target::Machine(90)));
    assert_eq!(Target::choose(89, &known), Some(Target::Portable(80)));
    assert_eq!(Target::choose(130, &known), Some(Target::Portable(100)));
    assert_eq!(Target::choose(61, &known), None);
}
