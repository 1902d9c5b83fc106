//! Mixture couplings: their inverse, bounds and gradients, and non-finite numbers.

use glowflow_kernels::ops::Mixture;
use glowflow_kernels::{Cpu, Device, Grid, MixtureShape, NetworkOutputs, RngStream, cpu};

const COMPONENTS: usize = 4;

/// Normal numbers.
fn normal(seed: u64, len: usize, deviation: f64) -> Vec<f64> {
    let stream = RngStream { seed, id: 0 };
    (0..len as u64).map(|i| deviation * stream.normal(i)[0]).collect()
}

/// A coupling with its parameters and its input.
#[derive(Clone)]
struct Case {
    shape: MixtureShape,
    o: Vec<f64>,
    head: Vec<f64>,
    x: Vec<f64>,
}

impl Case {
    fn new(grid: Grid, channels: usize, components: usize, seed: u64) -> Self {
        let shape = MixtureShape { grid, channels, components };
        let (rows, of_head) = (grid.rows(), MixtureShape::head_outputs(channels, components));
        Self {
            shape,
            o: normal(seed, rows * channels, 0.7),
            head: normal(seed + 1, rows * of_head, 1.5),
            x: normal(seed + 2, rows * channels, 2.0),
        }
    }

    fn outputs<T: cpu::Scalar>(&self, device: &Cpu<T>) -> NetworkOutputs<cpu::Buffer<T>> {
        NetworkOutputs { o: upload(device, &self.o), head: Some(upload(device, &self.head)) }
    }

    /// y and log-likelihoods.
    fn forward<T: cpu::Scalar>(&self, device: &Cpu<T>) -> (cpu::Buffer<T>, cpu::Buffer<T>) {
        let (mut x, mut logp) = (upload(device, &self.x), device.zeros(self.shape.grid.batch));
        device.mix(self.shape, &self.outputs(device), &mut x, &mut logp);
        (x, logp)
    }

    /// Returns whether an element of `x` is transformed.
    fn changes(&self, place: usize) -> bool {
        place % self.shape.channels >= self.shape.channels / 2
    }
}

fn upload<T: cpu::Scalar>(device: &Cpu<T>, numbers: &[f64]) -> cpu::Buffer<T> {
    device.upload(&numbers.iter().map(|&x| T::of(x)).collect::<Vec<_>>())
}

/// A million sets of parameters.
#[test]
fn the_inverse_is_accurate_in_single_precision() {
    let device = Cpu::<f32>::new();
    let case = Case::new(Grid { batch: 10, height: 100, width: 100 }, 20, COMPONENTS, 1);
    let (mut y, _) = case.forward(&device);
    device.unmix(case.shape, &case.outputs(&device), &mut y);
    let mut errors: Vec<f64> = (0..y.len())
        .filter(|&i| case.changes(i))
        .map(|i| (f64::from(y[i]) - f64::from(case.x[i] as f32)).abs())
        .collect();
    assert_eq!(errors.len(), 1_000_000);
    errors.sort_by(f64::total_cmp);
    let (most, typical, rare) = (errors[999_999], errors[500_000], errors[999_000]);
    eprintln!("errors: median {typical:.2e}, 99.9 % {rare:.2e}, largest {most:.2e}");
    assert!(most <= 2e-5 && rare <= 5e-6, "99.9 % {rare:e}, largest {most:e}");
}

/// Includes points so far from all components that sums underflow.
#[test]
fn outputs_increase_and_the_log_determinant_is_their_slope() {
    let device = Cpu::<f64>::new();
    for (seed, spacing) in [(1, 1e-3), (2, 0.05), (3, 4.0)] {
        // One set of parameters, with a different x for each pixel.
        let pixels = 2000;
        let one = Case::new(Grid { batch: 1, height: 1, width: 1 }, 2, COMPONENTS, seed);
        let mut case = one.clone();
        case.shape.grid = Grid { batch: pixels, height: 1, width: 1 };
        (case.o, case.head) = (one.o.repeat(pixels), one.head.repeat(pixels));
        case.x = (0..pixels).flat_map(|i| [0.0, spacing * (i as f64 - 1000.0)]).collect();
        let (y, logp) = case.forward(&device);
        let a = 2.0 * (one.o[1] / 2.0).tanh();
        for i in 1..pixels {
            let slope = (y[2 * i + 1] - y[2 * i - 1]) / spacing;
            assert!(slope > 0.0, "seed {seed}, step {i}: {slope}");
            let bounds = 0.0999 * a.exp()..(0.9 * 2.5_f64.exp() + 0.101) * a.exp();
            assert!(bounds.contains(&slope), "seed {seed}, step {i}: {slope} is not in {bounds:?}");
            if spacing < 0.01 {
                let middle = 0.5 * (logp[i] + logp[i - 1]);
                assert!((slope.ln() - middle).abs() < 1e-4, "seed {seed}: {} for {middle}", slope.ln());
            }
        }
    }
}

