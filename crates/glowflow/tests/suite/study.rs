//! Studies as configurations: the built-in ones, precedence, and the schedule of evaluations.

use std::path::PathBuf;
use std::sync::Arc;

use glowflow::study::{Budget, Overrides, Scale, Study, builtin_names};
use glowflow::train::{EdgeType, hold_out};
use glowflow::{CouplingType, GlowConfig, ModelConfig, PermutationType};
use glowflow_data::portraits::Portraits;

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

/// Precedence: defaults, preset, base, configuration, overrides.
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

    let set = ["data.flip=true", "data.edge=reflect", "train.warmup=9"].map(String::from);
    let data = PathBuf::from("portraits");
    let overrides = Overrides { data: Some(&data), set: &set, ..Overrides::default() };
    let study = Study::read(file.path(), overrides).unwrap();
    let [a, b] = [0, 1].map(|index| study.run_config(index, 1));
    // `steps` of the preset, `hidden` of the base or of the configuration.
    let [first, second] = [&a, &b].map(|run| glow(&run.model));
    assert_eq!((first.steps, first.hidden, second.steps, second.hidden), (4, 16, 8, 24));
    assert_eq!((a.train.lr, a.train.warmup, b.train.warmup, b.train.seed), (0.5, 9, 9, 1));
    assert_eq!(study.data(), Some(&*data));
    assert_eq!((a.data.flip, a.data.edge, b.data.edge), (true, EdgeType::Reflect, EdgeType::Reflect));
    // Evaluations follow equal numbers of images, although batches differ.
    assert_eq!((a.train.batch, b.train.batch, study.evaluate_every()), (32, 16, Some(128)));
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
    assert_eq!((study.evaluate_every(), study.run_config(0, 0).train.eval_every), (Some(384), 6));

    // Another number of images has the same number of evaluations; minutes keep their interval.
    let evaluate_every = |budget| {
        let overrides = Overrides { budget: Some(budget), ..Overrides::default() };
        Study::builtin("permutations", Scale::Cpu, overrides).unwrap().evaluate_every().unwrap()
    };
    let images = builtin("permutations", Scale::Cpu).images(0).unwrap();
    assert_eq!(evaluate_every(Budget::Images(6400)), 640);
    assert_eq!(evaluate_every(Budget::Steps(20)), 2 * 64);
    assert_eq!(evaluate_every(Budget::Minutes(1.0)), images / 10);
}

#[test]
fn a_flow_counts_its_multiply_adds() {
    let study = |model: &str| {
        let text = format!(
            "name = 'count'\nseeds = [0]\nimages = 64\nevaluations = 1\nconfigurations = [{{ name = 'a', model = {model} }}]"
        );
        study(&text).unwrap()
    };
    // The published CIFAR-10 model. For C channels: a network of 9(C/2+1)·512 + 512² + 9·513·C, a 1×1
    // convolution of C², and at the end of a level a zero convolution of 9(C/2+1)·C.
    let level = |pixels: u64, c: u64, split: u64| {
        let step = 9 * (c / 2 + 1) * 512 + 512 * 512 + 9 * 513 * c + c * c;
        pixels * (32 * step + split * 9 * (c / 2 + 1) * c)
    };
    let expected = level(256, 12, 1) + level(64, 24, 1) + level(16, 48, 0);
    let glow = study("{ levels = 3, steps = 32, hidden = 512 }");
    assert_eq!(glow.multiply_adds(0), u128::from(expected));
    assert_eq!(expected, 4_062_663_168);
    assert_eq!(glow.flops_per_image(0), 6.0 * expected as f64);

    // Fixed permutations need no multiplications.
    let step = 9 * 3 * 5 + 5 * 5 + 9 * 6 * 4;
    let small = study("{ image = [4, 4, 1], levels = 1, steps = 2, hidden = 5, permutation = 'shuffle' }");
    assert_eq!(small.multiply_adds(0), 4 * 2 * step);

    // 28·28 values in halves of 392: four perceptrons 392 → 10 → 10 → 392.
    let nice =
        study("{ architecture = 'nice', image = [28, 28, 1], couplings = 4, layers = 2, hidden = 10 }");
    assert_eq!(nice.multiply_adds(0), 4 * (2 * 392 * 10 + 10 * 10));

    // One level: 4 checkerboard couplings of 3 channels, each with one residual block of 2 channels.
    let block = 2 * 9 * 2 * 2;
    let coupling = 9 * 7 * 2 + block + 2 * 2 * 2 + 2 * 6;
    let realnvp =
        study("{ architecture = 'realnvp', image = [8, 8, 3], levels = 1, blocks = 1, hidden = 2 }");
    assert_eq!(realnvp.multiply_adds(0), 64 * 4 * coupling);
}

