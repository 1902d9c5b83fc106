//! Training as users do it: messages, files after a stop, greyscale data, classes, eye positions,
//! fine-tuning.

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::{TINY, command, run, save_classes, save_image};
use glowflow::Cpu;

/// A preset with its image size, reduced to train in milliseconds.
const PRESET: &str = "--threads 2 --preset tiny32 --set model.levels=2 --set model.steps=1 --set model.hidden=8 \
                      --set train.batch=4 --set train.eval_images=8";

fn spawn(folder: &Path, line: &str) -> Child {
    command(folder, line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Waits until `done`, while a child process works.
#[track_caller]
fn wait_until(child: &mut Child, what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what} does not come");
        assert!(child.try_wait().unwrap().is_none(), "it ended without {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn has_records(run: &Path) -> bool {
    std::fs::metadata(run.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0)
}

#[test]
fn the_first_and_last_lines_are_helpful() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(folder.path(), &format!("train --data portraits --out run {TINY} --steps 3")).ok();
    assert!(outcome.stderr.contains("bits/dim are upper bounds, from uniform dequantisation"), "{outcome:?}");
    for word in
        ["sample --model run", "attributes --model run --data portraits", "serve --model run", "samples.png"]
    {
        assert!(outcome.stdout.contains(word), "{word}: {}", outcome.stdout);
    }
    assert!(outcome.stdout.contains("uniform bound (1 draw)"), "{}", outcome.stdout);
    // Programs that read JSON get nothing else.
    run(folder.path(), &format!("train --data portraits --out json {TINY} --steps 3 --json")).ok().json();
    #[cfg(target_arch = "x86_64")]
    {
        let bf16 = is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512dq");
        assert_eq!(outcome.stderr.contains("--precision bf16"), bf16, "{}", outcome.stderr);
        let amx = Cpu::has_amx();
        assert_eq!(outcome.stderr.contains("--device cpu:amx --precision bf16"), amx, "{}", outcome.stderr);
    }
    let given = format!("train --data portraits --out f32 {TINY} --steps 3 --precision f32");
    assert!(!run(folder.path(), &given).ok().stderr.contains("--precision bf16"));
}

/// After the end of its schedule, a run would train at a rate of 0.
#[test]
fn the_end_of_a_schedule_is_stated() {
    let folder = tempfile::tempdir().unwrap();
    let schedule = "--set train.schedule=cosine --set train.steps=3";
    let outcome = run(folder.path(), &format!("train --data portraits --out run {TINY} {schedule}")).ok();
    assert!(
        outcome.stdout.contains("train --resume run --device cpu --set train.steps=6"),
        "{}",
        outcome.stdout
    );
    assert!(!outcome.stderr.contains("learning rate is 0"), "{}", outcome.stderr);
    let outcome = run(folder.path(), "train --threads 2 --resume run --minutes 1").ok();
    assert!(
        outcome.stderr.contains("the run is at step 3 already, and train.steps is 3: no step is left"),
        "{outcome:?}"
    );
    let outcome = run(folder.path(), "train --threads 2 --resume run --steps 5").ok();
    let end = "the cosine schedule ends at step 3 (train.steps): the learning rate is 0 afterwards";
    assert!(outcome.stderr.contains(end), "{}", outcome.stderr);
    let outcome = run(folder.path(), "train --threads 2 --resume run --set train.steps=6").ok();
    assert!(!outcome.stderr.contains("learning rate is 0"), "{}", outcome.stderr);
}

/// Devices round differently, and some are much slower.
#[test]
fn a_run_that_continues_on_another_device_reports_it() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("train --data portraits --out run {TINY} --steps 2 --device cpu");
    let outcome = run(folder.path(), &line).ok();
    assert!(outcome.stdout.contains("train --resume run --device cpu --minutes"), "{}", outcome.stdout);
    let resume = "train --threads 1 --resume run --device cpu --steps";
    let notice = "this run was trained on NVIDIA H200, bf16, and it continues on cpu (";
    let outcome = run(folder.path(), &format!("{resume} 3")).ok();
    assert!(!outcome.stderr.contains("it continues on"), "{}", outcome.stderr);
    let card = folder.path().join("run/config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&card).unwrap()).unwrap();
    json["training"]["device"] = "NVIDIA H200, bf16".into();
    std::fs::write(&card, json.to_string()).unwrap();
    let outcome = run(folder.path(), &format!("{resume} 4")).ok();
    assert!(outcome.stderr.contains(notice), "{}", outcome.stderr);
}

/// Samples are written at time intervals during training, and change nothing else.
#[test]
fn pictures_are_written_at_time_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let line = format!(
        "train --data portraits {TINY} --set train.eval_every=1000000 --set train.log_every=5 --set train.samples_minutes"
    );
    let mut child = spawn(folder.path(), &format!("{line}=0.001 --minutes 10 --out clock"));
    wait_until(&mut child, "samples", || at("clock/samples.png").exists() && at("clock/curve.png").exists());
    child.kill().unwrap();
    child.wait().unwrap();

    run(folder.path(), &format!("{line}=0.0001 --steps 200 --out on")).ok();
    run(folder.path(), &format!("{line}=0 --steps 200 --out off")).ok();
    for file in ["metrics.jsonl", "model.safetensors", "samples.png"] {
        let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
        assert!(read("on") == read("off"), "{file} has other bytes");
    }
    let refused = run(folder.path(), &format!("{line}=-1 --steps 2 --out new"));
    assert!(refused.code == Some(1) && refused.stderr.contains("train.samples_minutes is -1"), "{refused:?}");
}

