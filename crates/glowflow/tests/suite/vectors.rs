//! Models, compared with reference values computed by another program from the same formulas in float64.

use std::path::Path;

use glowflow::flow::{Context, Mode};
use glowflow::model::{Flow, largest};
use glowflow::tensor_file::TensorFile;
use glowflow::{Backprop, Dequantization, Latents, Model, ModelFile, Precision};
use glowflow_kernels::{Cpu, Cuda, Device, Noise, Operations, Real};
use ndarray::Array4;

const FILES: [&str; 9] = [
    "affine_lu",
    "affine_exp2tanh",
    "additive_shuffle_5bit",
    "class_conditional_reverse",
    "realnvp_small",
    "realnvp_one_level",
    "realnvp_gray_5bit",
    "nice_small",
    "nice_normal_5bit",
];

/// A fixture: a model, and its reference values.
struct Vectors {
    name: String,
    model: ModelFile,
    known: TensorFile,
}

impl Vectors {
    fn all() -> impl Iterator<Item = Self> {
        FILES.iter().map(|name| {
            let path = Path::new("tests/fixtures").join(name).with_extension("safetensors");
            Self {
                name: name.to_string(),
                model: ModelFile::read(&path).unwrap(),
                known: TensorFile::read(&path).unwrap(),
            }
        })
    }

    fn has(&self, tensor: &str) -> bool {
        self.known.tensors.contains_key(&format!("test.{tensor}"))
    }

    fn numbers(&self, tensor: &str) -> Vec<f64> {
        self.known.tensors[&format!("test.{tensor}")].to_f64().unwrap()
    }

    fn integers<T: TryFrom<i64, Error: std::fmt::Debug>>(&self, tensor: &str) -> Vec<T> {
        let tensor = self.known.tensors.get(&format!("test.{tensor}"));
        let integers = tensor.map_or(vec![], |tensor| tensor.to_i64().unwrap());
        integers.into_iter().map(|i| i.try_into().unwrap()).collect()
    }

    fn array<R: Real>(&self, tensor: &str) -> Array4<R> {
        let shape = &self.known.tensors[&format!("test.{tensor}")].shape;
        let values = self.numbers(tensor).into_iter().map(R::of).collect();
        Array4::from_shape_vec((shape[0], shape[1], shape[2], shape[3]), values).unwrap()
    }

    fn pixels(&self) -> Array4<u8> {
        let [height, width, channels] = self.model.config.image();
        let pixels = self.integers("pixels");
        Array4::from_shape_vec((pixels.len() / (height * width * channels), height, width, channels), pixels)
            .unwrap()
    }
}

/// The maximum difference, relative to the larger of 1 and the reference.
fn relative<R: Real>(have: impl IntoIterator<Item = R>, want: &[f64]) -> f64 {
    let have: Vec<f64> = have.into_iter().map(|x| x.wide()).collect();
    assert_eq!(have.len(), want.len());
    largest(have.iter().zip(want).map(|(h, w)| (h - w).abs() / w.abs().max(1.0)))
}

/// `‖have − want‖ / ‖want‖`.
fn norm_error(have: &[f64], want: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut have.iter().zip(want).map(|(h, w)| h - w));
    difference / norm(&mut want.iter().copied()).max(f64::MIN_POSITIVE)
}