#[test]
fn a_single_component_is_affine() {
    let device = Cpu::<f32>::new();
    let case = Case::new(Grid { batch: 2, height: 4, width: 4 }, 6, 1, 5);
    let (y, _) = case.forward(&device);
    for row in 0..case.shape.grid.rows() {
        for c in 0..3 {
            let (b, s) = (case.o[6 * row + c], case.o[6 * row + 3 + c]);
            let (mu, w) = (case.head[9 * row + 3 + c], case.head[9 * row + 6 + c]);
            let (x, zeta) = (case.x[6 * row + 3 + c], 2.5 * (w / 2.5).tanh());
            let t = 0.9 * (x - mu) * (-zeta).exp() + 0.1 * x;
            let want = t * (2.0 * (s / 2.0).tanh()).exp() + b;
            let have = f64::from(y[6 * row + 3 + c]);
            assert!((have - want).abs() <= 1e-6 * (1.0 + want.abs()) * 4.0, "{have} for {want}");
        }
    }
}

/// The loss whose gradients are computed, and its derivative with respect to a log-likelihood.
const DLOGP: f64 = -0.7;

#[test]
fn gradients_are_derivatives() {
    let device = Cpu::<f64>::new();
    for components in [1, 2, COMPONENTS] {
        let case = Case::new(Grid { batch: 2, height: 1, width: 2 }, 4, components, 8);
        let r = normal(11, case.x.len(), 1.0);
        let loss = |case: &Case| -> f64 {
            let (y, logp) = case.forward(&device);
            y.iter().zip(&r).map(|(y, r)| y * r).sum::<f64>() + DLOGP * logp.iter().sum::<f64>()
        };
        let outputs = case.outputs(&device);
        let (mut x, _) = case.forward(&device);
        let mut dx = upload(&device, &r);
        let mut d_outputs = case.outputs(&device);
        device.mix_backward(case.shape, &outputs, &mut x, &mut dx, DLOGP, &mut d_outputs);
        let d_head = d_outputs.head.unwrap();
        type Part = fn(&mut Case) -> &mut Vec<f64>;
        let parts: [(&str, &[f64], Part); 3] = [
            ("x", &dx, |case| &mut case.x),
            ("o", &d_outputs.o, |case| &mut case.o),
            ("head", &d_head, |case| &mut case.head),
        ];
        for (name, have, part) in parts {
            let by = |i: usize| {
                let shifted = |by: f64| {
                    let mut case = case.clone();
                    part(&mut case)[i] += by;
                    loss(&case)
                };
                (shifted(1e-5) - shifted(-1e-5)) / 2e-5
            };
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let want: Vec<f64> = (0..have.len()).map(by).collect();
            let difference = norm(&mut have.iter().zip(&want).map(|(have, want)| have - want));
            let error = difference / norm(&mut want.iter().copied());
            assert!(error < 1e-7, "{name}, {components} components: {error:e}");
        }
        let error = x.iter().zip(&case.x).map(|(x, want)| (x - want).abs()).fold(0.0, f64::max);
        assert!(error < 1e-12, "the input is not rebuilt: {error:e}");
    }
}

#[test]
fn a_number_does_not_depend_on_its_neighbours() {
    let device = Cpu::<f32>::new();
    let case = Case::new(Grid { batch: 40, height: 1, width: 1 }, 6, COMPONENTS, 3);
    let (mut all, _) = case.forward(&device);
    let y = all.to_vec();
    device.unmix(case.shape, &case.outputs(&device), &mut all);
    let of_head = case.head.len() / 40;
    for image in 0..40 {
        let part = |of: &[f64], len: usize| of[image * len..(image + 1) * len].to_vec();
        let alone = Case {
            shape: MixtureShape { grid: Grid { batch: 1, height: 1, width: 1 }, ..case.shape },
            o: part(&case.o, 6),
            head: part(&case.head, of_head),
            x: part(&case.x, 6),
        };
        let (mut x, _) = alone.forward(&device);
        assert_eq!(x[..], y[6 * image..6 * (image + 1)]);
        device.unmix(alone.shape, &alone.outputs(&device), &mut x);
        assert_eq!(x[..], all[6 * image..6 * (image + 1)]);
    }
}

/// Infinite numbers, NaN and large ones do not prevent the inverse from terminating, and large finite ones
/// are recovered.
#[test]
fn extreme_numbers_come_to_an_end() {
    let device = Cpu::<f32>::new();
    let grid = Grid { batch: 1, height: 4, width: 4 };
    let extremes = [1e30, -1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 0.0, 300.0, -5e4];
    for value in extremes {
        for place in 0..3 {
            let mut case = Case::new(grid, 4, COMPONENTS, 13);
            match place {
                0 => case.x.fill(value),
                1 => case.o.fill(value),
                _ => case.head.iter_mut().step_by(3).for_each(|x| *x = value),
            }
            let (mut y, logp) = case.forward(&device);
            let outputs = case.outputs(&device);
            let mut inverted = upload(&device, &vec![0.0; y.len()]);
            inverted.copy_from_slice(&y);
            device.unmix(case.shape, &outputs, &mut inverted);
            if place == 0 && value.abs() < 1e10 {
                assert!(logp[0].is_finite(), "{value}");
                for (i, x) in inverted.iter().enumerate().filter(|&(i, _)| case.changes(i)) {
                    let error = (f64::from(*x) - value).abs();
                    assert!(error <= 1e-4 * (1.0 + value.abs()), "number {i}: {x} for {value}");
                }
            }
            let mut dx = upload(&device, &case.x);
            let mut d_outputs = case.outputs(&device);
            device.mix_backward(case.shape, &outputs, &mut y, &mut dx, DLOGP, &mut d_outputs);
            if place == 0 && value.abs() < 1e10 {
                assert!(d_outputs.head.unwrap().iter().all(|x| x.is_finite()), "{value}");
            }
        }
    }
}
