//! Minimum memory of a model, to reject one that cannot fit before anything is allocated.

use glowflow_data::available_memory;
use glowflow_kernels::Cpu;

use super::file::layout;
use super::flow::Backprop;
use crate::flow::FlowBuilder;
use crate::models::Architecture;
use crate::params::{ConstantType, Source};
use crate::train::TrainConfig;
use crate::{Error, Precision};

/// Bytes per single-precision number.
const F32: u128 = 4;
/// Weights, gradient, two moments, and average.
const STATE_COPIES: u128 = 5;
/// A checkpoint during saving, on the host: weights, two moments and average, as state, as tensors and as
/// bytes of the file.
const SAVE_COPIES: u128 = 3 * 4;
/// A square matrix in f64 and the factors of its decomposition, during the generation of a rotation.
const ROTATION_COPIES: u128 = 3;
/// Minimum numbers per image value: flow variables, gradients, patches of convolutions. A step of a Glow was
/// measured to need 35 to 40.
const VARIABLE_COPIES: u128 = 32;

/// The name of [`SAVE_COPIES`] in messages.
const SAVED: &str = "a checkpoint that is being saved";

/// Number of trained parameters.
pub fn parameters(config: &impl Architecture) -> u128 {
    layout(config).len() as u128
}

/// Multiply-adds of a forward pass per image.
pub fn multiply_adds(config: &impl Architecture) -> u128 {
    FlowBuilder::<Cpu<f32>>::build(config, Source::Layout).multiply_adds()
}

/// Checks that a model's weights fit into the available memory.
///
/// # Errors
/// [`Error::Config`] with the required memory.
pub fn check_weights(config: &impl Architecture) -> Result<(), Error> {
    let weights = F32 * parameters(config);
    check("this model", config, &[(weights, format!("{} parameters", parameters(config))), rotation(config)])
}

/// Checks that a checkpoint of a device with its own memory fits into the host's memory during saving.
///
/// # Errors
/// [`Error::Config`] with the required memory.
pub fn check_state(config: &impl Architecture) -> Result<(), Error> {
    let parameters = parameters(config);
    let save = (SAVE_COPIES * F32 * parameters, format!("{parameters} parameters in {SAVED}"));
    check("training this model", config, &[save, rotation(config)])
}

/// Checks that training fits on a device that uses the host's memory, as one of `ranks` processes.
/// `has_state`: the state is in memory already.
///
/// # Errors
/// [`Error::Config`] with the sum.
pub fn check_training(
    model: &impl Architecture,
    train: &TrainConfig,
    ranks: usize,
    has_state: bool,
) -> Result<(), Error> {
    let part = train.batch.div_ceil(train.accumulate.max(1));
    let activations = (activations(model, train), format!("activations of {part} images"));
    let subtotals = subtotals(model, train.accumulate / ranks.max(1));
    if has_state {
        let save = SAVE_COPIES * F32 * parameters(model);
        return check("training this model", model, &[(save, SAVED.to_owned()), subtotals, activations]);
    }
    check("training this model", model, &[state(model), subtotals, rotation(model), activations])
}

/// Subtotals of the gradient of this number of parts: one per level of their tree.
fn subtotals(config: &impl Architecture, parts: usize) -> (u128, String) {
    let levels = parts.max(1).ilog2();
    (u128::from(levels) * F32 * parameters(config), format!("gradients of {parts} parts"))
}

fn state(config: &impl Architecture) -> (u128, String) {
    let parameters = parameters(config);
    let bytes = (STATE_COPIES + SAVE_COPIES) * F32 * parameters;
    (bytes, format!("{parameters} parameters with gradient, moments, average and {SAVED}"))
}

/// The largest rotation generated for a new model; a 1×1 convolution in LU form has one, recognised by its
/// signs.
fn rotation(config: &impl Architecture) -> (u128, String) {
    let signs = layout(config).constants.into_iter().filter(|constant| constant.kind == ConstantType::Signs);
    let channels = signs.map(|signs| signs.len as u128).max().unwrap_or(0);
    (ROTATION_COPIES * 8 * channels * channels, format!("a rotation of {channels} channels"))
}

/// The hidden activations of one network, or of all if they are saved, and the flow variables.
fn activations(model: &impl Architecture, train: &TrainConfig) -> u128 {
    let part = train.batch.div_ceil(train.accumulate.max(1)) as u128;
    let number = if train.precision == Precision::Bf16 { 2 } else { F32 };
    let flow = FlowBuilder::<Cpu<f32>>::build(model, Source::Layout);
    let of_layer =
        |(&numbers, &full): (&usize, &usize)| part * (number * (numbers - full) as u128 + F32 * full as u128);
    let layers = flow.activations().iter().zip(flow.full_activations()).map(of_layer);
    let hidden: u128 = match train.backprop {
        Backprop::Reversible => layers.max().unwrap_or(0),
        Backprop::Stored => layers.sum(),
    };
    hidden + VARIABLE_COPIES * F32 * part * model.dimensions() as u128
}

fn check(what: &str, model: &impl Architecture, parts: &[(u128, String)]) -> Result<(), Error> {
    match available_memory() {
        Some(available) => compare(what, model, parts, available),
        None => Ok(()),
    }
}