#[test]
#[cfg(unix)]
fn a_stopped_run_leaves_current_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let line = format!("train --data portraits --out run {TINY} --set train.eval_every=1000000");
    let mut child = spawn(folder.path(), &line);
    wait_until(&mut child, "records", || has_records(&out));
    assert!(!out.join("samples.png").exists());
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    for name in ["samples.png", "curve.png", "checkpoint.safetensors"] {
        assert!(out.join(name).exists(), "there is no {name}");
    }
    // They are the samples of the saved model.
    let samples = std::fs::read(out.join("samples.png")).unwrap();
    let step = run(folder.path(), "train --threads 2 --resume run --steps 1 --json").ok().json();
    assert!(step["steps"].as_u64().unwrap() > 1);
    assert!(std::fs::read(out.join("samples.png")).unwrap() == samples, "samples of another step");
}

#[test]
fn greyscale_data_give_a_greyscale_model() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..8u8 {
        let image = image::GrayImage::from_fn(28, 28, |x, y| image::Luma([(x * 5 + y) as u8 ^ i]));
        std::fs::create_dir_all(folder.path().join("grey")).unwrap();
        image.save(folder.path().join(format!("grey/{i}.png"))).unwrap();
    }
    let shape = |run_name: &str| {
        run(folder.path(), &format!("info --model {run_name} --json")).ok().json()["config"]["image"].clone()
    };
    let outcome = run(folder.path(), &format!("train --data grey --out grey1 {PRESET} --steps 2")).ok();
    assert!(outcome.stderr.contains("grey, so the model has 1 channel"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("the first has 28×28"), "{}", outcome.stderr);
    assert_eq!(shape("grey1"), serde_json::json!([32, 32, 1]));
    let resumed = run(folder.path(), "train --threads 2 --resume grey1 --steps 4").ok();
    assert!(!resumed.stderr.contains("grey,"), "{}", resumed.stderr);

    let colour = format!("train --data grey --out grey3 {PRESET} --set model.image=[32,32,3] --steps 2");
    assert!(!run(folder.path(), &colour).ok().stderr.contains("grey,"));
    assert_eq!(shape("grey3"), serde_json::json!([32, 32, 3]));
}

#[test]
fn classes_come_from_the_data() {
    let folder = tempfile::tempdir().unwrap();
    save_classes(&folder.path().join("animals"));
    let outcome =
        run(folder.path(), &format!("train --data animals --classes --out run {TINY} --steps 2")).ok();
    assert!(outcome.stderr.contains("2 classes: cat, dog"), "{}", outcome.stderr);
    run(folder.path(), "sample --model run --class dog --count 2 --out dogs.png").ok();
    // A fine-tuned model keeps its classes.
    run(folder.path(), "train --threads 2 --from run --data animals --out tuned --steps 2").ok();
    run(folder.path(), "sample --model tuned --class cat --count 2 --out cats.png").ok();
}

