//! RealNVP, NICE and variational dequantisation with every command: train, kill and resume, score, encode and
//! decode, manipulate.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::common::{self, command, outcome, read_image, run};

/// Names and configurations of small models, with learning rates at which they improve within a few steps.
const MODELS: [(&str, &str); 5] = [
    (
        "realnvp",
        "--set model.architecture=realnvp --set model.levels=2 --set model.blocks=1 --set model.hidden=4",
    ),
    (
        "nice",
        "--set model.architecture=nice --set model.couplings=3 --set model.layers=2 --set model.hidden=16",
    ),
    (
        "normal",
        "--set model.architecture=nice --set model.couplings=2 --set model.layers=1 --set model.hidden=8 \
         --set model.prior=normal",
    ),
    (
        "variational",
        "--set model.levels=2 --set model.steps=1 --set model.hidden=8 --set train.warmup=0 --set train.lr=1e-2 \
         --set model.dequantization=variational --set model.dequantization_hidden=8",
    ),
    (
        "variational-realnvp",
        "--set model.architecture=realnvp --set model.levels=2 --set model.blocks=1 --set model.hidden=4 \
         --set model.dequantization=variational --set model.dequantization_couplings=0",
    ),
];

fn train(model: &str, rest: &str) -> String {
    format!(
        "train --threads 2 --data portraits --set model.image=[16,16,3] --set train.batch=8 --set train.eval_images=8 \
         --set train.log_every=1 --set train.checkpoint_every=3 {model} {rest}"
    )
}

/// A folder with a twelve-step run of each model, and samples of each.
fn world() -> &'static Path {
    static WORLD: OnceLock<PathBuf> = OnceLock::new();
    WORLD.get_or_init(|| {
        let folder = common::shared_folder("architectures");
        for (name, model) in MODELS {
            run(&folder, &train(model, &format!("--steps 12 --out {name}"))).ok();
            let pictures = format!("sample --model {name} --count 4 --seed 3 --out-dir {name}-pictures");
            run(&folder, &pictures).ok();
        }
        folder
    })
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Bits/dim in the training records.
fn learned(run: &Path) -> Vec<f64> {
    let metrics = String::from_utf8(bytes(&run.join("metrics.jsonl"))).unwrap();
    let records = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.filter_map(|record| record["train_bits_per_dim"].as_f64()).collect()
}

#[test]
fn both_backprop_modes_train_alike() {
    let folder = tempfile::tempdir().unwrap();
    for (name, model) in MODELS {
        let reversible = learned(&world().join(name));
        assert_eq!(reversible.len(), 12, "{name}");
        assert!(reversible[11] < reversible[0], "{name}: {reversible:?}");
        run(folder.path(), &train(model, &format!("--steps 12 --backprop stored --out {name}"))).ok();
        for (a, b) in reversible.iter().zip(learned(&folder.path().join(name))) {
            assert!((a - b).abs() < 1e-2 * a.abs(), "{name}: {a} reversible, {b} stored");
        }
    }
}

#[test]
fn killed_runs_resume_to_the_same_bytes() {
    for (name, model) in MODELS {
        let folder = tempfile::tempdir().unwrap();
        let mut child = command(folder.path(), &train(model, "--steps 12 --out run"))
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let checkpoint = folder.path().join("run/checkpoint.previous.safetensors");
        let started = Instant::now();
        while !checkpoint.exists() && started.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = child.kill();
        let _ = child.wait();
        run(folder.path(), "train --threads 2 --resume run --steps 12").ok();
        for file in ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl"] {
            let [have, want] =
                [folder.path().join("run"), world().join(name)].map(|run| bytes(&run.join(file)));
            assert!(have == want, "{name}: {file} has other bytes");
        }
    }
}

/// A score must not depend on the other images of a batch, which batch normalisation could cause.
#[test]
fn scores_do_not_depend_on_the_batch() {
    for (name, _) in MODELS {
        let score = |what: &str| {
            run(world(), &format!("score --model {name} --data {what} --dequantization midpoint --json"))
                .ok()
                .stdout
        };
        let all = score(&format!("{name}-pictures"));
        let alone = world().join(format!("{name}-alone"));
        std::fs::create_dir_all(&alone).unwrap();
        std::fs::copy(world().join(format!("{name}-pictures/00002.png")), alone.join("00002.png")).unwrap();
        let one = score(&format!("{name}-alone"));
        let line = |text: &str| text.lines().find(|line| line.contains("00002")).map(str::to_owned);
        assert_eq!(line(&all), line(&one), "{name}");
        assert!(line(&all).is_some(), "{name}: {all}");
    }
}

#[test]
fn pictures_decode_exactly() {
    for (name, _) in MODELS {
        run(world(), &format!("encode --model {name} --data {name}-pictures --out {name}.latents")).ok();
        run(world(), &format!("decode --model {name} --latents {name}.latents --out-dir {name}-back")).ok();
        for i in 0..4 {
            let [have, want] = ["back", "pictures"]
                .map(|folder| read_image(&world().join(format!("{name}-{folder}/0000{i}.png"))));
            assert_eq!(have, want, "{name}: picture {i}");
        }
        let eval = run(world(), &format!("eval --model {name} --data {name}-pictures --json")).ok().json();
        assert!(eval["inverse_error"].as_f64().unwrap() < 1e-4, "{name}: {eval}");
    }
}

