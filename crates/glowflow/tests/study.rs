//! Studies as configurations: the built-in ones, precedence, and the schedule of evaluations.

use std::path::PathBuf;

use glowflow::study::{Budget, Overrides, Scale, Study, builtin_names};
use glowflow::{CouplingType, GlowConfig, ModelConfig, PermutationType};

/// A study from its TOML.
fn study(text: &str) -> Result<Study, glowflow::Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Study::read(file.path(), Overrides::default())
}

fn glow(model: &ModelConfig) -> &GlowConfig {
    match model {
        ModelConfig::Glow(glow) => glow,
        other => panic!("{other:?} is not a Glow"),
    }
}

fn builtin(name: &str, scale: Scale) -> Study {
    Study::builtin(name, scale, Overrides::default()).unwrap()
}

#[test]
fn permutations_are_those_of_figure_3() {
    for scale in [Scale::Cpu, Scale::Gpu] {
        let study = builtin("permutations", scale);
        let kinds: Vec<_> = study
            .configurations
            .iter()
            .map(|named| glow(&named.run.model))
            .map(|glow| (glow.permutation, glow.coupling))
            .collect();
        let (additive, affine) = (CouplingType::Additive, CouplingType::Affine);
        use PermutationType::{Conv1x1, Reverse, Shuffle};
        assert_eq!(
            kinds,
            [
                (Reverse, additive),
                (Reverse, affine),
                (Shuffle, additive),
                (Shuffle, affine),
                (Conv1x1, additive),
                (Conv1x1, affine)
            ]
        );
        assert_eq!(study.seeds, [0, 1, 2]);
        assert_eq!(study.images(0), study.images(5));
    }
}

#[test]
fn realnvp_and_glow_have_equal_parameters() {
    for scale in [Scale::Cpu, Scale::Gpu] {
        let study = builtin("realnvp-vs-glow", scale);
        let [realnvp, glow] = [0, 1].map(|index| study.parameters(index) as f64);
        assert!((glow / realnvp - 1.0).abs() <= 0.02, "{realnvp} {glow}");
        assert_eq!(study.images(0), study.images(1));
    }
}

#[test]
fn an_unknown_study_names_the_known_ones() {
    let error = Study::builtin("permutation", Scale::Cpu, Overrides::default()).unwrap_err().to_string();
    assert!(builtin_names().iter().all(|name| error.contains(name)), "{error}");
}

/// Defaults, preset, base, configuration, overrides.
#[test]
fn later_layers_win() {
    let text = "
        name = 'layers'
        seeds = [1]
        steps = 8
        evaluations = 2
        base = { preset = 'tiny32', model = { hidden = 24 }, train = { lr = 0.5, warmup = 7 } }
        configurations = [
            { name = 'a', model = { hidden = 16 } },
            { name = 'b', preset = 'faces32', train = { batch = 16 } },
        ]";
    let file = tempfile::NamedTempFile::new().unwrap();
    // The presets differ in `data.flip`.
    std::fs::write(file.path(), text).unwrap();
    let error = Study::read(file.path(), Overrides::default()).unwrap_err().to_string();
    assert!(error.contains("[data] is") && error.contains("in [base]"), "{error}");

    let set = ["data.flip=true".to_owned(), "train.warmup=9".to_owned()];
    let data = PathBuf::from("portraits");
    let overrides = Overrides { data: Some(&data), set: &set, ..Overrides::default() };
    let study = Study::read(file.path(), overrides).unwrap();
    let [a, b] = [0, 1].map(|index| study.run_config(index, 1));
    // `steps` of the preset, `hidden` of the base or the configuration.
    let [first, second] = [&a, &b].map(|run| glow(&run.model));
    assert_eq!((first.steps, first.hidden, second.steps, second.hidden), (4, 16, 8, 24));
    assert_eq!((a.train.lr, a.train.warmup, b.train.warmup, b.train.seed), (0.5, 9, 9, 1));
    assert_eq!(study.data(), Some(&*data));
    // Evaluations after equal numbers of images, though batches differ.
    assert_eq!((a.train.batch, b.train.batch, study.evaluate_every), (32, 16, 128));
    assert_eq!((a.train.eval_every, b.train.eval_every), (4, 8));
}

#[test]
fn the_resolved_study_is_the_same_study() {
    for scale in [Scale::Cpu, Scale::Gpu] {
        let data = PathBuf::from("portraits");
        let overrides = Overrides {
            data: Some(&data),
            seeds: Some(&[5, 2]),
            budget: Some(Budget::Minutes(1.5)),
            ..Overrides::default()
        };
        let text = Study::builtin("permutations", scale, overrides).unwrap().to_toml().unwrap();
        assert_eq!(study(&text).unwrap().to_toml().unwrap(), text);
    }
}

#[test]
fn the_last_evaluation_is_at_the_end() {
    // 1000 images in batches of 64 are 16 steps; 3 evaluations are then 6 steps apart.
    let text = "
        name = 'steps'
        seeds = [0]
        images = 1000
        evaluations = 3
        configurations = [{ name = 'a' }]";
    let study = study(text).unwrap();
    assert_eq!((study.steps(0), study.images(0)), (Some(16), Some(1024)));
    assert_eq!((study.evaluate_every, study.run_config(0, 0).train.eval_every), (384, 6));

    // Another number of images has as many evaluations; minutes keep their distance.
    let evaluate_every = |budget| {
        let overrides = Overrides { budget: Some(budget), ..Overrides::default() };
        Study::builtin("permutations", Scale::Cpu, overrides).unwrap().evaluate_every
    };
    let images = builtin("permutations", Scale::Cpu).images(0).unwrap();
    assert_eq!(evaluate_every(Budget::Images(6400)), 640);
    assert_eq!(evaluate_every(Budget::Steps(20)), 2 * 64);
    assert_eq!(evaluate_every(Budget::Minutes(1.0)), images / 10);
}