/// Two configurations that differ in width, and the keys of a comparison.
fn compared(budget: &str) -> Result<Study, glowflow::Error> {
    study(&format!(
        "name = 'compared'
        seeds = [0, 5]
        {budget}
        base = {{ model = {{ image = [16, 16, 3], levels = 1, steps = 1 }}, train = {{ batch = 4 }} }}
        configurations = [
            {{ name = 'narrow', model = {{ hidden = 8 }} }},
            {{ name = 'wide', model = {{ hidden = 64 }}, train = {{ batch = 8 }} }},
        ]"
    ))
}

#[test]
fn a_budget_of_flops_is_equal_work() {
    let study = compared("flops = 1e11\nevaluations = 3").unwrap();
    for index in [0, 1] {
        let steps = study.steps(index).unwrap();
        let batch = study.run_config(index, 0).train.batch as f64;
        let step = study.flops_per_image(index) * batch;
        assert!((steps as f64 * step - 1e11).abs() <= step / 2.0, "{index}: {steps}");
        assert_eq!(study.run_config(index, 0).train.eval_every, steps.div_ceil(3));
    }
    assert!(study.images(0).unwrap() > 3 * study.images(1).unwrap());
    assert_eq!(study.evaluate_every(), None);
    let text = study.to_toml().unwrap();
    assert!(text.contains("flops = 100000000000.0") && text.contains("evaluations = 3"), "{text}");
    for (budget, words) in [
        ("flops = -1.0\nevaluations = 1", "flops is -1"),
        ("flops = 1e9\nimages = 5\nevaluations = 1", "several budgets"),
    ] {
        let error = compared(budget).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_baseline_is_trained_with_multiples_of_the_budget() {
    let study = compared("images = 1000\nevaluations = 5\ncurve = [4, 0.5, 2]\ncurve_seeds = 1").unwrap();
    let runs: Vec<_> = study.runs().iter().map(|run| (run.configuration, run.seed, run.multiple)).collect();
    assert_eq!(
        runs,
        [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 1.0), (1, 5, 1.0), (0, 0, 0.5), (0, 0, 2.0), (0, 0, 4.0)]
    );
    let steps: Vec<_> =
        study.runs().into_iter().map(|run| study.config_of(run).train.steps.unwrap()).collect();
    assert_eq!(steps, [250, 125, 250, 125, 125, 500, 1000]);
    let again = self::study(&study.to_toml().unwrap()).unwrap();
    assert_eq!((again.to_toml().unwrap(), again.runs()), (study.to_toml().unwrap(), study.runs()));

    for (keys, words) in [
        ("curve = [0]", "curve holds 0"),
        ("curve = [-1.5]", "curve holds -1.5"),
        ("curve = [1]\ncurve_seeds = 0", "curve_seeds is 0"),
        ("curve = [1]\nscore_images = 0", "score_images is 0"),
        ("score_images = 10", "score_images is 10, but there is no curve"),
    ] {
        let error = compared(&format!("images = 100\nevaluations = 1\n{keys}")).unwrap_err().to_string();
        assert!(error.contains(words), "{keys}: {error}");
    }
}

#[test]
fn arms_are_selected_with_the_baseline() {
    let select = |arms: &[&str], curve: Option<&[f64]>| {
        let arms: Vec<_> = arms.iter().map(|arm| (*arm).to_owned()).collect();
        let overrides = Overrides { arms: Some(&arms), curve, ..Overrides::default() };
        Study::builtin("permutations", Scale::Cpu, overrides)
    };
    let trained = |study: Study| {
        let mut trained: Vec<_> = study.runs().iter().map(|run| run.configuration).collect();
        trained.dedup();
        trained.truncate(2);
        trained
    };
    assert_eq!(trained(select(&["conv1x1-affine"], None).unwrap()), [5]);
    assert_eq!(trained(select(&["conv1x1-affine"], Some(&[1.0])).unwrap()), [0, 5]);
    let all = select(&["conv1x1-affine"], None).unwrap().to_toml().unwrap();
    assert_eq!(all, builtin("permutations", Scale::Cpu).to_toml().unwrap(), "the folder is that of all arms");
    let error = select(&["conv"], None).unwrap_err().to_string();
    assert!(
        error.contains("unknown configuration \"conv\"") && error.contains("reverse-additive"),
        "{error}"
    );
    assert!(select(&["reverse-affine", "reverse-affine"], None).is_err());
}

/// Minutes are converted to steps if work is compared, or a schedule ends.
#[test]
fn a_schedule_with_an_end_is_calibrated() {
    let minutes = "minutes = 1\nevaluate_every = 64\n";
    assert!(!compared(minutes).unwrap().is_calibrated());
    assert!(compared(&format!("{minutes}curve = [1]")).unwrap().is_calibrated());
    let cosine = compared(minutes).unwrap().to_toml().unwrap().replace("\"constant\"", "\"cosine\"");
    assert!(study(&cosine).unwrap().is_calibrated());
    assert!(!compared("images = 100\nevaluations = 1\ncurve = [1]").unwrap().is_calibrated());
    let evaluations = compared("minutes = 1\nevaluations = 4\ncurve = [1]").unwrap();
    assert_eq!((evaluations.evaluate_every(), evaluations.steps(0)), (None, None));
}

#[test]
fn a_configuration_may_set_its_augmentation() {
    let text = |data: &str| {
        format!(
            "name = 'data'\nseeds = [0]\nimages = 64\nevaluations = 1\nbase = {{ data = {{ path = 'portraits', flip = true }} }}
            configurations = [{{ name = 'a' }}, {{ name = 'b', data = {{ {data} }} }}]"
        )
    };
    let study = study(&text("flip = false, shift = 0.1")).unwrap();
    let [a, b] = [0, 1].map(|index| study.run_config(index, 0).data);
    assert_eq!((a.flip, a.shift, b.flip, b.shift), (true, 0.0, false, 0.1));
    assert_eq!(a.path, b.path);
    let resolved = study.to_toml().unwrap();
    let again = self::study(&resolved).unwrap();
    assert_eq!((again.to_toml().unwrap(), again.run_config(1, 0).data), (resolved, b));
    let error = self::study(&text("test_fraction = 0.5")).unwrap_err().to_string();
    assert!(error.contains("[data] is"), "{error}");
}

#[test]
fn the_speedrun_is_a_comparison() {
    for scale in [Scale::Cpu, Scale::Gpu] {
        let study = builtin("speedrun", scale);
        assert!(study.is_calibrated());
        let curve = &study.baseline.as_ref().unwrap().curve;
        assert!(curve.contains(&1.0) && curve.contains(&0.5) && curve.contains(&4.0), "{curve:?}");
        assert_eq!(study.configurations[0].name, "glow");
    }
}

/// Arms with residual networks need at most the baseline's multiply-adds; attention is the only difference of
/// its arm.
#[test]
fn residual_arms_of_the_speedrun_fit_the_baseline() {
    for (scale, least) in [(Scale::Cpu, 0.97), (Scale::Gpu, 0.93)] {
        let study = builtin("speedrun", scale);
        let arm = |name: &str| study.configurations.iter().position(|arm| arm.name == name).unwrap();
        let [baseline, residual, attention] = ["glow", "residual", "residual-attention"].map(arm);
        let config = |index: usize| glow(&study.configurations[index].run.model).clone();
        assert_eq!(config(residual), GlowConfig { attention: 0, ..config(attention) });
        let [all, base] = [attention, baseline].map(|index| study.multiply_adds(index) as f64);
        assert!((least..1.0).contains(&(all / base)), "{scale:?}: {}", all / base);
    }
}

/// Seeds differ in weights, noise and order, and not in the images that they are evaluated on.
#[test]
fn all_seeds_hold_out_the_same_images() {
    let text = |data: &str| {
        format!(
            "name = 'seeds'\nseeds = [3, 4]\nimages = 64\nevaluations = 1\nbase = {{ data = {{ path = 'portraits'{data} }} }}
            configurations = [{{ name = 'a' }}]"
        )
    };
    let test_seeds = |data: &str| {
        let study = study(&text(data)).unwrap();
        [3, 4].map(|seed| {
            let config = study.run_config(0, seed);
            (config.train.seed, config.data.test_seed)
        })
    };
    assert_eq!(test_seeds(""), [(3, Some(3)), (4, Some(3))]);
    assert_eq!(test_seeds(", test_seed = 7"), [(3, Some(7)), (4, Some(7))]);

    let held_out = |seed: u64, test_seed: Option<u64>| {
        let mut config = study(&text("")).unwrap().run_config(0, seed);
        config.data.test_seed = test_seed;
        let (_, test) = hold_out(&config, Arc::new(Portraits::new(200, 16, 0))).unwrap();
        let test = test.unwrap();
        (0..test.len()).map(|index| test.name(index)).collect::<Vec<_>>()
    };
    assert_eq!(held_out(3, Some(3)), held_out(4, Some(3)));
    assert_eq!(held_out(3, Some(3)), held_out(3, None));
    assert_ne!(held_out(3, None), held_out(4, None));
}
