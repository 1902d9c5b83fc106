//! Models against numbers that another program computed from the same formulas in float64.

use std::path::Path;

use glowflow::flow::Tensor;
use glowflow::model::Flow;
use glowflow::tensor_file::TensorFile;
use glowflow::{Backprop, Dequantization, Glow, Latents, ModelFile, Precision};
use glowflow_kernels::{Cpu, Device, Noise, Real};
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
        let [height, width, channels] = self.model.config.image;
        let pixels = self.integers("pixels");
        Array4::from_shape_vec((pixels.len() / (height * width * channels), height, width, channels), pixels)
            .unwrap()
    }
}

/// The largest difference, relative to the larger of 1 and the reference.
fn relative<R: Real>(have: impl IntoIterator<Item = R>, want: &[f64]) -> f64 {
    let have: Vec<f64> = have.into_iter().map(|x| x.wide()).collect();
    assert_eq!(have.len(), want.len());
    have.iter().zip(want).map(|(h, w)| (h - w).abs() / w.abs().max(1.0)).fold(0.0, f64::max)
}

/// `‖have − want‖ / ‖want‖`.
fn norm_error(have: &[f64], want: &[f64]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut have.iter().zip(want).map(|(h, w)| h - w));
    difference / norm(&mut want.iter().copied()).max(f64::MIN_POSITIVE)
}

/// Encoding and decoding, with tolerances for likelihoods and for decoded images.
fn encodes_and_decodes<R: Real>(tolerance: f64, decoded_tolerance: f64) {
    for vectors in Vectors::all() {
        let glow = Glow::on(Cpu::<R>::new(), &vectors.model);
        let labels: Vec<usize> = vectors.integers("label");
        let noise = vectors.array::<R>("noise");
        let encoded =
            glow.encode(vectors.pixels().view(), &labels, Dequantization::Given(noise.view())).unwrap();
        let levels = encoded.latents.0.len();
        for (level, eps) in encoded.latents.0.iter().enumerate() {
            let error = relative(eps.iter().copied(), &vectors.numbers(&format!("eps.{level}")));
            assert!(error < tolerance, "{}: eps.{level} {error:e}", vectors.name);
        }
        let error = relative(encoded.log_likelihood.clone(), &vectors.numbers("log_likelihood"));
        assert!(error < tolerance, "{}: log-likelihood {error:e}", vectors.name);
        let bits = encoded.log_likelihood.iter().map(|&ll| glow.config().bits_per_dim(ll));
        let error = relative(bits, &vectors.numbers("bits_per_dim"));
        assert!(error < tolerance, "{}: bits/dim {error:e}", vectors.name);

        let random = (0..levels).map(|level| vectors.array::<R>(&format!("eps_random.{level}")));
        let decoded = glow.decode_continuous(&Latents(random.collect()), &labels).unwrap();
        let error = relative(decoded, &vectors.numbers("decoded"));
        assert!(error < decoded_tolerance, "{}: decoded {error:e}", vectors.name);
    }
}

#[test]
fn encodes_and_decodes_in_f32() {
    encodes_and_decodes::<f32>(1e-5, 1e-4);
}

#[test]
fn encodes_and_decodes_in_f64() {
    encodes_and_decodes::<f64>(1e-11, 1e-11);
}

/// The gradient of the mean bits/dim of the fixture's batch, and the image that the way back ends at.
fn gradient<R: Real>(device: Cpu<R>, vectors: &Vectors, backprop: Backprop) -> (Vec<f64>, Tensor<Cpu<R>>) {
    let config = &vectors.model.config;
    let flow = Flow::<Cpu<R>>::new(config.clone(), &vectors.model.permutations);
    let weights: Vec<R> = vectors.model.weights.iter().map(|&w| R::of(w.into())).collect();
    let params = device.upload(&weights);
    let pixels = vectors.pixels().into_raw_vec_and_offset().0;
    let noise = vectors.array::<R>("noise");
    let mut v = device.scratch(pixels.len());
    device.dequantize(&pixels, config.bits, Noise::Given(noise.as_slice().unwrap()), &mut v);
    let labels: Vec<usize> = vectors.integers("label");
    let batch = pixels.len() / config.dimensions();
    let mut one_hot = vec![R::zero(); batch * config.classes];
    labels.iter().enumerate().for_each(|(i, label)| one_hot[i * config.classes + label] = R::one());
    let state = flow.enter(&device, batch, v, device.upload(&one_hot));
    let forward = flow.forward(&device, &params, state, backprop);
    let mut gradient = device.zeros(flow.layout.len());
    let dlogp = config.bits_per_dim(1.0) / batch as f64;
    let image = flow.backward(&device, &params, forward, dlogp, &mut gradient);
    (gradient.iter().map(|g| g.wide()).collect(), image)
}

