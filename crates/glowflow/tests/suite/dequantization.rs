//! Variational dequantisation: its density, its bound against a known probability, its gradients, and exact
//! decoding.

use glowflow::flow::{
    ActNormPermutation, Base, Context, Dequantizer, DequantizerConfig, FactorRest, FlowBuilder, Mode, Save,
    Shape, State, Tensor,
};
use glowflow::params::{ParamBuilder, Source};
use glowflow::{
    Architecture, Dequantization, DequantizationType, Draws, Error, GlowConfig, Model, ModelFile, NiceConfig,
    NoiseKind, PermutationType, RealNvpConfig,
};
use glowflow_kernels::{Cpu, Cuda, Device, Grid, Noise, Operations, Precision, Primitives, RngStream};
use ndarray::Array4;
use serde::{Deserialize, Serialize};

type F64 = Cpu<f64>;

/// A small Glow with variational dequantisation.
fn glow(image: [usize; 3], couplings: usize) -> GlowConfig {
    GlowConfig {
        image,
        levels: 1,
        steps: 2,
        hidden: 6,
        dequantization: DequantizationType::Variational,
        dequantization_couplings: couplings,
        dequantization_hidden: 5,
        dequantization_channels: 7,
        ..GlowConfig::default()
    }
}

/// Standard normal values.
fn normal(id: u64, len: usize) -> Vec<f64> {
    (0..len as u64).map(|i| RngStream { seed: 7, id }.normal(i)[0]).collect()
}

/// Random pixels of some images.
fn pixels(images: usize, [height, width, channels]: [usize; 3], seed: u64) -> Array4<u8> {
    let len = images * height * width * channels;
    let stream = RngStream { seed, id: 0 };
    let bytes = (0..len as u64).map(|i| stream.block(i)[0] as u8).collect();
    Array4::from_shape_vec((images, height, width, channels), bytes).unwrap()
}

