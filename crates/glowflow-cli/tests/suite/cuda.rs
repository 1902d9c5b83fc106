//! The program on an emulated GPU, which computes the results of a real one and can inject failures.

use std::path::Path;

use crate::common::{Outcome, TINY, command, outcome, read_image, run, save_image};

/// Runs `line` with the emulated GPU in place of NVIDIA's libraries; `None` if it is unavailable.
fn emulated(folder: &Path, line: &str, variables: &[(&str, &str)]) -> Option<Outcome> {
    let libraries = cuda_emulator::libraries()?;
    let mut command = command(folder, line);
    command
        .env("GLOWFLOW_CUDA_LIBRARIES", libraries)
        .env("XDG_CACHE_HOME", Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels"))
        .envs(variables.iter().copied());
    Some(outcome(command))
}

/// Like [`emulated`], or skips the test.
macro_rules! gpu {
    ($folder:expr, $line:expr $(, $variable:expr)*) => {
        match emulated($folder.path(), $line, &[$($variable),*]) {
            Some(outcome) => outcome,
            None => return,
        }
    };
}

fn bytes(folder: &tempfile::TempDir, file: &str) -> Vec<u8> {
    std::fs::read(folder.path().join(file)).unwrap()
}

/// Bits/dim in the training records.
fn learned(folder: &tempfile::TempDir, run: &str) -> Vec<f64> {
    let metrics = String::from_utf8(bytes(folder, &format!("{run}/metrics.jsonl"))).unwrap();
    let records = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.filter_map(|record| record["train_bits_per_dim"].as_f64()).collect()
}

#[test]
fn training_on_a_gpu_matches_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        format!("train {TINY} --data portraits --set train.log_every=1 --set train.warmup=3 --steps 8");
    run(folder.path(), &format!("{line} --out cpu")).ok();
    let want = learned(&folder, "cpu");
    assert_eq!(want.len(), 8);
    for (precision, tolerance) in [("f32", 1e-5), ("tf32", 1e-3), ("bf16", 1e-3)] {
        for backprop in ["stored", "reversible"] {
            let out = format!("{precision}-{backprop}");
            let options =
                format!("--precision {precision} --backprop {backprop} --out {out} --device cuda:0");
            gpu!(folder, &format!("{line} {options}")).ok();
            let have = learned(&folder, &out);
            assert_eq!(have.len(), want.len());
            // The first step differs only by the arithmetic. Adamax then moves each parameter by the sign of
            // its gradient; if the gradient is 0, as for the prior's mean of initialised latents, the sign is
            // that of a rounding error.
            for (step, (have, want)) in have.iter().zip(&want).enumerate() {
                let tolerance = if step == 0 { tolerance } else { tolerance + 5e-3 };
                assert!((have - want).abs() < tolerance, "{out}, step {step}: {have} for {want}");
            }
        }
    }
    // By default a GPU is used if there is one, with bf16.
    gpu!(folder, &format!("{line} --backprop stored --out auto --device auto")).ok();
    assert!(bytes(&folder, "auto/model.safetensors") == bytes(&folder, "bf16-stored/model.safetensors"));
}

#[test]
fn a_run_on_a_gpu_resumes_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // Two passes per step, both replayed from one capture.
    let line = format!("train {TINY} --data portraits --device cuda --set train.accumulate=2");
    gpu!(folder, &format!("{line} --steps 12 --out whole")).ok();
    gpu!(folder, &format!("{line} --steps 5 --out parts")).ok();
    gpu!(folder, "train --threads 2 --resume parts --steps 12 --device cuda").ok();
    assert!(bytes(&folder, "whole/model.safetensors") == bytes(&folder, "parts/model.safetensors"));
}

