//! Models against numbers that another program computed from the same formulas in float64.

use std::path::Path;

use glowflow::model::{Flow, largest};
use glowflow::tensor_file::TensorFile;
use glowflow::{Backprop, Dequantization, Latents, Model, ModelFile, Precision};
use glowflow_kernels::{Cpu, Cuda, Device, Noise, Real, cuda};
use ndarray::Array4;

const FILES: [&str; 3] = ["affine_lu", "additive_shuffle_5bit", "class_conditional_reverse"];

/// A fixture: a model, and what is known about it.
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

/// The largest difference, relative to the larger of 1 and the reference.
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
fn encodes_and_decodes<D: Device>(device: &D, tolerance: f64, decoded_tolerance: f64) {
    for vectors in Vectors::all() {
        let glow = Model::on(device.clone(), &vectors.model);
        let labels: Vec<usize> = vectors.integers("label");
        let noise = vectors.array::<D::Real>("noise");
        let encoded =
            glow.encode(vectors.pixels().view(), &labels, Dequantization::Given(noise.view())).unwrap();
        let levels = encoded.latents.0.len();
        for (level, eps) in encoded.latents.0.iter().enumerate() {
            let error = relative(eps.iter().copied(), &vectors.numbers(&format!("eps.{level}")));
            assert!(error < tolerance, "{}: eps.{level} {error:e}", vectors.name);
        }
        let error = relative(encoded.log_density.clone(), &vectors.numbers("log_likelihood"));
        assert!(error < tolerance, "{}: log-likelihood {error:e}", vectors.name);
        let bits = encoded.log_density.iter().map(|&ll| glow.config().bits_per_dim(ll));
        let error = relative(bits, &vectors.numbers("bits_per_dim"));
        assert!(error < tolerance, "{}: bits/dim {error:e}", vectors.name);

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

/// The gradient by the image against central differences along a direction.
#[test]
fn the_gradient_by_the_image_is_a_derivative() {
    const STEP: f64 = 1e-6;
    const DLOGP: f64 = -0.7;
    let device = Cpu::<f64>::new();
    for vectors in Vectors::all() {
        let config = &vectors.model.config;
        let flow = Flow::<Cpu<f64>>::new(config.clone(), &vectors.model.permutations);
        let weights: Vec<f64> = vectors.model.weights.iter().map(|&w| w.into()).collect();
        let params = device.upload(&weights);
        let batch = vectors.integers::<usize>("label").len().max(1);
        let direction = |i: usize| ((i * 7919) % 1000) as f64 / 1000.0 - 0.5;
        let labels = || device.zeros(batch * config.classes());
        let run = |shift: f64, backprop| {
            let v: Vec<f64> = (0..batch * config.dimensions())
                .map(|i| 0.4 * (i as f64 * 0.37).sin() + shift * direction(i))
                .collect();
            let state = flow.enter(&device, batch, device.upload(&v), labels());
            flow.forward(&device, &params, state, backprop)
        };
        let loss = |shift| DLOGP * run(shift, Backprop::Reversible).state.logp.iter().sum::<f64>();
        let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let mut gradient = device.zeros(flow.layout.len());
            let (_, dx) = flow.backward(&device, &params, run(0.0, backprop), DLOGP, &mut gradient);
            let along: f64 = dx.iter().enumerate().map(|(i, dx)| dx * direction(i)).sum();
            assert!((along - slope).abs() <= 1e-5 * slope.abs(), "{}: {along}, not {slope}", vectors.name);
        }
    }
}

/// The gradient of the mean bits/dim of the fixture's batch, and the image that the way back ends at.
fn gradient<D: Device>(device: &D, vectors: &Vectors, backprop: Backprop) -> (Vec<f64>, Vec<f64>) {
    let config = &vectors.model.config;
    let flow = Flow::<D>::new(config.clone(), &vectors.model.permutations);
    let weights: Vec<D::Real> = vectors.model.weights.iter().map(|&w| D::Real::of(w.into())).collect();
    let params = device.upload(&weights);
    let pixels = vectors.pixels().into_raw_vec_and_offset().0;
    let noise = vectors.array::<D::Real>("noise");
    let mut v = device.scratch(pixels.len());
    device.dequantize(&pixels, config.bits(), Noise::Given(noise.as_slice().unwrap()), &mut v);
    let labels: Vec<usize> = vectors.integers("label");
    let batch = pixels.len() / config.dimensions();
    let mut one_hot = vec![D::Real::of(0.0); batch * config.classes()];
    labels.iter().enumerate().for_each(|(i, label)| one_hot[i * config.classes() + label] = D::Real::of(1.0));
    let state = flow.enter(device, batch, v, device.upload(&one_hot));
    let forward = flow.forward(device, &params, state, backprop);
    let mut gradient = device.zeros(flow.layout.len());
    let dlogp = config.bits_per_dim(1.0) / batch as f64;
    let (image, _) = flow.backward(device, &params, forward, dlogp, &mut gradient);
    let numbers = |buffer| device.download(buffer).unwrap().iter().map(|x| x.wide()).collect();
    (numbers(&gradient), numbers(&image.data))
}

fn gradients<D: Device>(device: &D, tolerance: f64) {
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let (gradient, image) = gradient(device, &vectors, backprop);
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

#[test]
fn gradients_in_f32() {
    gradients(&Cpu::<f32>::new(), 1e-4);
}

#[test]
fn gradients_in_f64() {
    gradients(&Cpu::<f64>::new(), 1e-11);
}

fn both_modes_agree<D: Device>(device: &D, tolerance: f64) {
    for vectors in Vectors::all() {
        let (reversible, _) = gradient(device, &vectors, Backprop::Reversible);
        let (stored, _) = gradient(device, &vectors, Backprop::Stored);
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

/// Gradients and likelihoods in bf16 against those of float64.
fn agrees_to_the_rounding_of_bf16(device: &impl Device<Real = f32>) {
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let (gradient, _) = gradient(device, &vectors, backprop);
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
        assert!(error < 2e-3, "{}: bits/dim {error:e}", vectors.name);
    }
}

#[test]
fn bf16_agrees_to_its_rounding() {
    match Precision::Bf16.cpu() {
        Ok(device) => agrees_to_the_rounding_of_bf16(&device),
        Err(error) => println!("skipped: {error}"),
    }
}

/// A GPU, emulated where there is none.
fn gpu(precision: cuda::Precision) -> Option<Cuda> {
    cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders))
}

#[test]
fn encodes_and_decodes_on_a_gpu_in_f32() {
    let Some(gpu) = gpu(cuda::Precision::F32) else { return };
    encodes_and_decodes(&gpu, 1e-5, 1e-4);
}

#[test]
fn gradients_on_a_gpu_in_f32() {
    let Some(gpu) = gpu(cuda::Precision::F32) else { return };
    gradients(&gpu, 1e-4);
    both_modes_agree(&gpu, 1e-5);
}

#[test]
fn a_gpu_in_bf16_agrees_to_its_rounding() {
    let Some(gpu) = gpu(cuda::Precision::Bf16) else { return };
    agrees_to_the_rounding_of_bf16(&gpu);
}
