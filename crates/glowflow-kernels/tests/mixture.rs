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

    /// Gradients of x, o and the head, given that of y.
    fn backward<T: cpu::Scalar>(&self, device: &Cpu<T>, dy: &[f64]) -> [cpu::Buffer<T>; 3] {
        let (mut y, _) = self.forward(device);
        let (mut dx, mut d_outputs) = (upload(device, dy), self.outputs(device));
        device.mix_backward(self.shape, &self.outputs(device), &mut y, &mut dx, DLOGP, &mut d_outputs);
        [dx, d_outputs.o, d_outputs.head.unwrap()]
    }

    /// Shift, logarithm of the scale, and log π, μ and ζ of each component for a transformed element of `x`.
    fn parameters(&self, place: usize) -> (f64, f64, Vec<[f64; 3]>) {
        let MixtureShape { channels, components, .. } = self.shape;
        let (row, half) = (place / channels, channels / 2);
        let c = place % channels - half;
        let of_head = MixtureShape::head_outputs(channels, components);
        let head = |which: usize, m: usize| self.head[row * of_head + (which * components + m) * half + c];
        let sum: f64 = (0..components).map(|m| head(0, m).exp()).sum();
        let component = |m: usize| {
            let offset = 1.5 * (2.0 * m as f64 + 1.0 - components as f64) / (components as f64 - 1.0);
            [head(0, m) - sum.ln(), head(1, m) + offset, 2.5 * (head(2, m) / 2.5).tanh()]
        };
        let (b, s) = (self.o[row * channels + c], self.o[row * channels + half + c]);
        (b, 2.0 * (s / 2.0).tanh(), (0..components).map(component).collect())
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

/// Logarithm of a sum of exponentials.
fn log_sum_exp(terms: &[f64]) -> f64 {
    let most = terms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    most + terms.iter().map(|term| (term - most).exp()).sum::<f64>().ln()
}

/// Far from all components, where F or G underflows, one of their logarithms is 0 and the other the logarithm of a sum of
/// exponentials.
#[test]
fn tails_are_those_of_logistic_distributions() {
    for distance in [400.0, 3000.0] {
        for sign in [-1.0, 1.0] {
            let mut case = Case::new(Grid { batch: 60, height: 1, width: 1 }, 2, COMPONENTS, 17);
            case.x.iter_mut().for_each(|x| *x = sign * (distance + *x));
            let mut want = (vec![], vec![]);
            for place in (0..case.x.len()).filter(|&place| case.changes(place)) {
                let (b, a, components) = case.parameters(place);
                let terms: Vec<f64> = components
                    .iter()
                    .map(|[log_pi, mu, zeta]| log_pi - sign * (case.x[place] - mu) * (-zeta).exp())
                    .collect();
                let tail = log_sum_exp(&terms);
                let slope: f64 =
                    terms.iter().zip(&components).map(|(t, [.., zeta])| (t - tail - zeta).exp()).sum();
                want.0.push((-sign * 0.9 * tail + 0.1 * case.x[place]) * a.exp() + b);
                want.1.push((0.9 * slope + 0.1).ln() + a);
            }
            let check = |what: &str, have: Vec<f64>, want: &[f64], tolerance: f64| {
                assert_eq!(have.len(), want.len());
                for (have, want) in have.iter().zip(want) {
                    assert!(
                        (have - want).abs() <= tolerance * (1.0 + want.abs()),
                        "{what}: {have} for {want}"
                    );
                }
            };
            let y = |all: &[f64]| all.iter().copied().skip(1).step_by(2).collect::<Vec<_>>();
            let (have, logp) = case.forward(&Cpu::<f64>::new());
            check("y", y(&have), &want.0, 1e-9);
            check("log-determinant", logp.to_vec(), &want.1, 1e-9);
            let wide = |all: &[f32]| all.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            let (have, logp) = case.forward(&Cpu::<f32>::new());
            check("y in f32", y(&wide(&have)), &want.0, 1e-5);
            check("log-determinant in f32", wide(&logp), &want.1, 1e-3);

            let dy = normal(23, case.x.len(), 1.0);
            let double = case.backward(&Cpu::<f64>::new(), &dy);
            let single = case.backward(&Cpu::<f32>::new(), &dy);
            for ((name, want), have) in ["dx", "d_o", "d_head"].iter().zip(double).zip(single) {
                let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                let error = norm(&mut have.iter().zip(want.iter()).map(|(a, b)| f64::from(*a) - b));
                let size = norm(&mut want.iter().copied());
                assert!(error <= 1e-4 * size, "{name} at {}: {error:e} of {size:e}", sign * distance);
            }
        }
    }
}

/// The bracket of the inverse: at the least and the greatest root of the components, the mixture is below and above.
#[test]
fn the_roots_of_the_components_enclose_that_of_the_mixture() {
    let device = Cpu::<f64>::new();
    for (seed, spread) in [(31, 1.0), (32, 30.0)] {
        let mut case = Case::new(Grid { batch: 3000, height: 1, width: 1 }, 4, COMPONENTS, seed);
        case.head.iter_mut().chain(&mut case.x).for_each(|x| *x *= spread);
        let (y, _) = case.forward(&device);
        let (mut low, mut high) = (case.clone(), case.clone());
        for place in (0..y.len()).filter(|&place| case.changes(place)) {
            let (b, a, components) = case.parameters(place);
            let t = (y[place] - b) * (-a).exp();
            let roots = components.iter().map(|[_, mu, zeta]| {
                let inverse = 0.9 * (-zeta).exp();
                (t + inverse * mu) / (inverse + 0.1)
            });
            low.x[place] = roots.clone().fold(f64::INFINITY, f64::min);
            high.x[place] = roots.fold(f64::NEG_INFINITY, f64::max);
        }
        let (below, above) = (low.forward(&device).0, high.forward(&device).0);
        for place in (0..y.len()).filter(|&place| case.changes(place)) {
            let tolerance = 1e-9 * (1.0 + y[place].abs());
            assert!(below[place] <= y[place] + tolerance, "{} is above {}", below[place], y[place]);
            assert!(above[place] >= y[place] - tolerance, "{} is below {}", above[place], y[place]);
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
    // The last case is so far from all components that sums underflow.
    let cases = [(1, 1.0), (2, 1.0), (COMPONENTS, 1.0), (COMPONENTS, 2000.0)];
    for (components, spread) in cases {
        let mut case = Case::new(Grid { batch: 2, height: 1, width: 2 }, 4, components, 8);
        case.x.iter_mut().for_each(|x| *x *= spread);
        let (step, tolerance) = if spread > 1.0 { (1e-3, 1e-6) } else { (1e-5, 1e-7) };
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
                (shifted(step) - shifted(-step)) / (2.0 * step)
            };
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
            let want: Vec<f64> = (0..have.len()).map(by).collect();
            let difference = norm(&mut have.iter().zip(&want).map(|(have, want)| have - want));
            let error = difference / norm(&mut want.iter().copied());
            assert!(error < tolerance, "{name}, {components} components: {error:e}");
        }
        let error = x.iter().zip(&case.x).map(|(x, want)| (x - want).abs()).fold(0.0, f64::max);
        assert!(error < 1e-12 * spread, "the input is not rebuilt: {error:e}");
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