#[test]
fn models_move_between_devices_and_decode_exactly() {
    let folder = tempfile::tempdir().unwrap();
    (0..9).for_each(|i| save_image(&folder.path().join(format!("images/{i}.png")), i));
    let classes = "--set model.coupling=additive";
    gpu!(folder, &format!("train {TINY} {classes} --data images --steps 20 --out run --device cuda:0")).ok();
    gpu!(folder, "encode --model run --data images --out latents --device cuda:0").ok();
    gpu!(folder, "decode --model run --latents latents --out-dir gpu --device cuda:0").ok();
    run(folder.path(), "decode --model run --latents latents --out-dir cpu").ok();
    for i in 0..9 {
        let original = read_image(&folder.path().join(format!("images/{i}.png")));
        for device in ["gpu", "cpu"] {
            assert!(read_image(&folder.path().join(format!("{device}/{i}.png"))) == original, "image {i}");
        }
    }
    let line = "eval --model run --data images --dequantization midpoint --precision f32 --json";
    let bits = |outcome: Outcome| outcome.ok().json()["bits_per_dim"].as_f64().unwrap();
    let (have, want) =
        (bits(gpu!(folder, &format!("{line} --device cuda:0"))), bits(run(folder.path(), line)));
    assert!((have - want).abs() < 1e-5, "{have} for {want}");
    let line = "sample --model run --count 5 --seed 3 --precision f32";
    gpu!(folder, &format!("{line} --out gpu.png --device cuda:0")).ok();
    run(folder.path(), &format!("{line} --out cpu.png")).ok();
    let (have, want) =
        (read_image(&folder.path().join("gpu.png")), read_image(&folder.path().join("cpu.png")));
    let most = have.iter().zip(want.iter()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(most <= 1, "samples differ by {most}");
}

#[test]
fn losing_the_gpu_keeps_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("train {TINY} --data portraits --device cuda:0 --set train.checkpoint_every=3");
    gpu!(folder, &format!("{line} --steps 9 --out whole")).ok();
    // Some time after the first checkpoint.
    let lost = gpu!(folder, &format!("{line} --steps 9 --out run"), ("CUDA_EMULATOR_FAIL_LAUNCH", "800"));
    assert_eq!(lost.code, Some(1), "{lost:?}");
    assert!(lost.stderr.contains("cuda:0") && lost.stderr.contains("LAUNCH_FAILED"), "{lost:?}");
    assert!(folder.path().join("run/checkpoint.safetensors").exists(), "{lost:?}");
    gpu!(folder, "train --threads 2 --resume run --steps 9 --device cuda:0").ok();
    assert!(bytes(&folder, "whole/model.safetensors") == bytes(&folder, "run/model.safetensors"));
}

#[test]
fn gpu_errors_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let bench = format!("bench {TINY} --repeat 1");
    let on_gpu = format!("{bench} --device cuda:0");
    let old = ("CUDA_EMULATOR_DRIVER_VERSION", "11080");
    let none = ("CUDA_EMULATOR_DEVICES", "0");
    // Enough for the workspace of the matrix products, and little more.
    let little = ("CUDA_EMULATOR_MEMORY", "40000000");
    let large = format!("{on_gpu} --set model.hidden=256 --set train.batch=64");
    for (line, variable, words) in [
        (&on_gpu, old, ["too old", "11.8", "12.0"]),
        (&on_gpu, none, ["no NVIDIA GPU", "cuda:0", ""]),
        (&format!("{bench} --device cuda:7"), ("", ""), ["cuda:7", "one GPU", "cuda:0"]),
        (&large, little, ["MiB more were needed", "train.batch", "train.backprop=reversible"]),
    ] {
        let variables = [variable].into_iter().filter(|(name, _)| !name.is_empty()).collect::<Vec<_>>();
        let Some(outcome) = emulated(folder.path(), line, &variables) else { return };
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{word}: {outcome:?}");
        }
    }
    // By default, the CPU is used instead: silently without a GPU, otherwise with the reason.
    let auto = format!("{bench} --device auto");
    let silent = gpu!(folder, &auto, none).ok();
    assert!(silent.stderr.is_empty(), "{silent:?}");
    let told = gpu!(folder, &auto, old).ok();
    assert!(told.stderr.contains("too old") && told.stderr.contains("CPU instead"), "{told:?}");
}

#[test]
fn a_missing_driver_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), &format!("bench {TINY} --repeat 1 --device cuda:0"));
    if outcome.code == Some(0) {
        println!("skipped: this machine has a GPU");
        return;
    }
    assert!(outcome.code == Some(1) && outcome.stderr.contains("--device cpu"), "{outcome:?}");
    let wrong = run(folder.path(), "bench --device gpu");
    assert!(wrong.code == Some(2) && wrong.stderr.contains("cuda:0"), "{wrong:?}");
}

#[test]
fn compiled_kernels_are_cached_and_a_damaged_file_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let line = format!("bench {TINY} --repeat 1 --device cuda:0");
    let variable = ("XDG_CACHE_HOME", cache.to_str().unwrap());
    gpu!(folder, &line, variable).ok();
    let kept = || std::fs::read_dir(cache.join("glowflow")).unwrap().map(|entry| entry.unwrap().path());
    let paths: Vec<_> = kept().collect();
    assert_eq!(paths.len(), 1, "{paths:?}");
    let image = std::fs::read(&paths[0]).unwrap();
    for damaged in [&image[..image.len() / 2], b"", b"nonsense"] {
        std::fs::write(&paths[0], damaged).unwrap();
        gpu!(folder, &line, variable).ok();
        assert!(std::fs::read(&paths[0]).unwrap().len() == image.len());
    }
}