/// Encoding and decoding, with tolerances for likelihoods and for decoded images.
fn encodes_and_decodes<D: Operations>(device: &D, tolerance: f64, decoded_tolerance: f64) {
    for vectors in Vectors::all() {
        let glow = Model::on(device.clone(), &vectors.model);
        let labels: Vec<usize> = vectors.integers("label");
        let noise = vectors.array::<D::Real>("noise");
        let encoded =
            glow.encode(vectors.pixels().view(), &labels, Dequantization::Given(noise.view())).unwrap();
        let levels = encoded.latents.0.len();
        for (level, eps) in encoded.latents.0.iter().enumerate() {
            let want = vectors.numbers(&format!("eps.{level}"));
            let eps: Vec<f64> = eps.iter().map(|x| x.wide()).collect();
            let error = norm_error(&eps, &want);
            assert!(error < tolerance, "{}: eps.{level} {error:e}", vectors.name);
            if vectors.model.config.architecture() == "glow" {
                let error = relative(eps, &want);
                assert!(error < tolerance, "{}: an element of eps.{level} {error:e}", vectors.name);
            }
        }
        let error = relative(encoded.log_density.clone(), &vectors.numbers("log_likelihood"));
        assert!(error < tolerance, "{}: log-likelihood {error:e}", vectors.name);
        let bits = encoded.log_density.iter().map(|&ll| glow.config().bits_per_dim(ll));
        let error = relative(bits, &vectors.numbers("bits_per_dim"));
        assert!(error < tolerance, "{}: bits/dim {error:e}", vectors.name);

        if vectors.has("midpoint.log_likelihood") {
            let midpoint = glow.encode(vectors.pixels().view(), &labels, Dequantization::Midpoint).unwrap();
            let error = relative(midpoint.log_density, &vectors.numbers("midpoint.log_likelihood"));
            assert!(error < tolerance, "{}: midpoint {error:e}", vectors.name);
        }

        let random = (0..levels).map(|level| vectors.array::<D::Real>(&format!("eps_random.{level}")));
        let decoded = glow.decode_continuous(&Latents(random.collect()), &labels).unwrap();
        let error = relative(decoded, &vectors.numbers("decoded"));
        assert!(error < decoded_tolerance, "{}: decoded {error:e}", vectors.name);
    }
}

#[test]
fn encodes_and_decodes_in_f32() {
    encodes_and_decodes(&Cpu::<f32>::new(), 1e-5, 1e-4);
}

#[test]
fn encodes_and_decodes_in_f64() {
    encodes_and_decodes(&Cpu::<f64>::new(), 1e-11, 1e-11);
}

/// A fixture on a device.
struct Setup<'a, D: Operations> {
    device: &'a D,
    flow: Flow<D>,
    params: D::Buffer,
    buffers: D::Buffer,
}

impl<'a, D: Operations> Setup<'a, D> {
    fn new(device: &'a D, vectors: &Vectors) -> Self {
        let upload = |values: &[f32]| {
            device.upload(&values.iter().map(|&x| D::Real::of(x.into())).collect::<Vec<_>>())
        };
        Self {
            device,
            flow: Flow::new(&vectors.model.config, &vectors.model.constants),
            params: upload(&vectors.model.weights),
            buffers: upload(&vectors.model.buffers),
        }
    }

    fn train(&self) -> Context<'_, D> {
        Context { device: self.device, params: &self.params, buffers: &self.buffers, mode: Mode::Train }
    }
}

/// The image gradient, compared with central differences along a direction.
#[test]
fn the_gradient_by_the_image_is_a_derivative() {
    const STEP: f64 = 1e-6;
    const DLOGP: f64 = -0.7;
    let device = Cpu::<f64>::new();
    for vectors in Vectors::all() {
        let config = &vectors.model.config;
        let setup = Setup::new(&device, &vectors);
        let (flow, cx) = (&setup.flow, setup.train());
        let batch = vectors.integers::<usize>("label").len().max(2);
        let direction = |i: usize| ((i * 7919) % 1000) as f64 / 1000.0 - 0.5;
        let labels = || device.zeros(if config.classes() > 0 { batch } else { 0 });
        let run = |shift: f64, backprop| {
            let v: Vec<f64> = (0..batch * config.dimensions())
                .map(|i| 0.4 * (i as f64 * 0.37).sin() + shift * direction(i))
                .collect();
            flow.forward(&cx, flow.enter(&cx, batch, device.upload(&v), labels()), backprop)
        };
        let loss = |shift| DLOGP * run(shift, Backprop::Reversible).state.logp.iter().sum::<f64>();
        let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let mut gradient = device.zeros(flow.layout.len());
            let (_, dx) = flow.backward(&cx, run(0.0, backprop), DLOGP, &mut gradient);
            let along: f64 = dx.iter().enumerate().map(|(i, dx)| dx * direction(i)).sum();
            assert!((along - slope).abs() <= 1e-5 * slope.abs(), "{}: {along}, not {slope}", vectors.name);
        }
    }
}

/// Results of a training step on a fixture's batch.
struct Step {
    /// The gradient of the mean bits/dim.
    gradient: Vec<f64>,
    /// The image at the end of the backward pass.
    image: Vec<f64>,
    latents: Vec<Vec<f64>>,
    log_density: Vec<f64>,
    /// Statistics of the batch.
    statistics: Vec<f64>,
}