#[test]
fn positions_of_the_eyes_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let eyes = |run: &str| {
        let text = std::fs::read_to_string(folder.path().join(run).join("eyes.toml")).ok()?;
        let left = text.lines().find_map(|line| line.strip_prefix("left = [")).unwrap().to_owned();
        Some(left.split(',').next().unwrap().parse::<f64>().unwrap())
    };
    (0..4).for_each(|i| save_image(&folder.path().join(format!("plain/{i}.png")), i));
    (0..4).for_each(|i| save_image(&folder.path().join(format!("aligned/{i}.png")), i));
    std::fs::write(folder.path().join("aligned/eyes.toml"), "left = [0.25, 0.5]\nright = [0.75, 0.5]\n")
        .unwrap();
    let train = |arguments: &str| run(folder.path(), &format!("train --steps 2 {arguments}")).ok();
    train(&format!("--data plain --out unknown {TINY}"));
    assert_eq!(eyes("unknown"), None);
    train(&format!("--data aligned --out stated {TINY}"));
    assert_eq!(eyes("stated"), Some(0.25));
    train(&format!("--data aligned --out given {TINY} --eyes 0.3,0.5,0.7,0.5"));
    assert_eq!(eyes("given"), Some(0.3));
    train("--threads 2 --from given --data plain --out tuned");
    assert_eq!(eyes("tuned"), Some(0.3));
    train(&format!("--data portraits --out drawn {TINY}"));
    assert!(eyes("drawn").is_some());
    train("--threads 2 --resume unknown --eyes 0.35,0.5,0.65,0.5");
    assert_eq!(eyes("unknown"), Some(0.35));
    let attributes = "attributes --model drawn --data portraits --images 200 --eyes 0.4,0.5,0.6,0.5";
    run(folder.path(), attributes).ok();
    assert_eq!(eyes("drawn"), Some(0.4));
}

/// A fine-tuning run that is killed and resumed writes the same bytes as an uninterrupted one.
#[test]
fn fine_tuning_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    run(folder.path(), &format!("train --data portraits --out source {TINY} --steps 20")).ok();
    (0..12).for_each(|i| save_image(&at(&format!("images/{i}.png")), i));
    let line = "train --threads 2 --from source --data images --set train.log_every=2 --set train.checkpoint_every=7";
    let outcome = run(folder.path(), &format!("{line} --steps 300 --out whole")).ok();
    assert!(outcome.stderr.contains("starts from the weights of"), "{}", outcome.stderr);
    let mut child = spawn(folder.path(), &format!("{line} --steps 300 --out killed"));
    wait_until(&mut child, "records", || has_records(&at("killed")));
    child.kill().unwrap();
    child.wait().unwrap();
    run(folder.path(), "train --threads 2 --resume killed --steps 300").ok();
    for file in ["model.safetensors", "checkpoint.safetensors", "metrics.jsonl", "samples.png"] {
        let read = |run: &str| std::fs::read(at(run).join(file)).unwrap();
        assert!(read("killed") == read("whole"), "{file} has other bytes");
    }
}

/// Every optional option of `train` states its default.
#[test]
fn defaults_are_stated() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["train", "quickstart"] {
        let help = run(folder.path(), &format!("{name} --help")).ok().stdout;
        let mut options: Vec<String> = vec![];
        for line in help.lines() {
            match options.last_mut() {
                _ if line.starts_with("      --") => options.push(line.trim().to_owned()),
                Some(option) => *option += line,
                None => {}
            }
        }
        // Global options, and required ones.
        let others = ["--data ", "--threads ", "--device "];
        for option in options.iter().filter(|option| option.contains('<')) {
            let other = others.iter().any(|name| option.starts_with(name));
            assert!(other || option.contains("[default:"), "{name}: {option}");
        }
    }
}
