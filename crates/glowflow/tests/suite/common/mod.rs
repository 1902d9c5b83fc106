//! Untrained models and short training runs, shared by several tests.

pub mod ranks;
pub mod training;

use std::sync::atomic::AtomicBool;

use glowflow::{GlowConfig, Model, ModelFile};
use glowflow_kernels::Cpu;

/// The stop flag of runs that nothing stops.
pub static NEVER: AtomicBool = AtomicBool::new(false);

pub fn config() -> GlowConfig {
    GlowConfig { image: [32, 32, 3], levels: 2, steps: 4, hidden: 8, ..GlowConfig::default() }
}

/// A model of 32×32 images with non-trivial couplings. Its inversion error increases with `by`: at 0.05 it is
/// exact, at 3 poor.
pub fn model_file(by: f32) -> ModelFile {
    let mut file = ModelFile::new(config(), 0).unwrap();
    for parameter in &file.layout().parameters {
        if parameter.name.contains("conv3") {
            let weights = &mut file.weights[parameter.span.range()];
            weights
                .iter_mut()
                .enumerate()
                .for_each(|(i, w)| *w += by * ((i * 37 % 101) as f32 / 100.0 - 0.5));
        }
    }
    file
}

pub fn glow(file: &ModelFile) -> Model {
    Model::on(Cpu::new(), file)
}