fn step<D: Operations>(device: &D, vectors: &Vectors, backprop: Backprop) -> Step {
    let config = &vectors.model.config;
    let setup = Setup::new(device, vectors);
    let (flow, cx) = (&setup.flow, setup.train());
    let pixels = vectors.pixels().into_raw_vec_and_offset().0;
    let noise = vectors.array::<D::Real>("noise");
    let mut v = device.scratch(pixels.len());
    device.dequantize(&pixels, config.bits(), Noise::Given(noise.as_slice().unwrap()), &mut v);
    let labels: Vec<usize> = vectors.integers("label");
    let batch = pixels.len() / config.dimensions();
    let labels: Vec<_> = labels.iter().map(|&label| D::Real::of(label as f64)).collect();
    let forward = flow.forward(&cx, flow.enter(&cx, batch, v, device.upload(&labels)), backprop);
    let numbers = |buffer: &D::Buffer, len: usize| -> Vec<f64> {
        device.download(buffer).unwrap()[..len].iter().map(|x| x.wide()).collect()
    };
    let latents = forward.state.latents.iter().map(|eps| numbers(&eps.data, eps.grid.rows() * eps.channels));
    let latents = latents.collect();
    let log_density = numbers(&forward.state.logp, batch).into_iter().map(|ld| config.in_bin(ld)).collect();
    let statistics = numbers(&forward.state.statistics, flow.layout.buffers_len());
    let mut gradient = device.zeros(flow.layout.len());
    let dlogp = config.bits_per_dim(1.0) / batch as f64;
    let (image, _) = flow.backward(&cx, forward, dlogp, &mut gradient);
    Step {
        gradient: numbers(&gradient, flow.layout.len()),
        image: numbers(&image.data, pixels.len()),
        latents,
        log_density,
        statistics,
    }
}

fn gradients<D: Operations>(device: &D, tolerance: f64) {
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let Step { gradient, image, .. } = step(device, &vectors, backprop);
            for parameter in &vectors.model.layout().parameters {
                let want = vectors.numbers(&format!("grad.{}", parameter.name));
                let error = norm_error(&gradient[parameter.span.range()], &want);
                assert!(error < tolerance, "{} {backprop:?}: {} {error:e}", vectors.name, parameter.name);
            }
            let bins = f64::from(vectors.model.config.bins());
            let noise = vectors.numbers("noise");
            let bits = vectors.model.config.bits();
            let v = vectors
                .pixels()
                .iter()
                .zip(noise)
                .map(|(&p, u)| f64::from(p >> (8 - bits)) / bins - 0.5 + u)
                .collect::<Vec<_>>();
            let error = relative(image, &v);
            assert!(error < tolerance, "{} {backprop:?}: rebuilt image {error:e}", vectors.name);
        }
    }
}

/// Models with batch normalisation in a training step: latents and likelihoods with the batch's statistics,
/// the updated running statistics, and likelihoods in evaluation mode with these.
fn training_mode<D: Operations>(device: &D, tolerance: f64) {
    for vectors in Vectors::all().filter(|vectors| vectors.has("train.log_likelihood")) {
        let name = &vectors.name;
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let Step { latents, log_density, statistics, .. } = step(device, &vectors, backprop);
            for (level, eps) in latents.into_iter().enumerate() {
                let error = norm_error(&eps, &vectors.numbers(&format!("train.eps.{level}")));
                assert!(error < 10.0 * tolerance, "{name} {backprop:?}: train.eps.{level} {error:e}");
            }
            let error = relative(log_density.clone(), &vectors.numbers("train.log_likelihood"));
            assert!(error < tolerance, "{name} {backprop:?}: log-likelihood {error:e}");
            let bits = log_density.iter().map(|&ld| vectors.model.config.bits_per_dim(ld));
            let error = relative(bits, &vectors.numbers("train.bits_per_dim"));
            assert!(error < tolerance, "{name} {backprop:?}: bits/dim {error:e}");

            let mut after = vectors.model.clone();
            for (running, batch) in after.buffers.iter_mut().zip(&statistics) {
                *running = (0.9 * f64::from(*running) + 0.1 * batch) as f32;
            }
            for buffer in &after.layout().buffers {
                let have = after.buffers[buffer.span.range()].iter().copied();
                let error = relative(have, &vectors.numbers(&format!("updated.{}", buffer.name)));
                assert!(error < 10.0 * tolerance.max(1e-7), "{name}: {} {error:e}", buffer.name);
            }
            let glow = Model::on(device.clone(), &after);
            let noise = vectors.array::<D::Real>("noise");
            let encoded = glow.encode(vectors.pixels().view(), &[], Dequantization::Given(noise.view()));
            let error = relative(encoded.unwrap().log_density, &vectors.numbers("after.log_likelihood"));
            assert!(error < tolerance.max(1e-6), "{name}: after the step {error:e}");
        }
    }
}