fn gradients<R: Real>(tolerance: f64) {
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let (gradient, image) = gradient(Cpu::<R>::new(), &vectors, backprop);
            for parameter in &vectors.model.layout().parameters {
                let want = vectors.numbers(&format!("grad.{}", parameter.name));
                let error = norm_error(&gradient[parameter.span.range()], &want);
                assert!(error < tolerance, "{} {backprop:?}: {} {error:e}", vectors.name, parameter.name);
            }
            let bins = f64::from(vectors.model.config.bins());
            let noise = vectors.numbers("noise");
            let bits = vectors.model.config.bits;
            let v = vectors
                .pixels()
                .iter()
                .zip(noise)
                .map(|(&p, u)| f64::from(p >> (8 - bits)) / bins - 0.5 + u)
                .collect::<Vec<_>>();
            let error = relative(image.data.iter().copied(), &v);
            assert!(error < tolerance, "{} {backprop:?}: rebuilt image {error:e}", vectors.name);
        }
    }
}

#[test]
fn gradients_in_f32() {
    gradients::<f32>(1e-4);
}

#[test]
fn gradients_in_f64() {
    gradients::<f64>(1e-11);
}

#[test]
fn both_modes_give_the_same_gradient() {
    for vectors in Vectors::all() {
        let (reversible, _) = gradient(Cpu::<f32>::new(), &vectors, Backprop::Reversible);
        let (stored, _) = gradient(Cpu::<f32>::new(), &vectors, Backprop::Stored);
        let error = norm_error(&reversible, &stored);
        assert!(error < 1e-5, "{}: {error:e}", vectors.name);
    }
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

/// The processor with networks in bf16, where it has instructions for that.
fn in_bf16() -> Option<Cpu<f32>> {
    Precision::Bf16.cpu().inspect_err(|error| println!("skipped: {error}")).ok()
}

#[test]
fn gradients_in_bf16_are_those_of_f64_to_its_rounding() {
    let Some(device) = in_bf16() else { return };
    for vectors in Vectors::all() {
        for backprop in [Backprop::Reversible, Backprop::Stored] {
            let (gradient, _) = gradient(device.clone(), &vectors, backprop);
            let want: Vec<f64> = (vectors.model.layout().parameters.iter())
                .flat_map(|parameter| vectors.numbers(&format!("grad.{}", parameter.name)))
                .collect();
            let have: Vec<f64> = (vectors.model.layout().parameters.iter())
                .flat_map(|parameter| gradient[parameter.span.range()].to_vec())
                .collect();
            let error = norm_error(&have, &want);
            assert!(error < 2e-2, "{} {backprop:?}: {error:e}", vectors.name);
        }
    }
}

#[test]
fn likelihoods_in_bf16_are_those_of_f64_to_its_rounding() {
    let Some(device) = in_bf16() else { return };
    for vectors in Vectors::all() {
        let glow = Glow::on(device.clone(), &vectors.model);
        let labels: Vec<usize> = vectors.integers("label");
        let noise = vectors.array::<f32>("noise");
        let encoded =
            glow.encode(vectors.pixels().view(), &labels, Dequantization::Given(noise.view())).unwrap();
        let bits = encoded.log_likelihood.iter().map(|&ll| glow.config().bits_per_dim(ll));
        let error = relative(bits, &vectors.numbers("bits_per_dim"));
        assert!(error < 2e-3, "{}: bits/dim {error:e}", vectors.name);
    }
}
