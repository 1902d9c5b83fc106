//! Glow with a final prior that depends on the border: key, files and training.

use glowflow::flow::{Context, Mode};
use glowflow::model::Flow;
use glowflow::params::Parameter;
use glowflow::train::{RunConfig, Trainer};
use glowflow::{Backprop, Dequantization, GlowConfig, Model, ModelConfig, ModelFile, PriorType};
use glowflow_kernels::Precision;
use glowflow_kernels::{Cpu, Cuda, Operations};
use ndarray::Array4;

/// A model that trains in milliseconds.
fn config(overrides: &[&str]) -> RunConfig {
    let base = [
        "model.image=[16,16,3]",
        "model.levels=2",
        "model.steps=1",
        "model.hidden=8",
        "train.batch=4",
        "train.warmup=1",
        "train.lr=4e-3",
        "data.path=portraits",
    ];
    let overrides: Vec<String> = base.iter().chain(overrides).map(|text| text.to_string()).collect();
    RunConfig::resolve(None, None, &overrides).unwrap()
}

fn pixels() -> Vec<u8> {
    (0..4 * 16 * 16 * 3_usize).map(|i| ((i * i) % 251) as u8).collect()
}

fn edge(file: &ModelFile) -> Parameter {
    file.layout().parameters.into_iter().find(|parameter| parameter.name == "prior.edge").unwrap()
}

#[test]
fn the_key_is_written_only_if_it_is_used() {
    let json = |prior| {
        let config = ModelConfig::from(GlowConfig { prior, ..GlowConfig::default() });
        serde_json::to_string(&config).unwrap()
    };
    assert!(!json(PriorType::Channel).contains("prior"));
    assert!(json(PriorType::Edge).contains(r#""prior":"edge","classes":0"#));
    for (text, want) in [("channel", PriorType::Channel), ("edge", PriorType::Edge)] {
        let ModelConfig::Glow(glow) = config(&[&format!("model.prior={text}")]).model else {
            panic!("not a Glow");
        };
        assert_eq!(glow.prior, want);
    }
}

/// A model after three steps.
fn trained() -> ModelFile {
    let mut trainer = Trainer::new(Cpu::<f32>::new(), config(&["model.prior=edge"])).unwrap();
    trainer.initialize(&pixels(), &[]).unwrap();
    for _ in 0..3 {
        trainer.step(&pixels(), &[]).unwrap();
    }
    trainer.model().unwrap()
}

/// Log-likelihoods of images, and the gradient of the edge term.
fn likelihoods_and_gradient<D: Operations<Real = f32>>(device: &D, file: &ModelFile) -> [Vec<f32>; 2] {
    let flow = Flow::<D>::new(&file.config, &file.constants);
    let (params, buffers) = (device.upload(&file.weights), device.zeros(0));
    let cx = Context { device, params: &params, buffers: &buffers, mode: Mode::Train };
    let v: Vec<f32> = pixels().iter().map(|&pixel| (f32::from(pixel) + 0.5) / 256.0 - 0.5).collect();
    let state = flow.enter(&cx, 4, device.upload(&v), device.zeros(0));
    let forward = flow.forward(&cx, state, Backprop::Reversible);
    let likelihoods = device.download(&forward.state.logp).unwrap()[..4].to_vec();
    let mut gradient = device.zeros(flow.layout.len());
    flow.backward(&cx, forward, -1e-3, &mut gradient);
    [likelihoods, device.download(&gradient).unwrap()[edge(file).span.range()].to_vec()]
}

#[test]
fn a_gpu_computes_the_same() {
    let gpu = cuda_emulator::gpu(|folders| Cuda::with_libraries(0, Precision::F32, folders));
    let Some(gpu) = gpu else { return };
    let file = trained();
    let have = likelihoods_and_gradient(&gpu, &file);
    let want = likelihoods_and_gradient(&Cpu::<f32>::new(), &file);
    for (have, want) in have.iter().zip(&want) {
        let norm = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
        let difference: Vec<f32> = have.iter().zip(want).map(|(have, want)| have - want).collect();
        let error = norm(&difference) / norm(want);
        assert!(error < 1e-4, "{error:e}");
    }
}

#[test]
fn the_edge_term_is_trained_and_saved() {
    let file = trained();
    let edge = edge(&file);
    assert_eq!(edge.shape, [2 * 24, 1, 3, 3]);
    let taps = &file.weights[edge.span.range()];
    assert!(taps.chunks(9).all(|taps| taps[4] == 0.0), "the centre of a window is never outside");
    assert!(taps.chunks(9).all(|taps| (0..9).filter(|&k| k != 4).all(|k| taps[k] != 0.0)));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    file.write(&path).unwrap();
    assert_eq!(ModelFile::read(&path).unwrap(), file);
}

/// With an edge term of `1` for every tap, a latent's mean increases by the number of its neighbours outside
/// the image.
#[test]
fn each_neighbour_outside_adds_its_tap() {
    let config = GlowConfig { image: [8, 8, 1], levels: 1, steps: 1, hidden: 4, ..GlowConfig::default() };
    let plain = ModelFile::new(config.clone(), 0).unwrap();
    let mut with_edge = ModelFile::new(GlowConfig { prior: PriorType::Edge, ..config }, 0).unwrap();
    let edge = edge(&with_edge).span;
    let means = edge.len / 2;
    with_edge.weights[edge.range()][..means].fill(1.0);
    let pixels = Array4::from_shape_fn((1, 8, 8, 1), |(_, y, x, _)| (30 * y + x) as u8);
    let latents = |file: &ModelFile| {
        let model = Model::on(Cpu::<f64>::new(), file);
        model.encode(pixels.view(), &[], Dequantization::Midpoint).unwrap().latents.0.remove(0)
    };
    let difference = latents(&plain) - latents(&with_edge);
    for ((_, y, x, channel), difference) in difference.indexed_iter() {
        let on_border = [y, x].iter().filter(|&&at| at == 0 || at == 3).count();
        let outside = [0.0, 3.0, 5.0][on_border];
        assert!((difference - outside).abs() < 1e-12, "{y}, {x}, channel {channel}: {difference}");
    }
}