#[test]
fn training_mode_in_f32() {
    training_mode(&Cpu::<f32>::new(), 1e-5);
}

#[test]
fn training_mode_in_f64() {
    training_mode(&Cpu::<f64>::new(), 1e-10);
}

#[test]
fn training_mode_on_a_gpu_in_f32() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    training_mode(&gpu, 1e-5);
}

#[test]
fn gradients_in_f32() {
    gradients(&Cpu::<f32>::new(), 1e-4);
}

#[test]
fn gradients_in_f64() {
    gradients(&Cpu::<f64>::new(), 1e-11);
}

fn both_modes_agree<D: Operations>(device: &D, tolerance: f64) {
    for vectors in Vectors::all() {
        let [reversible, stored] = [Backprop::Reversible, Backprop::Stored]
            .map(|backprop| step(device, &vectors, backprop).gradient);
        let error = norm_error(&reversible, &stored);
        assert!(error < tolerance, "{}: {error:e}", vectors.name);
    }
}

#[test]
fn both_modes_give_the_same_gradient() {
    both_modes_agree(&Cpu::<f32>::new(), 1e-5);
}

#[test]
fn a_saved_model_is_the_model() {
    let folder = tempfile::tempdir().unwrap();
    for vectors in Vectors::all() {
        let path = folder.path().join(&vectors.name);
        vectors.model.write(&path).unwrap();
        assert_eq!(ModelFile::read(&path).unwrap(), vectors.model);
    }
}

/// Gradients and likelihoods in bf16, compared with those of float64.
fn agrees_to_the_rounding_of_bf16(device: &impl Operations<Real = f32>) {
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let Step { gradient, .. } = step(device, &vectors, backprop);
            let want: Vec<f64> = (vectors.model.layout().parameters.iter())
                .flat_map(|parameter| vectors.numbers(&format!("grad.{}", parameter.name)))
                .collect();
            let have: Vec<f64> = (vectors.model.layout().parameters.iter())
                .flat_map(|parameter| gradient[parameter.span.range()].to_vec())
                .collect();
            let error = norm_error(&have, &want);
            assert!(error < 2e-2, "{} {backprop:?}: gradient {error:e}", vectors.name);
        }
        let glow = Model::on(device.clone(), &vectors.model);
        let labels: Vec<usize> = vectors.integers("label");
        let noise = vectors.array::<f32>("noise");
        let encoded =
            glow.encode(vectors.pixels().view(), &labels, Dequantization::Given(noise.view())).unwrap();
        let bits = encoded.log_density.iter().map(|&ll| glow.config().bits_per_dim(ll));
        let error = relative(bits, &vectors.numbers("bits_per_dim"));
        // Scales of up to e² amplify the networks' rounding errors; those of a sigmoid are below 1.
        let tolerance = if vectors.name == "affine_exp2tanh" { 3e-3 } else { 2e-3 };
        assert!(error < tolerance, "{}: bits/dim {error:e}", vectors.name);
    }
}

#[test]
fn bf16_agrees_to_its_rounding() {
    match Cpu::with_precision(Precision::Bf16) {
        Ok(device) => agrees_to_the_rounding_of_bf16(&device),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn bf16_with_amx_agrees_to_its_rounding() {
    match Cpu::with_amx() {
        Ok(device) => agrees_to_the_rounding_of_bf16(&device),
        Err(error) => println!("skipped: {error}"),
    }
}

/// A GPU, or an emulated one.
fn gpu(precision: Precision) -> Option<Cuda> {
    cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders))
}

#[test]
fn encodes_and_decodes_on_a_gpu_in_f32() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    encodes_and_decodes(&gpu, 1e-5, 1e-4);
}

#[test]
fn gradients_on_a_gpu_in_f32() {
    let Some(gpu) = gpu(Precision::F32) else { return };
    gradients(&gpu, 1e-4);
    both_modes_agree(&gpu, 1e-5);
}

#[test]
fn a_gpu_in_bf16_agrees_to_its_rounding() {
    let Some(gpu) = gpu(Precision::Bf16) else { return };
    agrees_to_the_rounding_of_bf16(&gpu);
}