fn compare(
    what: &str,
    model: &impl Architecture,
    parts: &[(u128, String)],
    available: u64,
) -> Result<(), Error> {
    let sum: u128 = parts.iter().map(|(bytes, _)| bytes).sum();
    if sum <= u128::from(available) {
        return Ok(());
    }
    let parts: Vec<_> = parts.iter().filter(|(bytes, _)| *bytes > 0).collect();
    let parts: Vec<_> = parts.iter().map(|(bytes, of)| format!("{} for {of}", spell(*bytes))).collect();
    let keys: String = model.size_keys().iter().map(|key| format!("model.{key}, ")).collect();
    Err(Error::Config(format!(
        "{what} needs at least {} of memory, {}; {} are available. To need less, reduce {keys}model.image or train.batch",
        spell(sum),
        parts.join(", "),
        spell(u128::from(available))
    )))
}

/// Formats a number of bytes in the largest suitable unit.
fn spell(bytes: u128) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CouplingType, GlowConfig, ModelConfig, ModelFile, NetworkType, NiceConfig, PermutationType};

    #[test]
    fn parts_need_a_buffer_for_each_level_of_their_tree() {
        let config =
            GlowConfig { image: [16, 16, 3], levels: 1, steps: 1, hidden: 4, ..GlowConfig::default() };
        let weights = F32 * parameters(&config);
        for (parts, buffers) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (7, 2), (8, 3)] {
            assert_eq!(subtotals(&config, parts).0, buffers * weights, "{parts} parts");
        }
    }

    #[test]
    fn parameters_are_counted_as_they_are_laid_out() {
        let base = GlowConfig { image: [16, 8, 3], levels: 2, steps: 2, hidden: 5, ..GlowConfig::default() };
        for config in [
            base.clone(),
            GlowConfig { levels: 1, classes: 3, ..base.clone() },
            GlowConfig { coupling: CouplingType::Additive, ..base.clone() },
            GlowConfig { permutation: PermutationType::Shuffle, image: [16, 8, 1], ..base.clone() },
            GlowConfig { permutation: PermutationType::Reverse, levels: 3, classes: 1, ..base },
        ] {
            let count = ModelFile::new(config.clone(), 0).unwrap().weights.len();
            assert_eq!(parameters(&config), count as u128, "{config:?}");
        }
    }

    /// Only products are in bf16: in a residual block, the `3·hidden` inputs of its last one.
    #[test]
    fn activations_in_single_precision_count_as_such() {
        let of = |config: &GlowConfig, precision: Precision| {
            let train =
                TrainConfig { batch: 1, backprop: Backprop::Stored, precision, ..TrainConfig::default() };
            activations(config, &train)
        };
        let saved =
            |config: &GlowConfig| [Precision::F32, Precision::Bf16].map(|precision| of(config, precision));
        let base = GlowConfig { image: [16, 16, 3], levels: 1, steps: 2, hidden: 8, ..GlowConfig::default() };
        let pixels = 2 * 8 * 8;
        let [full, narrow] = saved(&base);
        assert_eq!(full - narrow, 2 * pixels * 2 * 8);
        let residual = GlowConfig { network: NetworkType::Residual, network_blocks: 3, ..base };
        for config in [GlowConfig { attention: 2, ..residual.clone() }, residual] {
            let [full, narrow] = saved(&config);
            assert_eq!(full - narrow, 2 * pixels * 3 * 24, "{config:?}");
        }
    }

    /// Peak memory of a run on the CPU: the state, and three copies of it while a checkpoint is saved.
    #[test]
    fn a_checkpoint_being_saved_is_counted() {
        let model = GlowConfig::default();
        let (bytes, what) = state(&model);
        assert_eq!(bytes, 17 * 4 * parameters(&model));
        let message = compare("it", &model, &[(bytes, what)], bytes as u64 - 1).unwrap_err().to_string();
        assert!(message.contains("average and a checkpoint that is being saved"), "{message}");
    }

    #[test]
    fn maximum_sizes_do_not_overflow() {
        let model: ModelConfig = GlowConfig {
            image: [1 << 16, 1 << 16, 64],
            levels: 12,
            steps: 1 << 12,
            hidden: 1 << 14,
            classes: 1 << 20,
            ..GlowConfig::default()
        }
        .into();
        model.validate().unwrap();
        let train = TrainConfig { batch: usize::MAX, backprop: Backprop::Stored, ..TrainConfig::default() };
        let parts = [state(&model), (activations(&model, &train), "it".into())];
        let message = compare("it", &model, &parts, 1 << 34).unwrap_err().to_string();
        assert!(message.contains("16.0 GiB are available"), "{message}");
        assert!(
            message.ends_with("reduce model.hidden, model.steps, model.levels, model.image or train.batch")
        );
        assert!(compare("it", &model, &[(1 << 34, "it".into())], 1 << 34).is_ok());
        let wide =
            NiceConfig { image: [4096, 4096, 1], layers: 0, couplings: 1 << 10, ..NiceConfig::default() };
        wide.validate().unwrap();
        let message = compare("it", &wide, &[state(&wide)], 1 << 34).unwrap_err().to_string();
        assert!(message.contains("EiB") && message.contains("model.layers, model.couplings"), "{message}");
        let wider = NiceConfig { image: [8192, 4096, 1], ..wide };
        assert!(wider.validate().unwrap_err().to_string().contains("33554432 values"));
    }
}