/// Adds normal noise to the dequantiser's parameters, so that it is no longer the identity.
fn perturb<A: Architecture>(file: &mut ModelFile<A>, deviation: f64) {
    for parameter in &file.layout().parameters {
        if parameter.name.starts_with("dequantizer.") {
            let numbers = normal(parameter.span.start as u64, parameter.span.len);
            let weights = &mut file.weights[parameter.span.range()];
            weights.iter_mut().zip(numbers).for_each(|(w, x)| *w += (deviation * x) as f32);
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Log-densities of a model with uniform and with variational dequantisation from one seed.
fn densities<D: Operations>(device: D, file: &ModelFile, pixels: &Array4<u8>) -> [Vec<f64>; 2] {
    let model = Model::on(device, file);
    let labels = vec![0; model.config().labels_of(pixels.shape()[0])];
    let noise = [Dequantization::Uniform { seed: 3 }, Dequantization::Variational { seed: 3 }];
    noise.map(|noise| model.encode(pixels.view(), &labels, noise).unwrap().log_density)
}

#[test]
fn a_new_model_dequantizes_uniformly() {
    let image = [4, 6, 3];
    let pixels = pixels(3, image, 1);
    for config in [
        glow(image, 0).into(),
        glow(image, 2).into(),
        GlowConfig { classes: 2, bits: 5, ..glow(image, 3) }.into(),
        RealNvpConfig {
            image,
            blocks: 1,
            hidden: 4,
            dequantization: DequantizationType::Variational,
            dequantization_hidden: 5,
            ..RealNvpConfig::default()
        }
        .into(),
    ] {
        let file: ModelFile = ModelFile::of(config, 0).unwrap();
        let bits = |[uniform, variational]: [Vec<f64>; 2]| {
            let bits = |d: &f64| file.config.bits_per_dim(*d);
            let errors = uniform.iter().zip(&variational).map(|(u, v)| (bits(u) - bits(v)).abs());
            errors.fold(0.0, f64::max)
        };
        let (double, single) =
            (bits(densities(F64::new(), &file, &pixels)), bits(densities(Cpu::<f32>::new(), &file, &pixels)));
        assert!(double < 1e-12, "{:?}: {double:e} bits/dim in f64", file.config);
        assert!(single < 1e-5, "{:?}: {single:e} bits/dim in f32", file.config);
    }
}

#[test]
fn the_tensors_follow_those_of_the_flow_and_leave_them_alone() {
    let variational = glow([8, 8, 3], 2);
    let uniform = GlowConfig { dequantization: DequantizationType::Uniform, ..variational.clone() };
    let [with, without] = [&variational, &uniform].map(|config| ModelFile::new(config.clone(), 5).unwrap());
    let layouts = [with.layout(), without.layout()];
    let [names, shorter] =
        layouts.each_ref().map(|layout| layout.parameters.iter().map(|p| p.name.clone()).collect::<Vec<_>>());
    assert_eq!(names[..shorter.len()], shorter);
    assert!(names[shorter.len()..].iter().all(|name| name.starts_with("dequantizer.")));
    assert_eq!(with.weights[..without.weights.len()], without.weights);
    assert_eq!(with.constants, without.constants);
}

#[test]
fn multiply_adds_are_counted() {
    let config = GlowConfig { dequantization: DequantizationType::Variational, ..GlowConfig::default() };
    let count = |config: &GlowConfig| FlowBuilder::<F64>::build(config, Source::Layout).multiply_adds();
    let uniform = GlowConfig { dequantization: DequantizationType::Uniform, ..config.clone() };
    let coupling = 9 * (6 + 32 + 1) * 128 + 128 * 128 + 9 * 129 * 12;
    assert_eq!(count(&config) - count(&uniform), 256 * (9 * 12 * 32 + 4 * coupling));
    let all = GlowConfig { dequantization_couplings: 0, ..config };
    let coupling = 9 * (32 + 1) * 128 + 128 * 128 + 9 * 129 * 24;
    assert_eq!(count(&all) - count(&uniform), 256 * (9 * 12 * 32 + coupling));
}

#[test]
fn the_keys_are_written_only_if_they_matter() {
    let keys = |config: &glowflow::ModelConfig| -> Vec<String> {
        let serde_json::Value::Object(keys) = serde_json::to_value(config).unwrap() else { panic!() };
        keys.into_iter().map(|(key, _)| key).filter(|key| key.starts_with("dequantization")).collect()
    };
    for config in
        [GlowConfig::default().into(), RealNvpConfig::default().into(), NiceConfig::default().into()]
    {
        assert!(keys(&config).is_empty(), "{config:?}");
    }
    let variational = GlowConfig { dequantization: DequantizationType::Variational, ..GlowConfig::default() };
    assert_eq!(keys(&variational.into()), ["dequantization"]);
    assert_eq!(keys(&glow([8, 8, 3], 2).into()).len(), 4);
    // The model file stores them.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let file = ModelFile::new(glow([8, 8, 3], 2), 0).unwrap();
    file.write(&path).unwrap();
    assert_eq!(ModelFile::read(&path).unwrap(), file);
}

#[test]
fn configurations_without_a_dequantizer_are_refused() {
    let odd = RealNvpConfig {
        image: [5, 4, 1],
        levels: 1,
        dequantization: DequantizationType::Variational,
        ..RealNvpConfig::default()
    };
    let message = odd.validate().unwrap_err().to_string();
    assert!(message.contains("image height 5 is odd") && message.contains("use 6"), "{message}");
    let wide = GlowConfig { dequantization_hidden: 0, ..glow([4, 4, 3], 2) };
    let message = wide.validate().unwrap_err().to_string();
    assert!(message.contains("model.dequantization_hidden is 0"), "{message}");
    let uniform = GlowConfig { dequantization: DequantizationType::Uniform, ..wide };
    uniform.validate().unwrap();
}

/// A dequantiser in double precision with random parameters, tested without a flow.
struct Alone {
    device: F64,
    dequantizer: Dequantizer,
    params: Vec<f64>,
    image: Shape,
    bins: u32,
}

impl Alone {
    fn new(image: [usize; 3], bins: u32, couplings: usize, deviation: f64) -> Self {
        let mut p = ParamBuilder::new(Source::Seed(0));
        let config = DequantizerConfig { couplings, hidden: 3, channels: 32 };
        let dequantizer = Dequantizer::new(&mut p, image.into(), bins, config);
        let params = normal(1, p.layout().len()).into_iter().map(|x| deviation * x).collect();
        Self { device: F64::new(), dequantizer, params, image: image.into(), bins }
    }

    fn grid(&self, batch: usize) -> Grid {
        Grid { batch, height: self.image.height, width: self.image.width }
    }

    /// State of bin centres.
    fn centres(&self, bins: &[u32]) -> State<F64> {
        let x: Vec<f64> = bins.iter().map(|&q| (f64::from(q) + 0.5) / f64::from(self.bins) - 0.5).collect();
        let batch = bins.len() / self.image.len();
        State {
            x: Tensor { grid: self.grid(batch), channels: self.image.channels, data: self.device.upload(&x) },
            latents: vec![],
            logp: self.device.zeros(batch),
            labels: self.device.scratch(0),
            condition: None,
            statistics: self.device.scratch(0),
        }
    }

    /// `v`, and `−ln r` of each image.
    fn forward(&self, bins: &[u32], u: &[f64], params: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (params, buffers) = (self.device.upload(params), self.device.zeros(0));
        let cx = Context { device: &self.device, params: &params, buffers: &buffers, mode: Mode::Train };
        let mut state = self.centres(bins);
        self.dequantizer.forward(&cx, &self.device.upload(u), &mut state, Save::Minimum);
        (state.x.data.to_vec(), state.logp.to_vec())
    }

    fn uniform(&self, id: u64, len: usize) -> Vec<f64> {
        let mut u = self.device.scratch(len);
        self.device.uniform(RngStream { seed: 5, id }, 1, &mut u);
        u.to_vec()
    }

    fn random_bins(&self, images: usize) -> Vec<u32> {
        let stream = RngStream { seed: 2, id: 0 };
        (0..(images * self.image.len()) as u64).map(|i| stream.block(i)[0] % self.bins).collect()
    }
}

/// With `w ~ r(·|q)`, `E[1/r(w|q)] = ∫ dw = 1` over the unit cube.
#[test]
fn the_density_of_the_noise_integrates_to_one() {
    for couplings in [0, 1, 4] {
        let alone = Alone::new([2, 2, 3], 8, couplings, 0.05);
        let one = alone.random_bins(1);
        let (images, d) = (40_000, one.len());
        let u = alone.uniform(0, images * d);
        let (v, negative_log_r) = alone.forward(&one.repeat(images), &u, &alone.params);
        let inverse: Vec<f64> = negative_log_r.iter().map(|x| x.exp()).collect();
        let (m, spread) = (mean(&inverse), negative_log_r.iter().map(|x| x.abs()).fold(0.0, f64::max));
        let error =
            (mean(&inverse.iter().map(|x| (x - m).powi(2)).collect::<Vec<_>>()) / images as f64).sqrt();
        println!("{couplings} couplings: {m} ± {error}, |ln r| up to {spread}");
        assert!(spread > 0.5, "the noise is not far from uniform: {spread}");
        assert!((m - 1.0).abs() < 3.0 * error, "{couplings} couplings: {m} ± {error}");
        assert!(error < 0.02, "{error}");
        // Every value is in its bin.
        for (v, q) in v.iter().zip(one.iter().cycle()) {
            assert_eq!(((v + 0.5) * 8.0).floor(), f64::from(*q));
        }
    }
}

/// Shifts far beyond the saturation of `sigmoid` in single precision.
#[test]
fn noise_stays_in_its_bin() {
    let (image, bins) = ([4, 4, 3], 256);
    for shift in [-60.0, -17.0, 17.0, 60.0] {
        let mut p = ParamBuilder::new(Source::Seed(0));
        let config = DequantizerConfig { couplings: 0, hidden: 3, channels: 5 };
        let dequantizer = Dequantizer::new(&mut p, image.into(), bins, config);
        let mut params = p.initial_parameters();
        let bias = p.layout().parameters.iter().find(|p| p.name == "couplings.0.conv3.bias").unwrap();
        // The first half consists of shifts.
        params[bias.span.start..bias.span.start + bias.span.len / 2].fill(shift);
        let device = Cpu::<f32>::new();
        let pixels = pixels(20, image, 4).into_raw_vec_and_offset().0;
        let mut v = device.scratch(pixels.len());
        device.dequantize(&pixels, 8, Noise::Midpoint, &mut v);
        let mut u = device.scratch(pixels.len());
        device.uniform(RngStream { seed: 0, id: 0 }, 1, &mut u);
        let (params, buffers) = (device.upload(&params), device.zeros(0));
        let cx = Context { device: &device, params: &params, buffers: &buffers, mode: Mode::Train };
        let mut state = State {
            x: Tensor { grid: Grid { batch: 20, height: 4, width: 4 }, channels: 3, data: v },
            latents: vec![],
            logp: device.zeros(20),
            labels: device.scratch(0),
            condition: None,
            statistics: device.scratch(0),
        };
        dequantizer.forward(&cx, &u, &mut state, Save::Minimum);
        let quantized = device.quantize(&state.x.data, 8).unwrap();
        assert!(quantized.finite && quantized.pixels == pixels, "shift {shift}");
        assert!(state.logp.iter().all(|logp| logp.is_finite()), "shift {shift}");
    }
}

/// Gradient of the loss `⟨g, v⟩ + λ·Σ (−ln r)` with respect to every parameter, with saved and with
/// recomputed activations.
#[test]
fn gradients_are_derivatives() {
    const LAMBDA: f64 = -0.7;
    const STEP: f64 = 1e-5;
    for couplings in [0, 2, 3] {
        let alone = Alone::new([4, 2, 1], 4, couplings, 0.2);
        let (images, device) = (2, &alone.device);
        let bins = alone.random_bins(images);
        let u = alone.uniform(1, bins.len());
        let g = normal(2, bins.len());
        let loss = |params: &[f64]| {
            let (v, negative_log_r) = alone.forward(&bins, &u, params);
            v.iter().zip(&g).map(|(v, g)| v * g).sum::<f64>() + LAMBDA * negative_log_r.iter().sum::<f64>()
        };
        let want: Vec<f64> = (0..alone.params.len())
            .map(|i| {
                let at = |by: f64| {
                    let mut params = alone.params.clone();
                    params[i] += by;
                    loss(&params)
                };
                (at(STEP) - at(-STEP)) / (2.0 * STEP)
            })
            .collect();
        for save in [Save::Minimum, Save::Activations] {
            let (params, buffers) = (device.upload(&alone.params), device.zeros(0));
            let cx = Context { device, params: &params, buffers: &buffers, mode: Mode::Train };
            let mut state = alone.centres(&bins);
            let saved = alone.dequantizer.forward(&cx, &device.upload(&u), &mut state, save);
            let mut gradient = device.upload(&vec![1.0; want.len()]);
            alone.dequantizer.backward(&cx, saved, &device.upload(&g), LAMBDA, &mut gradient);
            let have: Vec<f64> = gradient.iter().map(|x| x - 1.0).collect();
            let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
            let difference: Vec<f64> = have.iter().zip(&want).map(|(h, w)| h - w).collect();
            let error = norm(&difference) / norm(&want);
            assert!(error < 1e-6, "{couplings} couplings, {save:?}: {error:e}");
        }
    }
}

/// Independent normal values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Toy {
    couplings: usize,
}

impl Architecture for Toy {
    fn image(&self) -> [usize; 3] {
        [2, 2, 1]
    }

    fn bits(&self) -> u32 {
        5
    }

    fn dequantizer(&self) -> Option<DequantizerConfig> {
        Some(DequantizerConfig { couplings: self.couplings, hidden: 3, channels: 32 })
    }

    fn validate(&self) -> Result<(), Error> {
        Ok(())
    }

    fn build<D: Operations>(&self, flow: &mut FlowBuilder<'_, D>) {
        flow.push_with("step", |p, shape| {
            ActNormPermutation::new(p, shape.channels, PermutationType::Reverse)
        });
        flow.push("latents", FactorRest(Base::Normal));
    }

    fn set_channels(&mut self, _: usize) {}
}

/// `∫ N(z; 0, 1) dz` from `low` to `high`, by Simpson's rule.
fn probability(low: f64, high: f64) -> f64 {
    let density = |z: f64| (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt();
    let (n, width) = (100, high - low);
    let at = |i: usize| density(low + width * i as f64 / n as f64);
    let inner: f64 = (1..n).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * at(i)).sum();
    (at(0) + inner + at(n)) * width / (3 * n) as f64
}

/// `ln (Σ exp x / n)` of each group of `n`.
fn log_means(values: &[f64], n: usize) -> Vec<f64> {
    let log_mean = |group: &[f64]| {
        let most = group.iter().copied().fold(f64::MIN, f64::max);
        most + mean(&group.iter().map(|x| (x - most).exp()).collect::<Vec<_>>()).ln()
    };
    values.chunks(n).map(log_mean).collect()
}

/// `v = z/scale − shift` with standard normal `z`: the probability of a bin is a difference of normal
/// distribution functions.
#[test]
fn the_bound_is_below_a_known_probability_and_importance_weights_close_it() {
    let (shift, scale, draws) = (0.1_f64, 4.0_f64, 1 << 14);
    for couplings in [0, 2] {
        let mut file = ModelFile::of(Toy { couplings }, 0).unwrap();
        perturb(&mut file, 0.03);
        for (name, value) in [("step.actnorm.bias", shift), ("step.actnorm.logs", scale.ln() / 3.0)] {
            let at = file.layout().parameters.iter().find(|p| p.name == name).unwrap().span.start;
            file.weights[at] = value as f32;
        }
        let model = Model::on(F64::new(), &file);
        let bins = [3_u8, 14, 17, 30];
        let edge = |q: u8| (f64::from(q) / 32.0 - 0.5 + shift) * scale;
        let log_probability: f64 = bins.iter().map(|&q| probability(edge(q), edge(q + 1)).ln()).sum();
        let images = bins.map(|q| q << 3).repeat(draws);
        let images = Array4::from_shape_vec((draws, 2, 2, 1), images).unwrap();
        let noise = Dequantization::Variational { seed: 1 };
        let bounds = model.encode(images.view(), &[], noise).unwrap().log_density;
        let gap = |k: usize| log_probability - mean(&log_means(&bounds, k));
        let (one, most) = (gap(1), gap(4096));
        println!("{couplings} couplings: gaps {one:.5}, {:.5}, {:.5}, {most:.5}", gap(4), gap(16));
        assert!(one > 0.003, "the gap of one draw is {one}");
        assert!(gap(4) < one && gap(16) < gap(4), "{} and {} of {one}", gap(4), gap(16));
        assert!(most.abs() < 2e-3, "the gap of 4096 draws is {most}");
    }
}

/// The model's own noise, bin centres and typical noise all decode to the original pixels.
#[test]
fn a_thousand_of_a_thousand_images_decode() {
    let image = [8, 8, 3];
    let images = pixels(1000, image, 9);
    for (bits, couplings) in [(8, 4), (5, 0)] {
        let mut file = ModelFile::new(GlowConfig { bits, ..glow(image, couplings) }, 0).unwrap();
        perturb(&mut file, 0.3);
        let model = Model::on(Cpu::<f32>::new(), &file);
        let trip = model.round_trip(images.view(), &[]).unwrap();
        assert_eq!(trip.exact.iter().filter(|&&exact| exact).count(), 1000);
        let worst = trip.errors.iter().copied().fold(0.0, f64::max);
        assert!(worst < 1e-4 && worst > 0.0, "{worst}");
        // The typical point differs from the centre, and its density is that of its latents.
        let [typical, centre] = [Dequantization::Typical, Dequantization::Midpoint]
            .map(|noise| model.encode(images.view(), &[], noise).unwrap());
        assert_ne!(typical.latents, centre.latents);
        assert_eq!(typical.latents, trip.encoded.latents);
        assert!(model.comes_back(images.view(), &typical.latents, &[]).unwrap().iter().all(|&back| back));
        assert!(model.comes_back(images.view(), &centre.latents, &[]).unwrap().iter().all(|&back| back));
    }
}

/// Without a dequantiser, typical noise equals the centre, bit for bit.
#[test]
fn without_a_dequantizer_typical_noise_is_the_centre() {
    let image = [8, 8, 3];
    let config = GlowConfig { dequantization: DequantizationType::Uniform, ..glow(image, 0) };
    assert_eq!(config.noise(), NoiseKind::Uniform);
    let model = Model::on(Cpu::<f32>::new(), &ModelFile::new(config, 0).unwrap());
    let images = pixels(5, image, 2);
    let encode = |noise| model.encode(images.view(), &[], noise);
    let [typical, centre] =
        [Dequantization::Typical, Dequantization::Midpoint].map(|noise| encode(noise).unwrap());
    assert_eq!((typical.latents, typical.log_density), (centre.latents, centre.log_density));
    let error = encode(Dequantization::Variational { seed: 0 }).unwrap_err().to_string();
    assert!(error.contains("no variational dequantisation"), "{error}");
    let draws = Draws::mean(NoiseKind::Variational, 1, 0);
    assert!(model.bits_per_dim(images.view(), &[], draws).is_err());
}

/// Scores with the model's noise: labels, the mean of the draws, and importance-weighted bounds that decrease
/// with k.
#[test]
fn variational_scores_are_labelled() {
    let mut file = ModelFile::new(glow([8, 8, 3], 2), 0).unwrap();
    perturb(&mut file, 0.05);
    let noise = file.config.noise();
    assert_eq!(noise, NoiseKind::Variational);
    let model = Model::on(Cpu::<f32>::new(), &file);
    let images = pixels(6, [8, 8, 3], 3);
    let bits = |draws| mean(&model.bits_per_dim(images.view(), &[], draws).unwrap());
    let importance = |draws| Draws::Importance { noise, draws, seed: 2 };
    let (mean, one) = (Draws::mean(noise, 16, 2), Draws::mean(noise, 1, 2));
    assert_eq!(mean.to_string(), "variational bound (16 draws)");
    assert_eq!((mean.dequantization(), mean.bound(), mean.count()), ("variational", "variational", 16));
    assert_eq!(importance(4).to_string(), "importance-weighted bound, k = 4, variational noise");
    assert_eq!((importance(4).dequantization(), importance(4).importance()), ("variational", Some(4)));
    assert!((bits(one) - bits(importance(1))).abs() < 1e-12);
    assert!(bits(importance(16)) < bits(importance(4)) && bits(importance(16)) < bits(mean));
    assert_ne!(bits(one), bits(Draws::mean(NoiseKind::Uniform, 1, 2)));
}

/// An image's typical latents have the same bits in any batch.
#[test]
fn typical_latents_do_not_depend_on_the_batch() {
    let image = [8, 8, 3];
    let mut file = ModelFile::new(glow(image, 4), 0).unwrap();
    perturb(&mut file, 0.2);
    let model = Model::on(Cpu::<f32>::new(), &file);
    let images = pixels(7, image, 3);
    let together = model.encode(images.view(), &[], Dequantization::Typical).unwrap();
    for (i, image) in images.outer_iter().enumerate() {
        let alone = model.encode(image.insert_axis(ndarray::Axis(0)), &[], Dequantization::Typical).unwrap();
        for (alone, together) in alone.latents.0.iter().zip(&together.latents.0) {
            assert_eq!(alone.index_axis(ndarray::Axis(0), 0), together.index_axis(ndarray::Axis(0), i));
        }
    }
}

#[test]
fn a_gpu_agrees() {
    let image = [4, 6, 3];
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 1e-2)] {
        let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, precision, folders));
        let Some(gpu) = gpu else { return };
        for (couplings, deviation) in [(0, 0.15), (2, 0.0), (3, 0.15)] {
            let mut file = ModelFile::new(glow(image, couplings), 0).unwrap();
            perturb(&mut file, deviation);
            let images = pixels(3, image, 6);
            let [cpu, gpu] =
                [densities(Cpu::<f32>::new(), &file, &images), densities(gpu.clone(), &file, &images)];
            for (have, want) in gpu.concat().iter().zip(cpu.concat()) {
                assert!((have - want).abs() < tolerance * want.abs(), "{precision:?}: {have}, not {want}");
            }
        }
    }
}