#[test]
fn every_command_accepts_them() {
    for (name, _) in MODELS {
        let picture = |i: usize| format!("{name}-pictures/0000{i}.png");
        let (first, second) = (picture(0), picture(1));
        let info = run(world(), &format!("info --model {name} --json")).ok().json();
        let architecture = match name {
            "realnvp" | "variational-realnvp" => "realnvp".into(),
            // A Glow's configuration omits the architecture.
            "variational" => serde_json::Value::Null,
            _ => "nice".into(),
        };
        assert_eq!(info["config"]["architecture"], architecture);
        run(world(), &format!("attributes --model {name} --data portraits --images 60")).ok();
        for line in [
            format!("interpolate --model {name} {first} {second} --frames 3 --out {name}-strip.png"),
            format!("manipulate --model {name} {first} --sweep Smiling --frames 3 --out {name}-smile.png"),
            format!("resample --model {name} {first} --out {name}-details.png"),
            format!("nearest --model {name} {first} --data {name}-pictures --count 2 --out {name}-near.png"),
            format!("info --model {name}"),
        ] {
            run(world(), &line).ok();
        }
    }
}

/// The training noise is the default of every score, and is used by evaluations during training.
#[test]
fn scores_state_variational_dequantization() {
    for (name, _) in MODELS {
        let noise = if name.starts_with("variational") { "variational" } else { "uniform" };
        let eval = |options: &str| {
            run(world(), &format!("eval --model {name} --data portraits --images 8 --invert 0 {options}"))
        };
        let text = eval("").ok().stdout;
        assert!(text.contains(&format!("{noise} bound (1 draw)")), "{name}: {text}");
        let json = eval("--importance 4 --json").ok().json();
        assert!(json["dequantization"] == noise && json["importance"] == 4, "{name}: {json}");
        let uniform = eval("--dequantization uniform --json").ok().json();
        assert_eq!(uniform["bound"], "uniform", "{name}: {uniform}");
        let info = run(world(), &format!("info --model {name}")).ok().stdout;
        assert!(info.contains(&format!("{noise} bound (1 draw)")), "{name}: {info}");
        let variational = eval("--dequantization variational --json");
        if noise == "uniform" {
            assert_eq!(variational.code, Some(1), "{variational:?}");
            assert!(variational.stderr.contains("no variational dequantisation"), "{variational:?}");
        } else {
            assert_eq!(variational.ok().json()["bound"], "variational");
        }
    }
}

/// These architectures have no dedicated kernels and use the general operations.
#[test]
fn training_on_a_gpu_matches_the_cpu() {
    let Some(libraries) = cuda_emulator::libraries() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, model) in MODELS {
        let line = train(model, &format!("--steps 3 --device cuda:0 --precision f32 --out {name}"));
        let mut gpu = command(folder.path(), &line);
        gpu.env("GLOWFLOW_CUDA_LIBRARIES", &libraries)
            .env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"));
        outcome(gpu).ok();
        let (have, want) = (learned(&folder.path().join(name)), learned(&world().join(name)));
        assert_eq!(have.len(), 3, "{name}");
        for (step, (have, want)) in have.iter().zip(&want).enumerate() {
            let tolerance = if step == 0 { 1e-5 } else { 1e-2 };
            assert!((have - want).abs() < tolerance * want.abs(), "{name}, step {step}: {have}, not {want}");
        }
        let sample = format!("sample --model {name} --count 2 --device cuda:0 --precision f32 --out gpu.png");
        let mut gpu = command(folder.path(), &sample);
        gpu.env("GLOWFLOW_CUDA_LIBRARIES", &libraries)
            .env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"));
        outcome(gpu).ok();
    }
}

#[test]
fn mistakes_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    for (line, words) in [
        ("train --data portraits --set model.architecture=flow", &["flow", "glow, realnvp, nice"][..]),
        (
            "train --data portraits --set model.architecture=realnvp --set model.steps=3",
            &["`steps`", "`levels`, `blocks`, `hidden`"],
        ),
        (
            "train --data portraits --preset realnvp-tiny32 --set model.levels=7",
            &["image height 32", "2^(levels - 1) = 64", "at most 6"],
        ),
        ("train --data portraits --preset nice-tiny32 --set model.image=[1,1,1]", &["model.image", "two"]),
        ("train --data portraits --preset nice-tiny32 --set model.prior=laplace", &["laplace", "`logistic`"]),
        (
            "train --data portraits --set model.dequantization=gaussian",
            &["gaussian", "`uniform` or `variational`"],
        ),
        (
            "train --data portraits --preset nice-tiny32 --set model.dequantization=variational",
            &["unknown field `dequantization`"],
        ),
    ] {
        let failed = run(folder.path(), line);
        assert_eq!(failed.code, Some(1), "{failed:?}");
        for word in words {
            assert!(failed.stderr.contains(word), "{line}: {word} is not in {}", failed.stderr);
        }
    }
}
