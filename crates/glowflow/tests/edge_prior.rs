//! Glow whose top prior depends on the border: key, files and training.

use glowflow::params::Parameter;
use glowflow::train::{RunConfig, Trainer};
use glowflow::{Dequantization, GlowConfig, Model, ModelConfig, ModelFile, PriorType};
use glowflow_kernels::Cpu;
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

#[test]
fn the_edge_term_is_trained_and_saved() {
    let mut trainer = Trainer::new(Cpu::<f32>::new(), config(&["model.prior=edge"])).unwrap();
    trainer.initialize(&pixels(), &[]).unwrap();
    for _ in 0..3 {
        trainer.step(&pixels(), &[]).unwrap();
    }
    let file = trainer.model().unwrap();
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

/// With an edge term of `1` for every tap, a latent's mean grows by the number of its neighbours outside.
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
